"""How a program is sent to the devices: compiled once over a mesh, or replicated with `pmap`.

`bind` puts what is the same in every call where it belongs, and returns the function that is then called again and
again, `(state, chunk) -> (state, metrics [S])`. `chunk` holds this process's `rows` of S global batches. The elastic
step (`jkd.train.elastic`) has the same methods.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh

from jkd import sharding
from jkd.data.pipeline import PER_STEP
from jkd.objective import Side
from jkd.train.given import Knowledge, Prepared, Run
from jkd.train.state import PyTree, TrainState
from jkd.train.step import Batch, Program

Advance = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]]


@runtime_checkable
class Step(Protocol):
    """A program that is ready to run."""

    program: Program

    def rows(self, batch: int) -> slice:
        """Which rows of a global batch this process has to load."""

    def place(self, state: TrainState) -> TrainState:
        """Puts a state, the same in every process, where the step reads it."""

    def bind(self, teacher: PyTree, knowledge: Knowledge, run: Run) -> Advance:
        """The function that runs a chunk's steps; it donates the state."""

    def leaves(
        self, state: TrainState, teacher: PyTree, knowledge: Knowledge, chunk: Batch, run: Run
    ) -> tuple[tuple[str, str], ...]:
        """What its checksums are of: `Program.checksum_leaves`."""


class Listed:
    """A step that traces its program for the list of its leaves only once: it takes longer than many a tiny step."""

    program: Program
    axis: str | None = None  # that the module averages over
    _leaves: tuple[tuple[str, str], ...] = ()

    def leaves(
        self, state: TrainState, teacher: PyTree, knowledge: Knowledge, chunk: Batch, run: Run
    ) -> tuple[tuple[str, str], ...]:
        self._leaves = self._leaves or self.program.checksum_leaves(state, teacher, knowledge, chunk, run, self.axis)
        return self._leaves


class MeshStep(Listed):
    """`Program.train_steps` under one `jax.jit`: batches split over the mesh, everything else on each device.

    Sums over the batch come in an order that the number of devices decides, so the bits depend on it.
    """

    def __init__(self, program: Program, mesh: Mesh) -> None:
        self.program, self.mesh = program, mesh
        everywhere = sharding.replicated(mesh)
        self.jitted = jax.jit(
            program.train_steps,
            in_shardings=(everywhere, everywhere, everywhere, None, everywhere),  # `place_chunk` places a chunk
            out_shardings=(everywhere, everywhere),
            donate_argnums=0,
        )

    def rows(self, batch: int) -> slice:
        return sharding.rows(self.mesh, batch)

    def place(self, state: TrainState) -> TrainState:
        placed: TrainState = sharding.place(state, self.mesh)
        return placed

    def bind(self, teacher: PyTree, knowledge: Knowledge, run: Run) -> Advance:
        teacher, knowledge, run = sharding.place((teacher, knowledge, run), self.mesh)

        def advance(state: TrainState, chunk: Batch) -> tuple[TrainState, dict[str, Any]]:
            return self.jitted(state, teacher, knowledge, place_chunk(chunk, self.mesh), run)

        return advance


class PmapStep(Listed):
    """The same step under `jax.pmap`, for those whose tools expect it: equal to `jit` to rounding, no faster.

    The module's BatchNorm has to average over the axis `data` (`build_model(..., axis="data")`). Terms see the global
    batch, gathered on every device. One process only.
    """

    axis = sharding.AXIS

    def __init__(self, program: Program, devices: list[jax.Device]) -> None:
        self.program, self.devices = program, devices
        whole = Replica(**{**program.__dict__, "parts": 1, "devices": len(devices)})

        def steps(state: TrainState, teacher: PyTree, knowledge: Knowledge, rows: Batch, rest: Batch, run: Run) -> Any:
            return whole.train_steps(state, teacher, knowledge, {**rows, **rest}, run)

        self.jitted = jax.pmap(
            steps,
            axis_name=sharding.AXIS,
            in_axes=(None, None, None, 1, None, None),
            out_axes=(None, None),
            devices=devices,
        )

    def rows(self, batch: int) -> slice:
        return slice(0, batch)

    def place(self, state: TrainState) -> TrainState:
        return state

    def bind(self, teacher: PyTree, knowledge: Knowledge, run: Run) -> Advance:
        def spread(rows: np.ndarray) -> np.ndarray:  # [S, B, ...] -> [S, devices, B / devices, ...]
            return rows.reshape(rows.shape[0], len(self.devices), -1, *rows.shape[2:])

        def advance(state: TrainState, chunk: Batch) -> tuple[TrainState, dict[str, Any]]:
            rows = {key: spread(np.asarray(value)) for key, value in chunk.items() if key not in PER_STEP}
            rest = {key: chunk[key] for key in PER_STEP}
            return self.jitted(state, teacher, knowledge, rows, rest, run)

        return advance


@dataclass(frozen=True)
class Replica(Program):
    """A program as one of several devices runs it under `pmap`: its own rows forward and back, the rest for all."""

    devices: int = 1

    def prepare(self, knowledge: Knowledge, batch: Batch, run: Run) -> Prepared:
        return super().prepare(
            knowledge, {key: _whole(value) if value.ndim else value for key, value in batch.items()}, run
        )

    def teacher_side(self, variables: PyTree, prepared: Prepared) -> Side | None:
        side: Side | None = jax.tree.map(_whole, super().teacher_side(variables, self._mine(prepared)))
        return side

    def differentiate(
        self, params: PyTree, batch_stats: PyTree, prepared: Prepared
    ) -> tuple[Callable[[Any], PyTree], Side, PyTree]:
        backward, side, stats = super().differentiate(params, batch_stats, self._mine(prepared))

        def everywhere(cotangent: Any) -> PyTree:
            return jax.lax.psum(backward(self._mine(cotangent)), sharding.AXIS)

        return everywhere, jax.tree.map(_whole, side), stats

    def _mine(self, tree: PyTree) -> PyTree:
        """This device's rows of what all hold whole."""

        def part(leaf: jax.Array) -> jax.Array:
            if not leaf.ndim:
                return leaf
            size = leaf.shape[0] // self.devices
            mine: jax.Array = jax.lax.dynamic_slice_in_dim(leaf, jax.lax.axis_index(sharding.AXIS) * size, size)
            return mine

        return jax.tree.map(part, tree)


def _whole(leaf: jax.Array) -> jax.Array:
    return jax.lax.all_gather(leaf, sharding.AXIS, tiled=True)


def place_chunk(chunk: Batch, mesh: Mesh) -> Batch:
    """This process's rows of a chunk as arrays over the mesh."""
    split, everywhere = sharding.over_steps_and_samples(mesh), sharding.replicated(mesh)
    return {key: sharding.place_rows(value, everywhere if key in PER_STEP else split) for key, value in chunk.items()}
