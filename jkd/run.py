"""The whole flow on one page: data -> teacher -> graph -> students x seeds -> report.

Each arrow is a call; nothing reaches backwards. Every part is a folder that is skipped when it is already there, made
from the same inputs. `distill` is what the command runs and what a notebook calls.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jkd import build, files, manifest, parts, places, processes, sharding
from jkd import config as configs
from jkd import report as reports
from jkd.build import Session
from jkd.data import make_split, open_dataset
from jkd.errors import Locked, UserError, did_you_mean
from jkd.graph import export as export_graph
from jkd.graph import show
from jkd.graph.knowledge_graph import KnowledgeGraph
from jkd.parts import Place
from jkd.places import Path
from jkd.progress import RunProgress
from jkd.train import interrupt
from jkd.train.state import PyTree

TEACHER, GRAPH = "teacher", "graph"  # names that no student has
TEST = "test"
SEED = "/"  # between a student's name and its seed


def distill(
    config: ConfigDict,
    workdir: str | Path,
    only: str = "",
    replicate: int | None = None,
    quiet: bool = False,
    allow_change: Sequence[str] = (),
) -> dict[str, Any] | None:
    """Makes what is not there yet of a run, then its report.

    Args:
      config: as a config file returns it, or resolved.
      workdir: folder of the run; one that holds another run is refused.
      only: `NAME/SEED` makes one student, `NAME` all its seeds, `graph` none, `teacher` not even a graph; no report is
        written (`report` does).
      replicate: make only this one.
      quiet: no progress.
      allow_change: keys of config or environment that may differ from the manifest's of the run that is there.

    Returns:
      The summary, as in `report/summary.json`; None when only a part was asked for, and in all processes but the first.

    Raises:
      UserError: for a mistake in the config, the data or the workdir.
      Locked: when the one student asked for is being made by another process.
      Interrupted: after SIGTERM or Ctrl-C, with everything saved.
    """
    config, workdir = configs.resolve(config), places.path_of(workdir)
    students = _students(config, only)
    replicates = range(config.replicates) if replicate is None else [_within(config, replicate)]
    manifest.check_place(workdir)
    session = build.open_session(config)
    parts.check(session)  # up to here nothing is written
    processes.agree(manifest.same_everywhere(config, session.dataset), "config, data or environment")
    described = parts.recorded(session)
    allowed = manifest.open_run(workdir, config, session.dataset, session.mesh, allow_change, described)
    with (
        processes.in_touch(lambda: f"in {workdir}"),
        RunProgress(len(replicates) * (2 + len(students)), quiet or not processes.first()) as progress,
    ):
        locked = []
        for index in replicates:
            place = Place(workdir, index, allowed)
            split = make_split(session.dataset, config.data, index)
            teacher = parts.make_teacher(session, split, place, progress)
            if only == TEACHER:
                continue
            interrupt.stop_if_requested()
            graph = parts.make_graph(session, split, teacher, place, progress)
            for name, seed in students:
                interrupt.stop_if_requested()
                try:
                    parts.make_student(session, split, teacher, graph, place, name, seed, progress)
                except Locked:
                    if SEED in only:
                        raise
                    locked.append((split, teacher, graph, place, name, seed))
        for made_of in locked:  # others were at work on these: wait for them last
            parts.make_student(session, *made_of, progress, wait=True)
    if only or replicate is not None or not processes.first():
        return None
    manifest.record_parts(workdir)
    return reports.write_report(workdir, session.dataset, _first_graph(workdir))


def report(workdir: str | Path) -> dict[str, Any]:
    """Writes the report of what is finished in a workdir and returns the summary."""
    workdir = places.path_of(workdir)
    config, saved = manifest.read(workdir)
    dataset = open_dataset(config.data)
    manifest.check_data(workdir, saved, dataset)
    manifest.record_parts(workdir)
    return reports.write_report(workdir, dataset, _first_graph(workdir))


def evaluate(
    workdir: str | Path,
    student: str,
    replicate: int = 0,
    data_path: str = "",
    min_score: float = 0.0,
    split: str = TEST,
) -> dict[str, float | None]:
    """Metrics of a finished student (`NAME/SEED`) or of the `teacher` on the test or the validation split.

    Args:
      workdir: folder of the run.
      student: which network.
      replicate: of which replicate.
      data_path: another data set of the same form and classes; empty for the run's own.
      min_score: of detections, in [0, 1]: those with lower scores are left out, which average precision punishes.
      split: `test` or `val`, what was put aside for choices, with the labels that these saw.

    Raises:
      UserError: no such part, other data than the run's, no validation split, or a least score where nothing has a
        score.
    """
    workdir = places.path_of(workdir)
    config, saved = manifest.read(workdir)
    part = part_of(config, Place(workdir, replicate), student)
    session = open_here(config, saved, data_path)
    for what, there in (("classes", list(session.dataset.classes)), ("shape", list(session.dataset.shape))):
        if there != saved["data"][what]:
            raise UserError(
                f"--data: expected the {what} that the run was trained on, {saved['data'][what]}, got {there} "
                f"in {data_path or config.data.path}. Give another data set."
            )
    network, apply, variables = network_of(session, part, student)
    source, index, labels = session.dataset.test, np.arange(len(session.dataset.test)), session.dataset.test.labels
    if split != TEST:
        drawn = make_split(session.dataset, config.data, replicate)
        source, index, labels = session.dataset.train, drawn.val, drawn.val_labels
        if not len(index):
            raise UserError("--split: 'val', but nothing was put aside; the run's data.val and data.val_split say so.")
    outputs = session.predictor(apply, network)(variables, source, index)
    if min_score:
        if not {"scores", "mask"} <= set(outputs) or not 0 < min_score <= 1:
            raise UserError(f"--min-score: expected a score in 0..1, of a run of detection, got {min_score}.")
        outputs = {**outputs, "mask": (outputs["mask"] > 0) & (outputs["scores"] >= min_score)}
    return session.task.metrics(outputs, source, index, labels, None)


def export(workdir: str | Path, student: str, to: str | Path, replicate: int = 0) -> str:
    """Takes a finished student (`NAME/SEED`) or the `teacher` out of a run, into a new folder; returns what to print.

    Raises:
      UserError: no such part, a teacher that is the user's own function, or a folder that is not empty.
    """
    workdir = places.path_of(workdir)
    config, saved = manifest.read(workdir)
    part = part_of(config, Place(workdir, replicate), student)
    session = open_here(config, saved)
    manifest.check_data(workdir, saved, session.dataset)
    network, apply, variables = network_of(session, part, student)
    if network.get("fn", ""):
        raise UserError(f"--student: the teacher is your own function {network.fn}; only networks of jkd are exported.")
    result = files.read_signed(part / "result.json")
    about: dict[str, Any] = {key: result[key] for key in ("params", "metrics") if key in result}
    about |= {"run": config.name, "student": student, "replicate": replicate, "network": configs.as_dict(network)}
    return parts.export_network(session, network, apply, variables, about, places.path_of(to))


def graph(action: str, workdir: str | Path, replicate: int = 0, to: str = "") -> str:
    """Shows, checks or exports the graph of a replicate; returns the text to print."""
    workdir = places.path_of(workdir)
    folder = Place(workdir, replicate).graph
    if not (folder / "graph.json").is_file():
        raise UserError(f"there is no graph in {folder}. Make it with jkd graph build or jkd distill.")
    loaded = parts.read_graph(folder)
    if action == "export":
        config, _ = manifest.read(workdir)
        export_graph(loaded, places.path_of(to), open_dataset(config.data).train.id)
        return f"wrote {to}"
    if action == "check":
        return f"{folder}: {len(loaded.sample)} nodes, every digest as written ({loaded.digest})"
    return show.describe(loaded)


def part_of(config: ConfigDict, place: Place, student: str) -> Path:
    """The folder of a finished student (`NAME/SEED`) or of the `teacher`."""
    if student == TEACHER:
        folder = place.teacher
    else:
        chosen = _students(config, student, "--student")
        if len(chosen) != 1:
            raise UserError(f"--student: expected NAME/SEED or '{TEACHER}', got '{student}'.")
        folder = place.student(*chosen[0])
    if not (folder / "result.json").is_file():
        raise UserError(f"{folder} holds no finished part. Make it with jkd distill.")
    return folder


def open_here(config: ConfigDict, saved: dict[str, Any], data_path: str = "") -> Session:
    """The session of a run, on as many devices as it had; where they are not here, on all, which rounds otherwise."""
    with config.unlocked():
        config.devices = 0
        config.data.path = data_path or config.data.path
    session = build.open_session(config)
    had = saved["environment"]["devices"]["mesh"].get(sharding.AXIS, 0)
    if had < session.mesh.size and processes.count() == 1:
        session.mesh = sharding.make_mesh(had)
    return session


def network_of(session: Session, folder: Path, student: str) -> tuple[ConfigDict, build.Apply, PyTree]:
    """Config, forward pass and variables of a finished part."""
    config = session.config
    given = session.loaded_teacher if student == TEACHER else None
    if given:
        return config.teacher, given.apply, given.variables
    network = config.teacher if student == TEACHER else config.students[student.partition(SEED)[0]]
    variables = parts.read_variables(folder, files.read_signed(folder / "result.json"))
    return network, session.apply_of(network), variables


def _first_graph(workdir: Path) -> KnowledgeGraph | None:
    folder = Place(workdir, 0).graph
    return parts.read_graph(folder) if (folder / "graph.json").exists() else None


def _students(config: ConfigDict, only: str, flag: str = "--only") -> list[tuple[str, int]]:
    """(name, seed) of the students to make, in the config's order of names, each with all its seeds."""
    everything = [(name, seed) for name in config.students for seed in config.seeds]
    if not only:
        return everything
    if only in (GRAPH, TEACHER):
        return []
    name, _, seed = only.partition(SEED)
    if name not in config.students:
        raise UserError(f"{flag}: there is no student '{name}'.{did_you_mean(name, config.students)}")
    chosen = [pair for pair in everything if pair[0] == name and (not seed or str(pair[1]) == seed)]
    if not chosen:
        raise UserError(f"{flag}: {name} has no seed {seed}; config.seeds is {tuple(config.seeds)}.")
    return chosen


def _within(config: ConfigDict, replicate: int) -> int:
    if not 0 <= replicate < config.replicates:
        raise UserError(f"--replicate: expected 0 to {config.replicates - 1}, got {replicate}.")
    return replicate
