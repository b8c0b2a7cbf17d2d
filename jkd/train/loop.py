"""The loop around the step: batches in, metrics out, checkpoints on the way, stop when asked.

Step counting: after step n the state says `step == n`, and step n + 1 takes batch n of the stream. So the position in
the data is the step, and resuming needs nothing else.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jkd import digest, processes
from jkd.errors import UserError
from jkd.places import Path
from jkd.train import checkpoint, finite, interrupt
from jkd.train.dispatch import Advance, Step
from jkd.train.given import Knowledge, Run
from jkd.train.metrics import MetricsLog
from jkd.train.record import Record, of_given
from jkd.train.state import PyTree, TrainState

ASK_EVERY = 10.0  # seconds between two questions of several processes whether to stop
MOST_STEPS = 10_000  # between two of them
AGAIN = 1000  # steps at most that are computed once more to see what one of them broke
IN_FLIGHT = 2  # calls that devices may be behind: enough to keep them busy, few enough that a signal is soon heard
Evaluate = Callable[[PyTree], dict[str, float]]


@dataclass(frozen=True)
class Fit:
    """How one part is trained.

    Attributes:
      step: the program, ready to run; kept by the caller so that it compiles once.
      batches: `start step -> iterator of chunks` (see `jkd.data.batches`), of the rows that the step asks for.
      teacher: the teacher's variables, `{}` for none.
      knowledge: the graph's arrays.
      run: seed and replicate.
      folder: where checkpoints, metrics and the record go; None keeps nothing on disk.
      inputs: digest of all that the part is made from.
      init: makes the state at step 0 anew; without it, what breaks before the first checkpoint is described as it is
        found, some steps later.
      evaluate: variables -> metrics on the validation split; called every `train.eval_every` steps.
      progress: told `(step, steps, loss)` now and then.
    """

    step: Step
    batches: Callable[[int], Iterator[dict[str, np.ndarray]]]
    teacher: PyTree
    knowledge: Knowledge
    run: Run
    folder: Path | None = None
    inputs: str = ""
    init: Callable[[], TrainState] | None = None
    evaluate: Evaluate | None = None
    progress: Callable[[int, int, float], None] | None = None


def fit(setup: Fit, state: TrainState, stop_at: int | None = None) -> TrainState:
    """Trains `state` (or the newest checkpoint in `folder`) to the last step and returns it.

    Args:
      setup: what to train and how.
      state: the state at step 0; its buffers are donated.
      stop_at: end early, at this step, as if the run had been cut there (a checkpoint is written).

    Raises:
      Interrupted: after a SIGTERM, once a checkpoint is written.
      UserError: when the loss is not finite, or no checkpoint can be written or read.
    """
    program = setup.step.program
    settings, steps = program.settings, program.steps
    checkpoints = setup.folder / "checkpoints" if setup.folder else None
    if checkpoints:
        state = checkpoint.restore(checkpoints, state, setup.inputs) or state
        processes.agree(
            digest.of_leaves(jax.tree.map(np.asarray, state.params)), f"the newest checkpoint in {checkpoints}"
        )
    state = setup.step.place(state)
    advance = setup.step.bind(setup.teacher, setup.knowledge, setup.run)
    step = saved = int(state.step)
    last = min(steps, stop_at) if stop_at else steps
    written = setup.folder if processes.first() else None
    log = MetricsLog(written, settings.log_every, steps, start=step)
    record: Record | None = None
    asked = _Asked(step)
    pending: list[tuple[int, int, dict[str, Any], dict[str, jax.Array]]] = []

    def flush(wait: bool = False) -> None:
        for first, count, batch, metrics in pending:
            rows = {key: np.asarray(value)[:count] for key, value in metrics.items()}
            checksums = rows.pop("checksums")
            if record:
                record.add(checksums)
            if (index := finite.first_broken(rows)) is not None:
                left = _as_left(setup, advance, first + index + 1)
                broken = finite.describe(state if left is None else left, batch, rows)
                assert broken
                raise finite.refusal(broken, setup.folder)
            log.add(first, rows)
        pending.clear()
        if record:
            record.flush(wait)

    def save() -> None:
        flush()  # a state that is not finite is never saved
        _check_finite(state, setup.folder)
        log.sync()
        if record:
            record.sync()
        if checkpoints and processes.first():
            checkpoint.save(checkpoints, state, setup.inputs, record.mark if record else "")
        if checkpoints:
            processes.wait(f"checkpoint {step}")

    with contextlib.ExitStack() as stack:
        stack.enter_context(processes.in_touch(lambda: f"at step {step} of {setup.folder}"))
        stack.enter_context(_enough_memory(setup.folder))
        stack.callback(log.close)
        stack.callback(lambda: record.close() if record else None)
        chunks = setup.batches(step) if step < last else iter(())
        for chunk in chunks:
            count = min(int(chunk["count"]), last - step)
            chunk |= {"count": np.asarray(count, np.int32), "record": np.asarray(setup.folder is not None)}
            if written and record is None:
                leaves = setup.step.leaves(state, setup.teacher, setup.knowledge, chunk, setup.run)
                mark = checkpoint.record_at(checkpoints, step) if checkpoints else ""
                record = Record(written, leaves, of_given(setup.teacher, setup.knowledge), step, mark)
            state, metrics = advance(state, chunk)
            pending.append((step, count, {key: chunk[key] for key in ("step", "id")}, metrics))
            if len(pending) > IN_FLIGHT:
                ready = jax.block_until_ready(pending[-1 - IN_FLIGHT][3])
                if finite.first_broken(ready) is not None:
                    flush()
            before, step = step, step + count
            if _passed(settings.digest_every, before, step) or step == steps:
                flush()
                if record:
                    record.digest(state, float(metrics["loss"][count - 1]), step == steps)
            logs = _passed(settings.log_every, before, step) or step == last
            if logs:
                flush()
                if setup.progress:
                    setup.progress(step, steps, log.lines[-1]["loss"] if log.lines else float("nan"))
            if setup.evaluate and settings.eval_every and (_passed(settings.eval_every, before, step) or step == last):
                log.write(step, {f"val_{key}": value for key, value in setup.evaluate(state.variables).items()})
            stop = asked.to_stop(step)
            if stop or step == last < steps or (_passed(settings.checkpoint_every, before, step) and step < last):
                save()
                saved = step
            if stop:
                interrupt.stop()
            if step >= last:
                break
        assert step == last, (step, last, saved)
        flush(wait=True)
        _check_finite(state, setup.folder)
        if setup.folder and processes.count() > 1:
            processes.agree(digest.of_tree(jax.tree.map(np.asarray, state.params)), f"the parameters of {setup.folder}")
    return state


def _as_left(setup: Fit, advance: Advance, step: int) -> TrainState | None:
    """The state as that step left it, computed once more from the nearest at hand; None where none is, or all are far.

    A value that is not finite is in every leaf a step or two later: only here is it where it began.
    """
    folder = setup.folder / "checkpoints" if setup.folder else None
    near = [saved for saved in checkpoint.steps(folder) if saved < step] if folder else []
    if setup.init is None or step - (near[-1] if near else 0) > AGAIN:
        return None
    state = setup.init()
    if folder and near:
        state = checkpoint.read(folder / str(near[-1]), state, setup.inputs)
    state = setup.step.place(state)
    for chunk in setup.batches(int(state.step)):
        count = min(int(chunk["count"]), step - int(state.step))
        state, _ = advance(state, chunk | {"count": np.asarray(count, np.int32), "record": np.asarray(False)})
        if int(state.step) == step:
            break
    return state


class _Asked:
    """Whether a stop was asked for, here or in another process; all call with the same steps and hear the same.

    One process knows at once. Several ask one another only every `ASK_EVERY` seconds or so, since it makes them wait
    for the step: at a step that they agreed on when they last asked, by the clock of process 0.
    """

    def __init__(self, step: int) -> None:
        self._before, self._at, self._next = time.monotonic(), step, step + 1

    def to_stop(self, step: int) -> bool:
        if processes.count() == 1:
            return interrupt.requested()
        if step < self._next:
            return False
        now = time.monotonic()
        pace = (now - self._before) / (step - self._at)  # seconds a step; of the first ones compilation is a part
        heard = processes.gather(np.array([[interrupt.requested(), min(ASK_EVERY / max(pace, 1e-6), MOST_STEPS)]]))
        self._before, self._at = now, step
        self._next = step + max(1, int(heard[0, 1]))
        return bool(heard[:, 0].any())


@contextlib.contextmanager
def _enough_memory(folder: Path | None) -> Iterator[None]:
    """A device that is out of memory, in words."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"a device has too little memory for the steps of {folder}. Raise train.accumulate (with elastic "
            "reduction config.shards), lower train.batch, or use more devices; earlier checkpoints are kept."
        ) from None


def _check_finite(state: TrainState, folder: Path | None) -> None:
    """Refuses parameters that the last step broke: no later loss is there to tell."""
    if (leaf := finite.first_leaf(state)) is not None:
        raise UserError(
            f"{leaf} is not finite after step {int(state.step)}{f' of {folder}' if folder else ''}. "
            "Lower the learning rate or set optimizer.clip; earlier checkpoints are kept."
        )


def _passed(every: int, before: int, after: int) -> bool:
    """Whether a multiple of `every` lies in (before, after]."""
    return bool(every) and after // every > before // every
