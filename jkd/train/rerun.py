"""Running a part again and holding it against its record: where, and in what, do two runs part?

Nothing is written. The values of every checkpoint on the way are compared, too, as are those that the last step left.
A row of checksums belongs to the step it was taken in; what a step passes through is compared in the order in which it
does, so the first stage that differs is where it began. A difference in `update` is in the state that a step starts
from: the update of the step before made it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization

from jkd import digest
from jkd.errors import Damaged, UserError
from jkd.places import Path
from jkd.train import checkpoint
from jkd.train.checksum import STAGES
from jkd.train.loop import Fit
from jkd.train.record import Kept, Leaves, Line, leaves_of, of_given, of_parts, parts_of
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


def rerun(setup: Fit, record: Kept, stored: "Stored", first: int = 0, last: int = 0) -> Outcome:
    """Runs a part again from a checkpoint at or before step `first` to step `last`, or to where it has parted.

    Args:
      setup: how the part was trained.
      record: what it did then.
      stored: its checkpoints and final variables, and its state at step 0.
      first: the step to begin after; the nearest checkpoint before it is taken, or step 0.
      last: the last step; 0 = the last that is recorded, which of a finished part has to be the last of all.

    Raises:
      NotComparable: when the record does not hold all of these steps, or is of other leaves.
      Damaged: when a checkpoint on the way is.
    """
    program = setup.step.program
    state, start = stored.before(first)
    last = last or (program.steps if stored.final else len(record.rows))
    _check_whole(record, first, start, last, program.steps)
    if given := _given_otherwise(record, of_given(setup.teacher, setup.knowledge), start):
        return Outcome(start, start, 0, 0, given)
    state, step = setup.step.place(state), start
    advance = setup.step.bind(setup.teacher, setup.knowledge, setup.run)
    lines = {line["step"]: line for line in record.lines}
    parting, rows, digests = None, 0, 0
    for chunk in setup.batches(start) if start < last else ():
        count = min(int(chunk["count"]), last - step)
        chunk |= {"count": np.asarray(count, np.int32), "record": np.asarray(True)}
        if step == start:
            _check_leaves(record, setup.step.leaves(state, setup.teacher, setup.knowledge, chunk, setup.run))
        state, metrics = advance(state, chunk)
        theirs = record.rows[step : step + count]
        if parting is None or parting.stage == "state":  # which leaves, the row of the next step can tell
            parting = _first_difference(record, theirs, np.asarray(metrics["checksums"]), step) or parting
            rows += count
        step += count
        if parting is None and step in lines:
            digests += 1
            alike = float(metrics["loss"][count - 1]).hex() == lines[step]["loss"]
            parting = _by_digests(parts_of(state), lines[step]) or (None if alike else Parting(step, "state", ()))
        if setup.progress:
            setup.progress(step, last, float(metrics["loss"][count - 1]))
        values = stored.at(step, state)  # chunks end where checkpoints are made
        if values is not None:
            parting = _with_values(parting, compared(parts_of(state), values), step)
        if (parting and values is not None) or step >= last:
            break
    return Outcome(start, step, rows, digests, parting)


class NotComparable(Exception):
    """Nothing can be said: why."""


def _check_whole(record: Kept, first: int, start: int, last: int, steps: int) -> None:
    if last > steps or last <= max(first, start):
        raise NotComparable(f"There are no steps from {max(first, start)} to {last}; it has {steps}.")
    taken: np.ndarray = np.any(record.rows[start:last], axis=1)
    if len(taken) < last - start or not taken.all():
        raise NotComparable(f"The record holds {int(taken.sum())} of the {last - start} steps from {start} to {last}.")


def _check_leaves(record: Kept, leaves: Leaves) -> None:
    theirs, ours = {name for name, _ in record.leaves}, {name for name, _ in leaves}
    if [name for name, _ in record.leaves] != [name for name, _ in leaves]:
        odd = ", ".join(sorted(theirs ^ ours)[:4]) or "in another order"
        raise NotComparable(f"The record is of other leaves ({odd}): another version of jkd, or another network.")


def _given_otherwise(record: Kept, given: dict[str, str], start: int) -> Parting | None:
    """Whether the teacher's variables or the graph's arrays are not those that training was given."""
    unlike = [name for name in record.given if given.get(name) != record.given[name]]
    if not unlike:
        return None
    stage = next(stage for stage in STAGES if any(name.startswith(f"{stage}/") for name in unlike))
    leaves = [Leaf(name, "as given") for name in unlike if name.startswith(f"{stage}/")]
    return Parting(start + 1, stage, tuple(leaves[:SHOWN]), len(leaves[SHOWN:]))


def _first_difference(record: Kept, theirs: np.ndarray, ours: np.ndarray, first: int) -> Parting | None:
    """The first row, and in it the first stage, in which both were recorded and differ."""
    # 0 where a checksum was not taken: of the optimiser's state, in most steps of a chunk.
    differs = (theirs != ours[: len(theirs)]) & (theirs != 0) & (ours[: len(theirs)] != 0)
    if not differs.any():
        return None
    row = int(differs.any(axis=1).argmax())
    names = [leaf for leaf, unlike in zip(record.leaves, differs[row], strict=True) if unlike]
    stage = next(stage for stage in STAGES if any(name.startswith(f"{stage}/") for name, _ in names))
    leaves = [Leaf(name, kind) for name, kind in names if name.startswith(f"{stage}/")]
    step = first + row + (stage != "update")
    return Parting(step, stage, tuple(leaves[:SHOWN]), len(leaves[SHOWN:]))


def _by_digests(parts: dict[str, Any], line: Line) -> Parting | None:
    """How a state differs from what a line says of it: in which leaves, where the line lists them."""
    leaves = leaves_of(parts)
    if of_parts(leaves) == line["parts"]:
        return None
    step, listed = int(line["step"]), line.get("leaves", {})
    unlike = [
        (part, path) for part in leaves for path, sha in leaves[part].items() if sha != listed.get(part, {}).get(path)
    ]
    if not listed or not unlike:
        return Parting(step, "state", ())
    flat = {part: digest.flatten(parts[part]) for part in parts}
    told = [Leaf(f"update/{part}/{path}", _kind(flat[part][path])) for part, path in unlike]
    return Parting(step, "update", tuple(told[:SHOWN]), len(told[SHOWN:]))


def _with_values(parting: Parting | None, leaves: Sequence[Leaf], step: int) -> Parting | None:
    """The same with how far values differ, where the stage is about leaves whose values are stored; of a run that has
    not parted so far, whether it does in these."""
    told = {leaf.path: leaf for leaf in leaves}
    here = parting is None or (parting.stage == "state" and parting.step == step)
    if here and leaves:
        return Parting(step, "update", tuple(leaves[:SHOWN]), len(leaves[SHOWN:]), step)
    if parting is None or parting.stage != "update":
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
      like: the state at step 0, which has their structure.
      final: the variables that the last step left, and that step.
    """

    checkpoints: Path
    like: TrainState
    final: tuple[int, Any] | None = None

    @property
    def steps(self) -> set[int]:
        """Steps after which values are at hand."""
        return {*checkpoint.steps(self.checkpoints), *([self.final[0]] if self.final else [])}

    def before(self, step: int) -> tuple[TrainState, int]:
        """The newest state at or before a step; the one at step 0 where there is none."""
        for there in reversed(checkpoint.steps(self.checkpoints)):
            if there <= step and (state := self._read(there)) is not None:
                return state, there
        return jax.tree.map(jnp.array, self.like), 0  # a copy: the steps donate it

    def at(self, step: int, state: TrainState) -> dict[str, Any] | None:
        """The stored parts of a state after a step, None where there are none."""
        if self.final and step == self.final[0]:
            return _final_parts(self.final[1], state)
        there = self._read(step) if step in checkpoint.steps(self.checkpoints) else None
        return None if there is None else parts_of(there)

    def _read(self, step: int) -> TrainState | None:
        """A checkpoint; None of one that is gone since, as its part is still being trained."""
        try:
            return checkpoint.read(self.checkpoints / str(step), self.like)
        except UserError as error:  # it was written from a state like this one
            if step not in checkpoint.steps(self.checkpoints):
                return None
            raise Damaged(str(error)) from None


def _final_parts(variables: Any, state: TrainState) -> dict[str, Any]:
    """Final variables as parts of a state: the moving average is what is kept where there is one."""
    name = "ema" if jax.tree.leaves(state.ema) else "params"
    return {name: variables["params"]} | {key: variables[key] for key in ("batch_stats",) if key in variables}


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
            found.append(Leaf(f"update/{path}", _kind(a), int(unlike.sum()), ulps(a, b) if floating else None))
    return tuple(found)


def ulps(a: np.ndarray, b: np.ndarray) -> int:
    """The largest distance between two arrays of floats, counted in floats between them; NaNs are far away."""

    def ordered(values: np.ndarray) -> np.ndarray:
        bits = _bits(values).astype(np.int64)
        sign = np.int64(1) << (8 * values.dtype.itemsize - 1)
        return np.where(bits & sign, -(bits & (sign - 1)), bits)

    return int(np.abs(ordered(a) - ordered(b)).max(initial=0))


def _kind(leaf: Any) -> str:
    return f"{leaf.dtype.name}{list(leaf.shape)}"


def _bits(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).view(
        {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[values.dtype.itemsize]
    )
