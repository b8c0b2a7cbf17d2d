"""Running a part again and holding it against its record: where, and in what, do two runs part?

Nothing is written. A row of checksums belongs to the step it was taken in; what a step passes through is compared in
the order in which it does, so the first stage that differs is where it began. A difference in `update` is in the state
that a step starts from: the update of the step before made it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import serialization

from jkd import digest
from jkd.train import checkpoint
from jkd.train.checksum import STAGES
from jkd.train.loop import Fit
from jkd.train.record import Kept, of_parts, parts_of
from jkd.train.state import TrainState

SHOWN = 8  # leaves that are told by name


@dataclass(frozen=True)
class Leaf:
    """A leaf in which two runs differ.

    Attributes:
      path: `stage/path`.
      kind: dtype and shape, as in `float32[3, 3]`.
      values: how many values differ, None where no values are at hand.
      ulps: the largest difference in units in the last place; None for what is not a float, or not at hand.
    """

    path: str
    kind: str
    values: int | None = None
    ulps: int | None = None

    def __str__(self) -> str:
        told = f"{self.path} {self.kind}"
        if self.values is not None:
            told += f" ({self.values} values{'' if self.ulps is None else f', by up to {self.ulps} ULP'})"
        return told


@dataclass(frozen=True)
class Parting:
    """The first difference between a run and a record.

    Attributes:
      step: the optimiser step in which it shows, from 1; 0 is the state before the first.
      stage: as in `jkd.train.checksum.STAGES`; `state` where only a digest of the whole state tells.
      leaves: those of that stage that differ, of the first `SHOWN`.
      more: how many leaves there are beyond.
      seen_at: the step whose stored values the leaves were compared with, None where there are none.
    """

    step: int
    stage: str
    leaves: tuple[Leaf, ...]
    more: int = 0
    seen_at: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What running a part again has shown.

    Attributes:
      first: the step it was run from.
      last: the step it was run to.
      rows: steps whose checksums were compared.
      digests: digests of the whole state that were compared.
      parting: None where nothing differs.
    """

    first: int
    last: int
    rows: int
    digests: int
    parting: Parting | None


def rerun(setup: Fit, state: TrainState, record: Kept, stored: "Stored", first: int = 0, last: int = 0) -> Outcome:
    """Runs a part again from a checkpoint at or before step `first` to step `last`, or to where it has parted.

    Args:
      setup: how the part was trained.
      state: its state at step 0.
      record: what it did then.
      stored: its checkpoints and final variables.
      first: the step to begin after; the nearest checkpoint before it is taken, or step 0.
      last: the last step; 0 = of the whole run.
    """
    program = setup.step.program
    state, start = stored.before(first, state)
    last = min(last or program.steps, program.steps)
    state, step = setup.step.place(state), start
    advance = setup.step.bind(setup.teacher, setup.knowledge, setup.run)
    lines = {line["step"]: line for line in record.lines}
    parting, rows, digests = None, 0, 0
    for chunk in setup.batches(start) if start < last else ():
        count = min(int(chunk["count"]), last - step)
        chunk |= {"count": np.asarray(count, np.int32), "record": np.asarray(True)}
        state, metrics = advance(state, chunk)
        theirs = record.rows[step : step + count]
        if parting is None:
            parting = _first_difference(record, theirs, np.asarray(metrics["checksums"]), step)
            rows += int(theirs.any(axis=1).sum())
        step += count
        if parting is None and step in lines:
            digests += 1
            if of_parts(parts_of(state)) != lines[step]["parts"]:
                parting = Parting(step, "state", ())
        if setup.progress:
            setup.progress(step, last, float(metrics["loss"][count - 1]))
        if (parting and step in stored.steps) or step >= last:
            break
    values = stored.at(step, state)
    if parting is None and values is not None:
        leaves = compared(parts_of(state), values)
        parting = Parting(step, "update", leaves[:SHOWN], len(leaves[SHOWN:]), step) if leaves else None
    elif parting is not None and values is not None:
        parting = _with_values(parting, compared(parts_of(state), values), step)
    return Outcome(start, step, rows, digests, parting)


def _first_difference(record: Kept, theirs: np.ndarray, ours: np.ndarray, first: int) -> Parting | None:
    """The first row, and in it the first stage, in which both were recorded and differ."""
    # The optimiser's checksums are zero where they were not taken, and so is a whole row.
    differs = (theirs != ours[: len(theirs)]) & (theirs != 0) & (ours[: len(theirs)] != 0)
    if not differs.any():
        return None
    row = int(differs.any(axis=1).argmax())
    names = [leaf for leaf, unlike in zip(record.leaves, differs[row], strict=True) if unlike]
    stage = next(stage for stage in STAGES if any(name.startswith(f"{stage}/") for name, _ in names))
    leaves = [Leaf(name, kind) for name, kind in names if name.startswith(f"{stage}/")]
    step = first + row + (stage != "update")
    return Parting(step, stage, tuple(leaves[:SHOWN]), len(leaves[SHOWN:]))


def _with_values(parting: Parting, leaves: Sequence[Leaf], step: int) -> Parting:
    """The same with how far values differ, where the stage is about leaves whose values are stored."""
    told = {leaf.path: leaf for leaf in leaves}
    if parting.stage != "update":
        return parting
    return Parting(
        parting.step,
        parting.stage,
        tuple(told.get(leaf.path, leaf) for leaf in parting.leaves),
        parting.more,
        step,
    )


@dataclass(frozen=True)
class Stored:
    """The states of a part that are on disk.

    Attributes:
      checkpoints: folder of the checkpoints.
      inputs: what the part is made from.
      like: a state of its structure.
      final: the variables that the last step left, and that step.
    """

    checkpoints: Any
    inputs: str
    like: TrainState
    final: tuple[int, Any] | None = None

    @property
    def steps(self) -> set[int]:
        """Steps after which values are at hand."""
        return {*checkpoint.steps(self.checkpoints), *([self.final[0]] if self.final else [])}

    def before(self, step: int, fresh: TrainState) -> tuple[TrainState, int]:
        """The newest state at or before a step; the one at step 0 where there is none."""
        for there in reversed(checkpoint.steps(self.checkpoints)):
            if there <= step:
                return checkpoint.read(self.checkpoints / str(there), fresh, self.inputs), there
        return fresh, 0

    def at(self, step: int, state: TrainState) -> dict[str, Any] | None:
        """The stored parts of a state after a step, None where there are none."""
        if self.final and step == self.final[0]:
            return _final_parts(self.final[1], state)
        if step not in checkpoint.steps(self.checkpoints):
            return None
        return parts_of(checkpoint.read(self.checkpoints / str(step), self.like, self.inputs))


def _final_parts(variables: Any, state: TrainState) -> dict[str, Any]:
    """Final variables as parts of a state: the moving average is what is kept where there is one."""
    name = "ema" if jax.tree.leaves(state.ema) else "params"
    return {name: variables["params"], "batch_stats": variables.get("batch_stats", {})}


def compared(ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[Leaf, ...]:
    """The leaves of the parts that `theirs` holds, too, in which any value differs."""
    one = digest.flatten(serialization.to_state_dict({part: ours[part] for part in theirs}))
    other = digest.flatten(serialization.to_state_dict(theirs))
    found = []
    for path in one:
        a, b = np.asarray(one[path]), np.asarray(other[path])
        unlike = _bits(a) != _bits(b)
        if unlike.any():
            floating = a.dtype.kind == "f" or a.dtype.name == "bfloat16"
            kind = f"{a.dtype.name}{list(a.shape)}"
            found.append(Leaf(f"update/{path}", kind, int(unlike.sum()), ulps(a, b) if floating else None))
    return tuple(found)


def ulps(a: np.ndarray, b: np.ndarray) -> int:
    """The largest distance between two arrays of floats, counted in floats between them; NaNs are far away."""

    def ordered(values: np.ndarray) -> np.ndarray:
        bits = _bits(values).astype(np.int64)
        sign = np.int64(1) << (8 * values.dtype.itemsize - 1)
        return np.where(bits & sign, -(bits & (sign - 1)), bits)

    return int(np.abs(ordered(a) - ordered(b)).max(initial=0))


def _bits(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).view(
        {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[values.dtype.itemsize]
    )
