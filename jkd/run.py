"""The whole flow on one page: data -> teacher -> graph -> students x seeds -> report.

Each arrow is a call; nothing reaches backwards. Every part is a folder that is skipped when it is already there, made
from the same inputs. `distill` is what the command runs and what a notebook calls.
"""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jkd import build, files, manifest, parts
from jkd import config as configs
from jkd import report as reports
from jkd.build import Session
from jkd.data import make_split
from jkd.errors import Locked, UserError, did_you_mean
from jkd.graph import show, store
from jkd.graph.export import export
from jkd.graph.knowledge_graph import KnowledgeGraph
from jkd.parts import Place
from jkd.progress import RunProgress

GRAPH_ONLY = "graph"


def distill(
    config: ConfigDict, workdir: str | Path, only: str = "", replicate: int | None = None, quiet: bool = False
) -> dict[str, Any] | None:
    """Makes what is not there yet of a run, then its report.

    Args:
      config: as a config file returns it, or already resolved.
      workdir: folder of the run; one that holds another run is refused.
      only: `NAME/SEED` makes one student, `NAME` all its seeds, `graph` none; no report is written (`report` does).
      replicate: make only this one.
      quiet: no progress.

    Returns:
      The summary, as in `report/summary.json`; None when only a part was asked for.

    Raises:
      UserError: for a mistake in the config, the data or the workdir.
      Locked: when the one student asked for is being made by another process.
      Interrupted: after SIGTERM or Ctrl-C, with everything saved.
    """
    config = configs.resolve(config) if not config.is_locked else config
    workdir = Path(workdir)
    students = _students(config, only)
    replicates = range(config.replicates) if replicate is None else [_within(config, replicate)]
    files.make_folder(workdir)
    session = build.open_session(config)
    manifest.open_run(workdir, config, session.dataset)
    with RunProgress(len(replicates) * (2 + len(students)), quiet) as progress:
        locked = []
        for index in replicates:
            place = Place(workdir, index)
            split = make_split(session.dataset, config.data, index)
            teacher = parts.make_teacher(session, split, place, progress)
            graph = parts.make_graph(session, split, teacher, place, progress)
            for name, seed in students:
                try:
                    parts.make_student(session, split, teacher, graph, place, name, seed, progress)
                except Locked:
                    if only:
                        raise
                    locked.append((split, teacher, graph, place, name, seed))
        for made_of in locked:  # others were at work on these: wait for them last
            parts.make_student(session, *made_of, progress, wait=True)
    return (
        None if only or replicate is not None else reports.write_report(workdir, session.dataset, _first_graph(workdir))
    )


def report(workdir: str | Path) -> dict[str, Any]:
    """Writes the report of what is finished in a workdir and returns the summary."""
    workdir = Path(workdir)
    config, _ = manifest.read(workdir)
    session = build.open_session(config)
    manifest.open_run(workdir, config, session.dataset)
    return reports.write_report(workdir, session.dataset, _first_graph(workdir))


def evaluate(workdir: str | Path, student: str, replicate: int = 0, data_path: str = "") -> dict[str, float | None]:
    """Metrics of a finished student (`NAME/SEED`) or of the `teacher` on the test split.

    Args:
      workdir: folder of the run.
      student: which network.
      replicate: of which replicate.
      data_path: another data set of the same form and classes; empty for the run's own.
    """
    config, saved = manifest.read(Path(workdir))
    if data_path:
        config = config.copy_and_resolve_references()
        with config.unlocked():
            config.data.path = data_path
    session = build.open_session(config)
    if list(session.dataset.classes) != saved["data"]["classes"]:
        raise UserError(f"--data: {data_path or config.data.path} has other classes than the run was trained on.")
    outputs = _outputs(session, Place(Path(workdir), replicate), student)
    return session.task.metrics(outputs, session.dataset.test.labels, None)


def graph(action: str, workdir: str | Path, replicate: int = 0, to: str = "") -> str:
    """Shows, checks or exports the graph of a replicate; returns the text to print."""
    folder = Place(Path(workdir), replicate).graph
    if not (folder / "graph.json").is_file():
        raise UserError(f"there is no graph in {folder}. Make it with jkd graph build or jkd distill.")
    loaded = store.load(folder)
    if action == "export":
        config, _ = manifest.read(Path(workdir))
        export(loaded, Path(to), build.open_session(config).dataset.train.id)
        return f"wrote {to}"
    if action == "check":
        return f"{folder}: {len(loaded.sample)} nodes, every digest as written ({loaded.digest})"
    return show.describe(loaded)


def _outputs(session: Session, place: Place, student: str) -> np.ndarray:
    if student == "teacher":
        network, folder = session.config.teacher, place.teacher
    else:
        name, seed = _students(session.config, student)[0]
        network, folder = session.config.students[name], place.student(name, seed)
    if not (folder / "result.json").is_file():
        raise UserError(f"{folder} holds no finished part. Make it with jkd distill.")
    given = build.loaded_teacher(session) if student == "teacher" else None
    if given:
        return parts.test_outputs(session, given.apply, given.variables)
    variables = parts.read_variables(folder, files.read_json(folder / "result.json"))
    return parts.test_outputs(session, session.apply_of(network), variables)


def _first_graph(workdir: Path) -> KnowledgeGraph | None:
    folder = Place(workdir, 0).graph
    with contextlib.suppress(UserError):
        return store.load(folder)
    return None


def _students(config: ConfigDict, only: str) -> list[tuple[str, int]]:
    """(name, seed) of the students to make, in the config's order of names, each with all its seeds."""
    everything = [(name, seed) for name in config.students for seed in config.seeds]
    if not only:
        return everything
    if only == GRAPH_ONLY:
        return []
    name, _, seed = only.partition("/")
    if name not in config.students:
        raise UserError(f"--only: there is no student '{name}'.{did_you_mean(name, config.students)}")
    chosen = [pair for pair in everything if pair[0] == name and (not seed or str(pair[1]) == seed)]
    if not chosen:
        raise UserError(f"--only: {name} has no seed {seed}; config.seeds is {tuple(config.seeds)}.")
    return chosen


def _within(config: ConfigDict, replicate: int) -> int:
    if not 0 <= replicate < config.replicates:
        raise UserError(f"--replicate: expected 0 to {config.replicates - 1}, got {replicate}.")
    return replicate
