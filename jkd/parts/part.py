"""What all parts share: where they stand, when they are finished, what they are made from."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jkd import build, changes, compress, digest, files, networks, processes
from jkd import config as configs
from jkd.build import Compiled, Session
from jkd.changes import Allowed, Inputs
from jkd.data import Split, batches
from jkd.environment import describe_environment, of_bits
from jkd.errors import Damaged, UserError
from jkd.networks import Start
from jkd.places import Path
from jkd.progress import RunProgress
from jkd.tasks import Nodes
from jkd.tasks.task import Found
from jkd.train import checkpoint, interrupt
from jkd.train.dispatch import Step
from jkd.train.loop import Fit
from jkd.train.state import PyTree, TrainState

FORMAT = 1  # goes up when a change of the code makes finished parts stale

# Settings of the whole run that decide the bits of a trained part.
ARITHMETIC = ("reduction", "shards", "parallelism", "deterministic")
NAMES = {"arithmetic.": ""}  # what the user knows them by

Result = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where in a run a part stands.

    Attributes:
      root: the workdir.
      replicate: index of the replicate.
      allowed: keys in which parts that are there may differ from the config.
    """

    root: Path
    replicate: int
    allowed: Allowed = field(default_factory=Allowed)

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

    def part(self, name: str) -> Path:
        """Of a trained part by name: `teacher`, or `NAME/SEED` of a student."""
        return self.teacher if name == "teacher" else self.folder / "students" / name


@dataclass(frozen=True)
class Training:
    """How a part is trained, apart from where it stands.

    Attributes:
      setup: without a folder.
      compiled: its program.
      start: where training starts, if not where the key stream says.
    """

    setup: Fit
    compiled: Compiled
    start: Start | None = None

    def init(self) -> TrainState:
        """The state at step 0."""
        state: TrainState = self.compiled.init(self.setup.run, self.setup.teacher, self.start)
        return state


def finished(folder: Path, inputs: Inputs) -> Result | None:
    """The result of a part made from the same inputs, its variables as they were written, or None.

    Args:
      folder: of the part.
      inputs: what it would be made from now, and how far a part that is there may differ: it stays what it is.

    Raises:
      UserError: when the folder holds a part made from other inputs (with the differences), or a damaged one.
    """
    path = folder / "result.json"
    if not processes.told(path.exists()):
        return None
    result = files.read_signed(path)
    if "inputs" not in result:
        raise UserError(f"{path} is not the result of a part. Delete {folder} to make it again.")
    changed = inputs.differences(result)
    refused = inputs.allowed.refused(changed or [])
    if refused or changed is None:
        what = changes.listed(refused) or "what it was not written down"
        otherwise = "Use another --workdir, or delete that folder to make it again."
        raise UserError(
            f"{folder} holds a part made from other inputs; they differ in {what}. {changes.remedy(refused, otherwise)}"
        )
    if (folder / "variables.safetensors").exists() or result.get("steps"):
        read_variables(folder, result)
    return result


@contextlib.contextmanager
def hold(folder: Path, what: str, progress: RunProgress, wait: bool) -> Iterator[None]:
    """Holds the lock of a part. While another process has it, waits and says so, or raises `Locked`.

    Where several processes compute the run it waits: the first alone has the lock, and they have to stay together.
    """

    def waiting(holder: str) -> None:
        interrupt.stop_if_requested()
        progress.waiting(holder)

    with files.lock(folder, what, wait=wait or processes.count() > 1, waiting=waiting):
        files.remove_drafts(folder)
        yield
        processes.wait(what)  # what the first has written is there for all


def network_inputs(session: Session, network: ConfigDict, split: Split, seed: int, replicate: int) -> dict[str, Any]:
    """What a trained part is made from, JSON-ready: its digest decides whether a finished part still stands. Beside it
    the environment, which is not digested: a finished part stays what it is."""
    return {
        "format": FORMAT,
        "task": session.task.name,
        "network": configs.as_dict(network),
        "data": [session.dataset.fingerprint, *session.inputs_of(network).made_of],
        "split": split.digest,
        "seed": seed,
        "replicate": replicate,
        "arithmetic": {key: session.config[key] for key in ARITHMETIC},
        changes.ENVIRONMENT: environment_of(session),
        **networks.made_of(network),
    }


def environment_of(session: Session) -> dict[str, Any]:
    """What of the environment moves the bits of what is made now, and the digest of the source, which may."""
    found = describe_environment(session.mesh)
    return of_bits(found, session.config.reduction) | {"package": found["package"]}


def check_steps(folder: Path, steps: int, where: str) -> None:
    """Refuses a change to fewer steps than a checkpoint in the part's folder has done."""
    done = checkpoint.steps(folder / "checkpoints")
    if done and done[-1] > steps:
        raise UserError(
            f"{where}.train: {steps} steps, but {folder} has a checkpoint of step {done[-1]}. Set as many at least, or "
            "delete that folder to make it again."
        )


def changes_of(folder: Path, inputs: Inputs) -> Result:
    """`{"changes": [...]}` for a result whose training went on under other settings; `{}` where it did not."""
    made = checkpoint.changes_of(folder / "checkpoints", inputs)
    return {"changes": made} if made else {}


def batches_of(
    session: Session,
    split: Split,
    positions: np.ndarray,
    step: Step,
    network: ConfigDict,
    seed: int,
    replicate: int,
    nodes: Nodes | None = None,
) -> Callable[[int], Any]:
    """`first step -> chunks` over the pool samples at `positions`; the rows that `step` wants.

    With `nodes`, those of the graph, targets are about these; without, about what labels alone tell.
    """

    share = network.sampling.labelled_share if "sampling" in network else 0.0  # a teacher sees labelled samples alone
    labelled = max(1, round(share * network.train.batch)) if share else 0

    def start(first: int) -> Any:
        return batches(
            session.dataset.train,
            split.pool[positions],
            split.labels[positions],
            inputs=step.program.reads,
            targets=partial(session.task.targets, nodes=nodes),
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
            group=network.train.group_by_length,
            labelled=labelled,
        )

    return start


def validation_of(session: Session, split: Split, apply: build.Apply, network: ConfigDict) -> Any:
    """Evaluation on the validation split while training, where one is asked for."""
    if not network.train.eval_every or not len(split.val):
        return None
    predictor = session.predictor(apply, network)

    def evaluate(variables: PyTree) -> dict[str, float]:
        source = session.dataset.train
        found = predictor(variables, source, split.val)
        measured = session.task.metrics(found, source, split.val, split.val_labels, None)
        return {key: value for key, value in measured.items() if value is not None}

    return evaluate


def test_outputs(session: Session, apply: build.Apply, network: ConfigDict, variables: PyTree) -> Found:
    """A network's answers to the whole test split."""
    test = session.dataset.test
    return session.predictor(apply, network)(variables, test, np.arange(len(test)))


def described(
    session: Session,
    apply: build.Apply,
    network: ConfigDict,
    variables: PyTree,
    source: Any,
    index: np.ndarray,
    of: Nodes,
) -> tuple[np.ndarray, np.ndarray]:
    """A network's logits and embeddings of nodes, which are of the samples at `index` of a source."""
    task = session.task
    beside = task.targets(source, index, np.full(len(index), -1), of)
    predictor = session.predictor(apply, network, of_nodes=True)
    rows = task.rows(predictor(variables, source, index, beside), index, of)
    return rows["logits"], rows["embedding"]


def stored(session: Session, found: Found) -> Found:
    """What of a network's answers is kept as its predictions."""
    return {name: found[name] for name in session.task.stored}


def test_metrics(session: Session, found: Found, teacher: Found | None) -> dict[str, float | None]:
    """The task's metrics on the test split."""
    test = session.dataset.test
    return session.task.metrics(found, test, np.arange(len(test)), test.labels, teacher)


def receipt_of(
    session: Session, apply: build.Apply, network: ConfigDict, variables: PyTree, place: Place
) -> dict[str, Any]:
    """Parameters, bytes, multiply-adds; latency, the one measured figure, in the first replicate only."""
    inputs = session.inputs_of(network)
    receipt: dict[str, Any] = dict(compress.receipt(apply, variables, inputs.example(1)))
    if place.replicate == 0:
        receipt["latency_ms"] = compress.latency(apply, variables, inputs.example(1))
        task = session.task_of(network)
        if task.answers is None:  # what is made of the outputs takes time, too, as suppression does

            def answer(variables: PyTree, fed: Any) -> tuple[Any, dict[str, Any]]:
                return task.predict({}, *apply(variables, fed)), {}

            receipt["latency_answer_ms"] = compress.latency(answer, variables, inputs.example(1))
        shorter = {size: inputs.example(1)[:, :size] for size in inputs.lengths[:-1]}
        if shorter:
            times = {str(size): compress.latency(apply, variables, example) for size, example in shorter.items()}
            receipt["latency_ms_by_length"] = times | {str(inputs.lengths[-1]): receipt["latency_ms"]}
    return receipt


def read_variables(folder: Path, result: Result) -> PyTree:
    """A finished part's variables, checked against the digest in its result.

    Raises:
      Damaged: when they are not what was written.
      UserError: when they are not there.
    """
    path = folder / "variables.safetensors"
    try:
        variables = compress.load_variables(path)
    except UserError as error:
        raise (Damaged if path.exists() else UserError)(str(error)) from None
    if digest.of_tree(variables) != result["params"]:
        raise Damaged(
            f"{path} is damaged: its SHA-256 is not the one in result.json. Delete {folder} to make this part again."
        )
    return variables


def note_of(session: Session, result: Result) -> str:
    """One line for the progress display."""
    metric = session.task.primary[0]
    value = result["metrics"][metric]
    return f"{metric} {value:.4f}, {result['steps']} steps, {result['seconds']:.1f} s"
