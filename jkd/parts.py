"""The parts of a run: a teacher, a graph, one student x seed. Each is a folder with a `result.json` that says what it is made of.

A part is finished when its `result.json` names the digest of the same inputs; existence alone says nothing.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jkd import build, compress, digest, files, objective
from jkd import config as configs
from jkd.build import Compiled, Session, Teacher
from jkd.choices import share_of
from jkd.data import Split, batches
from jkd.errors import UserError
from jkd.graph.knowledge_graph import KnowledgeGraph
from jkd.progress import RunProgress
from jkd.train.loop import Fit, fit
from jkd.train.state import PyTree
from jkd.train.step import Knowledge, Program

FORMAT = 1  # goes up when a change of the code makes finished parts stale

Result = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where in a run a part stands.

    Attributes:
      root: the workdir.
      replicate: index of the replicate.
    """

    root: Path
    replicate: int

    @property
    def folder(self) -> Path:
        return self.root / "replicates" / str(self.replicate)

    @property
    def teacher(self) -> Path:
        return self.folder / "teacher"

    @property
    def graph(self) -> Path:
        return self.folder / "graph"

    def student(self, name: str, seed: int) -> Path:
        return self.folder / "students" / name / str(seed)


def finished(folder: Path, inputs: str) -> Result | None:
    """The result of a part made from the same inputs, or None.

    Raises:
      UserError: when the folder holds a part made from other inputs.
    """
    path = folder / "result.json"
    if not path.exists():
        return None
    result = files.read_json(path)
    if result.get("inputs") != inputs:
        raise UserError(
            f"{folder} holds a part made from another config, data set, teacher or graph. "
            "Use another --workdir, or delete that folder to make it again."
        )
    return result


def _network_inputs(session: Session, network: ConfigDict, split: Split, seed: int, replicate: int) -> dict[str, Any]:
    data = session.config.data
    return {
        "format": FORMAT,
        "task": session.task.name,
        "network": configs.as_dict(network),
        "data": [session.dataset.fingerprint, list(data.mean), list(data.std)],
        "split": split.digest,
        "seed": seed,
        "replicate": replicate,
    }


def train_teacher(
    session: Session, split: Split, positions: np.ndarray, replicate: int, **where: Any
) -> tuple[Program, PyTree]:
    """Trains the teacher's network on the labelled pool samples at `positions`; `where` goes to `Fit`."""
    network = session.config.teacher
    goal = objective.supervised()
    compiled = session.program(network, goal, None, len(positions), "teacher")
    program = compiled.program
    run = build.run_of(network.seed, replicate)
    setup = Fit(
        program=program,
        step=compiled.step,
        batches=_batches(session, split, positions, program, network, network.seed, replicate),
        teacher={},
        knowledge=Knowledge(),
        run=run,
        **where,
    )
    state = fit(setup, compiled.init(run, {}))
    return program, jax.tree.map(np.asarray, state.variables)


def _batches(
    session: Session,
    split: Split,
    positions: np.ndarray,
    program: Program,
    network: ConfigDict,
    seed: int,
    replicate: int,
) -> Callable[[int], Any]:
    def start(step: int) -> Any:
        return batches(
            session.dataset.train,
            split.pool[positions],
            split.labels[positions],
            nodes=positions,
            batch=network.train.batch,
            steps=program.steps,
            start_step=step,
            per_call=network.train.steps_per_call,
            seed=seed,
            replicate=replicate,
            workers=session.config.data.workers,
        )

    return start


def _val(session: Session, split: Split, apply: build.Apply, network: ConfigDict) -> Any:
    """Evaluation on the validation split while training, where one is asked for."""
    if not network.train.eval_every or not len(split.val):
        return None
    predictor = session.predictor(apply)

    def evaluate(variables: PyTree) -> dict[str, float]:
        outputs, _ = predictor(variables, session.dataset.train, split.val)
        measured = session.task.metrics(outputs, split.val_labels, None)
        return {key: value for key, value in measured.items() if value is not None}

    return evaluate


def make_teacher(session: Session, split: Split, place: Place, progress: RunProgress) -> Teacher:
    """Loads, finds or trains the teacher of a replicate, and evaluates it on the test split."""
    network, folder = session.config.teacher, place.teacher
    given = build.loaded_teacher(session)
    made_of = _network_inputs(session, network, split, network.seed, place.replicate)
    inputs = digest.of_json(made_of | {"loaded": given.digest if given else ""})
    progress.start(f"replicate {place.replicate} teacher")
    with files.lock(folder, f"the teacher of replicate {place.replicate}", wait=True):
        result = finished(folder, inputs)
        if result is not None:
            progress.finish("already there")
            return given or Teacher(session.apply_of(network), read_variables(folder, result), result["params"])
        started = time.monotonic()
        if given:
            teacher, program = given, None
        else:
            where = dict(folder=folder, inputs=inputs, progress=progress.step)
            where["evaluate"] = _val(session, split, session.apply_of(network), network)
            program, variables = train_teacher(session, split, split.labelled, place.replicate, **where)
            teacher = Teacher(session.apply_of(network), variables, digest.of_tree(variables))
            compress.save_variables(folder / "variables.safetensors", variables)
        outputs = test_outputs(session, teacher.apply, teacher.variables)
        files.write_arrays(folder / "predictions.safetensors", {"logits": outputs})
        result = {
            "inputs": inputs,
            "params": teacher.digest,
            "metrics": session.task.metrics(outputs, session.dataset.test.labels, None),
            "labels": {"train": 0 if given else len(split.labelled), "choose": 0},
            "choices": {},
            "receipt": _receipt(session, teacher.apply, teacher.variables, place),
            "steps": program.steps if program else 0,
            "seconds": time.monotonic() - started,
        }
        files.write_json(folder / "result.json", result)
    progress.finish(_note(session, result))
    return teacher


def make_student(
    session: Session,
    split: Split,
    teacher: Teacher,
    graph: KnowledgeGraph,
    place: Place,
    name: str,
    seed: int,
    progress: RunProgress,
    wait: bool = False,
) -> Result:
    """Finds or trains one student with one seed, and evaluates it on the test split."""
    network, folder = session.config.students[name], place.student(name, seed)
    made_of = _network_inputs(session, network, split, seed, place.replicate)
    inputs = digest.of_json(made_of | {"teacher": teacher.digest, "graph": graph.digest})
    progress.start(f"replicate {place.replicate} {name}/{seed}")
    with files.lock(folder, f"student {name}/{seed} of replicate {place.replicate}", wait=wait):
        result = finished(folder, inputs)
        if result is not None:
            progress.finish("already there")
            return result
        started = time.monotonic()
        goal = objective.make_objective(network, len(graph.views))
        share = share_of(graph, network, goal, seed, place.replicate)
        apply = teacher.apply if goal.needs_teacher else None
        compiled = session.program(network, goal, apply, len(share.nodes), f"students.{name}")
        program, run = compiled.program, build.run_of(seed, place.replicate)
        setup = Fit(
            program=program,
            step=compiled.step,
            batches=_batches(session, split, share.nodes, program, network, seed, place.replicate),
            teacher=teacher.variables if apply else {},
            knowledge=share.knowledge,
            run=run,
            folder=folder,
            inputs=inputs,
            evaluate=_val(session, split, session.apply_of(network), network),
            progress=progress.step,
        )
        state = fit(setup, compiled.init(run, setup.teacher))
        variables = jax.tree.map(np.asarray, state.variables)
        own = session.apply_of(network)
        outputs, features = session.predictor(own)(
            variables, session.dataset.test, np.arange(len(session.dataset.test))
        )
        predictions = {"logits": outputs}
        if goal.projects:
            predictions |= _projected(compiled, state.objective, features, share.knowledge)
        compress.save_variables(folder / "variables.safetensors", variables)
        files.write_arrays(folder / "predictions.safetensors", predictions)
        theirs = files.read_arrays(place.teacher / "predictions.safetensors")["logits"]
        result = {
            "inputs": inputs,
            "params": digest.of_tree(variables),
            "metrics": session.task.metrics(outputs, session.dataset.test.labels, theirs),
            "labels": {"train": len(split.labelled), "choose": share.labels_used},
            "choices": share.choices,
            "receipt": _receipt(session, own, variables, place),
            "steps": program.steps,
            "seconds": time.monotonic() - started,
        }
        files.write_json(folder / "result.json", result)
    progress.finish(_note(session, result))
    return result


def _projected(
    compiled: Compiled, objective: PyTree, features: np.ndarray, knowledge: Knowledge
) -> dict[str, np.ndarray]:
    """The test samples and the graph's nodes in the projected space: what a card looks neighbours up in."""
    assert knowledge.features is not None
    size, block = len(knowledge.features), 512
    rows = []
    for start in range(0, size, block):
        nodes = np.resize(np.arange(start, min(start + block, size)), block)  # one shape, padded by repeating
        rows.append(np.asarray(compiled.project_nodes(objective, knowledge, nodes))[: size - start])
    student = np.asarray(compiled.project_student(objective, features))
    return {"projection": student, "nodes": np.concatenate(rows)}


def test_outputs(session: Session, apply: build.Apply, variables: PyTree) -> np.ndarray:
    """Logits of the whole test split, float32 `[T, C]`."""
    test = session.dataset.test
    return session.predictor(apply)(variables, test, np.arange(len(test)))[0]


def _receipt(session: Session, apply: build.Apply, variables: PyTree, place: Place) -> dict[str, Any]:
    """Parameters, bytes, multiply-adds; latency, the one measured figure, in the first replicate only."""
    shape = session.dataset.shape
    receipt = compress.receipt(apply, variables, shape)
    if place.replicate == 0:
        receipt["latency_ms"] = compress.latency(apply, variables, shape)
    return receipt


def read_variables(folder: Path, result: Result) -> PyTree:
    """A finished part's variables, checked against the digest in its result."""
    variables = compress.load_variables(folder / "variables.safetensors")
    if digest.of_tree(variables) != result["params"]:
        raise UserError(
            f"{folder / 'variables.safetensors'} is damaged: its SHA-256 is not the one in result.json. "
            f"Delete {folder} to make this part again."
        )
    return variables


def _note(session: Session, result: Result) -> str:
    metric = session.task.primary[0]
    value = result["metrics"][metric]
    return f"{metric} {value:.4f}, {result['steps']} steps, {result['seconds']:.1f} s"
