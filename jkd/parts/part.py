"""What all parts share: where they stand, when they are finished, what they are made from."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jkd import build, compress, digest, files, processes
from jkd import config as configs
from jkd.build import Session
from jkd.data import Split, batches
from jkd.errors import UserError
from jkd.progress import RunProgress
from jkd.train import interrupt
from jkd.train.dispatch import Step
from jkd.train.state import PyTree

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


def finished(folder: Path, made_of: dict[str, Any]) -> Result | None:
    """The result of a part made from the same inputs, its variables as they were written, or None.

    Raises:
      UserError: when the folder holds a part made from other inputs (with the differences), or a damaged one.
    """
    path = folder / "result.json"
    if not processes.told(path.exists()):
        return None
    result = files.read_json(path)
    if not isinstance(result, dict) or "inputs" not in result:
        raise UserError(f"{path} is not the result of a part. Delete {folder} to make it again.")
    if result["inputs"] != digest.of_json(made_of):
        old, new = configs.flatten(result.get("made_of", {})), configs.flatten(made_of)
        changed = [
            f"{key}: {old.get(key, 'absent')!r} -> {new.get(key, 'absent')!r}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]
        raise UserError(
            f"{folder} holds a part made from other inputs; they differ in {'; '.join(changed[:8])}. "
            "Use another --workdir, or delete that folder to make it again."
        )
    if (folder / "variables.safetensors").exists() or result.get("steps"):
        read_variables(folder, result)
    return result


@contextlib.contextmanager
def hold(folder: Path, what: str, progress: RunProgress, wait: bool) -> Iterator[None]:
    """Holds the lock of a part. While another process has it, waits and says so, or raises `Locked`."""

    def waiting(holder: str) -> None:
        interrupt.stop_if_requested()
        progress.waiting(holder)

    with files.lock(folder, what, wait=wait, waiting=waiting):
        files.remove_drafts(folder)
        yield
        processes.wait(what)  # what the first has written is there for all


def network_inputs(session: Session, network: ConfigDict, split: Split, seed: int, replicate: int) -> dict[str, Any]:
    """What a trained part is made from, JSON-ready; its digest decides whether a finished part still stands."""
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


def batches_of(
    session: Session,
    split: Split,
    positions: np.ndarray,
    step: Step,
    network: ConfigDict,
    seed: int,
    replicate: int,
) -> Callable[[int], Any]:
    """`first step -> chunks` over the pool samples at `positions`, with their nodes; the rows that `step` wants."""

    def start(first: int) -> Any:
        return batches(
            session.dataset.train,
            split.pool[positions],
            split.labels[positions],
            nodes=positions,
            batch=network.train.batch,
            steps=step.program.steps,
            start_step=first,
            per_call=network.train.steps_per_call,
            seed=seed,
            replicate=replicate,
            workers=session.config.data.workers,
            rows=step.rows(network.train.batch),
            timeout=session.config.data.timeout,
        )

    return start


def validation_of(session: Session, split: Split, apply: build.Apply, network: ConfigDict) -> Any:
    """Evaluation on the validation split while training, where one is asked for."""
    if not network.train.eval_every or not len(split.val):
        return None
    predictor = session.predictor(apply)

    def evaluate(variables: PyTree) -> dict[str, float]:
        outputs, _ = predictor(variables, session.dataset.train, split.val)
        measured = session.task.metrics(outputs, split.val_labels, None)
        return {key: value for key, value in measured.items() if value is not None}

    return evaluate


def test_outputs(session: Session, apply: build.Apply, variables: PyTree) -> np.ndarray:
    """Logits of the whole test split, float32 `[T, C]`."""
    test = session.dataset.test
    return session.predictor(apply)(variables, test, np.arange(len(test)))[0]


def receipt_of(session: Session, apply: build.Apply, variables: PyTree, place: Place) -> dict[str, Any]:
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


def note_of(session: Session, result: Result) -> str:
    """One line for the progress display."""
    metric = session.task.primary[0]
    value = result["metrics"][metric]
    return f"{metric} {value:.4f}, {result['steps']} steps, {result['seconds']:.1f} s"
