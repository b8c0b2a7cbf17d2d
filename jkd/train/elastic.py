"""The elastic step: the same bits on any number of devices and processes.

One program over a mesh is compiled differently for one device and for eight, so its sums come in another order. Here
the batch is always cut into V virtual shards, each graded by the same single-device program, wherever it runs; what
crosses devices is only copied. The loss of the global batch, the sum over shards in a fixed tree order and the update
are single-device programs, too, run alike by every process. V is part of the config: another V gives other bits,
another number of devices does not.

BatchNorm takes its statistics within a shard, and the running statistics are the mean over shards.
"""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jkd import environment, processes, sharding
from jkd.objective import Side
from jkd.train.checksum import checksums, never_zero
from jkd.train.dispatch import Advance, Listed, MeshStep, Step
from jkd.train.given import Knowledge, Run
from jkd.train.shards import cut, join, tree_sum
from jkd.train.state import PyTree, TrainState
from jkd.train.step import Batch, Program, stages_after


class ElasticStep(Listed):
    """A step of V virtual shards, dealt out to the processes and their devices.

    Args:
      program: the network, objective and optimiser; its pure functions are sent out one by one.
      shards: V, a divisor of the batch size and a multiple of the number of processes.
      devices: this process's devices.
    """

    def __init__(self, program: Program, shards: int, devices: Sequence[jax.Device]) -> None:
        self.program, self.shards = program, shards
        each = shards // processes.count()
        self.own = range(processes.rank() * each, (processes.rank() + 1) * each)  # shards of this process
        self.devices = [devices[index * len(devices) // each] for index in range(each)]  # of each of them
        self.home = devices[0]
        self.places = {self.home, *self.devices}
        self._prepare = jax.jit(program.prepare)
        self._shard = jax.jit(self._shard_of)
        self._loss = jax.jit(self._loss_of)
        self._backward = jax.jit(lambda backward, cotangent: backward(cotangent))
        self._finish = jax.jit(self._finish_of)
        self._ready: dict[tuple[Any, ...], Callable[..., Any]] = {}  # compiled, by program, device and shapes

    def rows(self, batch: int) -> slice:
        if self.program.crosses:  # partners may stand in any shard
            return slice(0, batch)
        each = batch // self.shards
        return slice(self.own.start * each, self.own.stop * each)

    def place(self, state: TrainState) -> TrainState:
        placed: TrainState = jax.device_put(state, self.home)
        return placed

    def bind(self, teacher: PyTree, knowledge: Knowledge, run: Run) -> Advance:
        fixed = {device: jax.device_put((teacher, knowledge, run), device) for device in self.places}
        kind = _shapes((teacher, knowledge, run))  # a program is shared by graphs of several sizes

        def advance(state: TrainState, chunk: Batch) -> tuple[TrainState, dict[str, Any]]:
            lines = []
            for index in range(int(chunk["count"])):
                batch = {key: value[index] for key, value in chunk.items() if np.ndim(value)}
                state, metrics = self._step(state, batch, fixed, kind, bool(chunk["record"]))
                lines.append(metrics)
            return state, {key: jnp.stack([line[key] for line in lines]) for key in lines[0]}

        return advance

    def _put(self, tree: PyTree, device: jax.Device) -> PyTree:
        """The tree on a device; where there is one only, it is there already."""
        return tree if len(self.places) == 1 else jax.device_put(tree, device)

    def _step(
        self, state: TrainState, batch: Batch, fixed: dict[jax.Device, Any], kind: tuple[Any, ...], record: bool
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """One optimiser step, as `Program.train_step`."""
        copies = {device: self._put((state.params, state.batch_stats), device) for device in set(self.devices)}
        pieces = self._pieces(batch, fixed)
        alike = [(device, kind, _shapes(piece)) for piece, device in zip(pieces, self.devices, strict=True)]
        forward = [
            (*copies[device], self._put(piece, device), *fixed[device])
            for piece, device in zip(pieces, self.devices, strict=True)
        ]
        backwards, sides = zip(*self._of_each_shard(self._shard, forward, alike), strict=True)
        passed = self._everyones(sides)
        loss, terms, own, cotangents = self._loss(state, passed)
        backward = [
            (backward, self._put(cotangents[shard], device))
            for shard, device, backward in zip(self.own, self.devices, backwards, strict=True)
        ]
        grads = self._everyones(self._of_each_shard(self._backward, backward, alike))
        rest = [(out.stats, out.checksums) for out in passed]
        state, norm, row = self._finish(state, grads, own, rest, record)
        return state, {"loss": loss, **terms, "gradient_norm": norm, "checksums": row}

    def _of_each_shard(self, program: Any, given: list[tuple[Any, ...]], alike: list[tuple[Any, ...]]) -> list[Any]:
        """What the program makes of each own shard's arguments, in order.

        A CPU runs what one thread sends it one after the other, and its pool of threads, too large for so small a
        shard, waits by spinning. So as many threads send it shards as the pool has; which of them is done first changes
        no bit. They send what this thread has compiled: jax's settings, with which a program is traced, are a thread's
        own.

        Args:
          program: jitted.
          given: its arguments, of each shard.
          alike: of each shard, what decides the program that it needs: its device, and the shapes of what it is given.
        """
        if self.home.platform != "cpu":
            return [program(*each) for each in given]
        for each, like in zip(given, alike, strict=True):
            if (program, like) not in self._ready:
                self._ready[program, like] = program.lower(*each).compile()
        ready = [self._ready[program, like] for like in alike]
        return list(_threads().map(lambda run, each: jax.block_until_ready(run(*each)), ready, given))

    def _pieces(self, batch: Batch, fixed: dict[jax.Device, Any]) -> list[Any]:
        """The batch of each own shard; prepared already where samples are mixed across shards."""
        if self.program.crosses:
            _, knowledge, run = fixed[self.home]
            return [
                piece
                for shard, piece in enumerate(cut(self._prepare(knowledge, batch, run), self.shards))
                if shard in self.own
            ]
        return cut(batch, len(self.own))

    def _shard_of(
        self, params: PyTree, batch_stats: PyTree, piece: Any, teacher: PyTree, knowledge: Knowledge, run: Run
    ) -> tuple[Any, "Passed"]:
        program = self.program
        prepared = piece if program.crosses else program.prepare(knowledge, piece, run)
        side = program.teacher_side(teacher, prepared)
        backward, student, stats = program.differentiate(params, batch_stats, prepared)
        sums = checksums(program.stages_of(prepared, side, student))
        return backward, Passed(student, side, prepared.given, stats, sums)

    def _loss_of(self, state: TrainState, passed: list["Passed"]) -> Any:
        student, teacher, given = join([(out.student, out.teacher, out.given) for out in passed])
        progress = self.program.progress(state)
        loss, terms, own, cotangent = self.program.global_gradient(state.objective, student, teacher, given, progress)
        return loss, terms, own, cut(cotangent, self.shards)

    def _finish_of(
        self,
        state: TrainState,
        grads: list[PyTree],
        own: PyTree,
        rest: list[tuple[PyTree, jax.Array]],
        record: jax.Array,
    ) -> tuple[TrainState, jax.Array, jax.Array]:
        total = tree_sum(grads)
        stats = jax.tree.map(lambda leaf: leaf / self.shards, tree_sum([stats for stats, _ in rest]))
        # A leaf of the whole batch is cut into its shards' parts: their checksums are summed with odd weights again.
        parts = tree_sum([sums * np.uint32(2 * shard + 1) for shard, (_, sums) in enumerate(rest)])
        before = checksums(self.program.stages_before(state), record)
        after = checksums(stages_after(total, own), record)
        row = jnp.concatenate([before, jnp.where(record, never_zero(parts), jnp.zeros_like(parts)), after])
        return self.program.update(state, total, own, stats), optax.global_norm(total), row

    def _everyones(self, trees: Sequence[PyTree]) -> list[PyTree]:
        """The trees of all shards, in order, at home: copied from other devices and processes, not computed with."""
        if processes.count() == 1:
            return [self._put(tree, self.home) for tree in trees]
        together = processes.gather(jax.tree.map(lambda *leaves: np.stack(leaves), *trees))
        return [jax.tree.map(lambda leaf, shard=shard: leaf[shard], together) for shard in range(self.shards)]


def _shapes(tree: PyTree) -> tuple[Any, ...]:
    return tuple((np.shape(leaf), jnp.result_type(leaf)) for leaf in jax.tree.leaves(tree))


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(environment.threads()["pool"], thread_name_prefix="shard")


class Passed(NamedTuple):
    """What a shard's forward pass hands over.

    Attributes:
      student: its side.
      teacher: the teacher's.
      given: what the objective is given besides.
      stats: updated BatchNorm statistics.
      checksums: of `Program.stages_of`.
    """

    student: Side
    teacher: Side | None
    given: Batch
    stats: PyTree
    checksums: jax.Array


def elastic_step(program: Program, shards: int, devices: Sequence[jax.Device]) -> Step:
    """The elastic step of a program.

    With several steps a call the network is so small that more devices gain it nothing: the shards are then the
    micro-batches of one single-device program, which every process runs alike.
    """
    if program.settings.steps_per_call > 1:
        return MeshStep(replace(program, parts=shards), sharding.one_device())
    return ElasticStep(program, shards, devices)
