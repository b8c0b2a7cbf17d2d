"""Batches as a pure function of the step: order from (seed, replicate, epoch), position = step.

Nothing is saved to resume: `batches(..., start_step=n)` is the same stream from step n on, whatever the
number of workers. Students of one seed see the same order, which keeps them paired.
"""

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import grain
import numpy as np
from absl import flags
from jaxtyping import Int32, Integer

from jkd.data.inputs import Inputs
from jkd.data.sources import Source
from jkd.data.workers import settle, watched
from jkd.random import permutation

Batch = dict[str, np.ndarray]
Targets = Callable[[Source, np.ndarray, np.ndarray], Batch]
PER_STEP = ("step", "count", "record")  # keys of a chunk that have no sample axis


def no_targets(source: Source, index: np.ndarray, labels: np.ndarray) -> Batch:
    """Of a task that a sample's label is enough for."""
    return {}


def order(seed: int, replicate: int, size: int, batch: int, step: int) -> Int32[np.ndarray, " batch"]:
    """Positions in `range(size)` of one step's batch.

    The stream runs through one permutation per epoch, without gaps: position p = step * batch + j of it is
    `permutation(p // size)[p % size]`, so a batch may span two epochs, and `batch` may exceed `size`.
    """
    return _positions(seed, replicate, size, step * batch, batch)


def _positions(
    seed: int, replicate: int, size: int, first: int, count: int, stream: str = "order"
) -> Int32[np.ndarray, " count"]:
    parts, end = [np.zeros(0, np.int32)], first + count
    for epoch in range(first // size, -(-end // size)):
        start = epoch * size
        parts.append(_epoch(stream, seed, replicate, size, epoch)[max(first - start, 0) : end - start])
    return np.concatenate(parts)


@lru_cache(maxsize=8)
def _epoch(stream: str, seed: int, replicate: int, size: int, epoch: int) -> np.ndarray:
    made = permutation(stream, seed, replicate, epoch, size=size).astype(np.int32)
    made.flags.writeable = False
    return made


@lru_cache(maxsize=8)
def _turns(seed: int, replicate: int, group: int, batches: int) -> np.ndarray:
    made = permutation("groups", seed, replicate, group, size=batches)
    made.flags.writeable = False
    return made


@dataclass(frozen=True)
class _Chunks:
    """A grain data source: element i is the i-th chunk of up to `per_call` steps from `start_step` on.

    Chunks end at multiples of `per_call`, wherever the stream starts: a resumed run falls into step with an unbroken
    one.
    """

    source: Source
    inputs: Mapping[str, Inputs]
    targets: Targets
    subset: np.ndarray
    labels: np.ndarray
    nodes: np.ndarray
    batch: int
    steps: int
    start_step: int
    per_call: int
    seed: int
    replicate: int
    rows: slice
    group: int
    labelled: int

    def __len__(self) -> int:
        return -(-self.steps // self.per_call) - self.start_step // self.per_call

    def start_of(self, index: int) -> int:
        """The first step of a chunk."""
        return max((self.start_step // self.per_call + index) * self.per_call, self.start_step)

    def __getitem__(self, index: int) -> Batch:
        first, last = self.start_of(index), min(self.start_of(index + 1), self.steps)
        count = last - first
        at = self._samples(first, last)
        # One static shape for the whole chunk, the same in every process whichever rows it loads.
        sizes = {name: each.sizes(self.source, self.subset[at.ravel()]).max() for name, each in self.inputs.items()}
        at = at[:, self.rows]
        shape = at.shape
        at = at.reshape(-1)
        ids = self.subset[at]
        rows = {name: each.read(self.source, ids, int(sizes[name])) for name, each in self.inputs.items()}
        rows |= {"label": self.labels[at], "id": ids, "node": self.nodes[at]}
        rows |= self.targets(self.source, ids, self.labels[at])
        made = {name: array.reshape(*shape, *array.shape[1:]) for name, array in rows.items()}
        made["step"] = np.arange(first, last, dtype=np.int32)
        if count < self.per_call:  # one shape for all chunks, so that the step compiles once
            full = np.minimum(np.arange(self.per_call), count - 1)
            made = {name: array[full] for name, array in made.items()}
        return made | {"count": np.asarray(count, np.int32)}

    def _samples(self, first: int, last: int) -> np.ndarray:
        """Positions in `subset` of the batches of the steps from `first` to `last`, `[last - first, batch]`."""
        if self.labelled:
            return self._with_labelled_share(first, last)
        if not self.group:
            at = _positions(
                self.seed, self.replicate, len(self.subset), first * self.batch, (last - first) * self.batch
            )
            return at.reshape(-1, self.batch)
        groups = [self._sorted(group) for group in range(first // self.group, -(-last // self.group))]
        skipped = first % self.group
        return np.concatenate(groups)[skipped : skipped + last - first]

    def _with_labelled_share(self, first: int, last: int) -> np.ndarray:
        """Batches with so many labelled samples each, dealt out evenly over the rows: each kind has its own epochs."""
        count, place = last - first, np.arange(self.batch) * self.labelled
        known = (place + self.labelled) // self.batch > place // self.batch  # which rows
        at = np.empty((count, self.batch), np.int32)
        for stream, rows, kind in (("labelled", known, self.labels >= 0), ("order", ~known, self.labels < 0)):
            some, each = np.flatnonzero(kind), int(rows.sum())
            drawn = _positions(self.seed, self.replicate, len(some), first * each, count * each, stream)
            at[:, rows] = some[drawn].reshape(count, each)
        return at

    def _sorted(self, group: int) -> np.ndarray:
        """The batches of one group of steps, their samples dealt out by length; they come in a random order."""
        first = group * self.group
        count = min(self.group, self.steps - first)  # the last samples of a run are not traded for later ones
        at = _positions(self.seed, self.replicate, len(self.subset), first * self.batch, count * self.batch)
        sizes = sum(each.sizes(self.source, self.subset[at]).astype(np.int64) for each in self.inputs.values())
        at = at[np.argsort(sizes, kind="stable")]  # equally long ones stay in the order of the stream
        return at.reshape(count, self.batch)[_turns(self.seed, self.replicate, group, count)]


def batches(
    source: Source,
    subset: Integer[np.ndarray, " m"],
    labels: Integer[np.ndarray, " m"],
    *,
    inputs: Mapping[str, Inputs],
    targets: Targets = no_targets,
    batch: int,
    steps: int,
    start_step: int = 0,
    per_call: int = 1,
    seed: int,
    replicate: int,
    workers: int = 0,
    timeout: float = 0.0,
    nodes: Integer[np.ndarray, " m"] | None = None,
    rows: slice = slice(None),
    group: int = 0,
    labelled: int = 0,
) -> Iterator[Batch]:
    """Chunks of `per_call` training steps, from `start_step` up to `steps`.

    Args:
      source: the training source.
      subset: samples to train on, by index into the source.
      labels: their labels, -1 where hidden.
      inputs: what the networks are fed, by key of the batch: `input`, and `teacher_input` where the teacher's differs.
      targets: `(source, indices [N], labels [N]) -> arrays [N, ...]`: what a task asks for besides a label.
      batch: samples per step, B.
      steps: where the run ends.
      start_step: where this stream starts: 0, or the step of a checkpoint.
      per_call: steps per chunk, S.
      seed: the student's (or teacher's) seed.
      replicate: number of the replicate.
      workers: loader processes; changes the speed, never the order.
      timeout: seconds without a chunk after which loader processes count as hung; 0 = never.
      nodes: the graph node (position in the pool) of each sample of `subset`; by default its position in
        `subset`, which is right where the subset is the whole pool.
      rows: which samples of each step's batch to load, as one of several processes does; all by default.
      group: the samples of so many steps are sorted by length before they are cut into batches, so that less is padded;
        0 = they come as the stream has them. A group is no longer than an epoch, so that no batch repeats a sample that
        the stream would not repeat nearby.
      labelled: samples of each batch that have a label, the others having none; 0, or where all samples are of one
        kind: as the stream has them. Not to go with `group`.

    Yields:
      Each of `inputs` `[S, B, ...]`, `label`, `id` (index into the source), `node` int32 `[S, B]`, the task's targets,
      `step` int32 `[S]` and `count` int32, the number of steps that are real: the last chunk repeats its last step
      to stay full. Closing or dropping the iterator ends its threads and processes.

    Raises:
      UserError: an image that cannot be read, or loader processes that ended or hung twice at the same chunk.
    """
    subset, labels = np.asarray(subset, np.int32), np.asarray(labels, np.int32)
    nodes = np.arange(len(subset), dtype=np.int32) if nodes is None else np.asarray(nodes, np.int32)
    if not len(subset) or not len(subset) == len(labels) == len(nodes):
        raise ValueError(
            f"{len(subset)} samples, {len(labels)} labels, {len(nodes)} nodes: expected as many of each, > 0"
        )
    group = min(group, max(1, len(subset) // batch))
    labelled = labelled if 0 < np.count_nonzero(labels >= 0) < len(labels) else 0
    stream = (batch, steps, start_step, per_call, seed, replicate, rows, group, labelled)
    return _stream(_Chunks(source, inputs, targets, subset, labels, nodes, *stream), workers, timeout)


def _stream(chunks: _Chunks, workers: int, timeout: float) -> Iterator[Batch]:
    if chunks.steps <= chunks.start_step:
        return

    def start(done: int) -> grain.DatasetIterator[Batch]:
        return _iterator(replace(chunks, start_step=chunks.start_of(done)), workers)

    def where(done: int) -> str:
        return f"step {chunks.start_of(done) + 1}"

    if workers:
        yield from watched(start, len(chunks), timeout, where)
        return
    iterator = start(0)
    try:
        yield from iterator
    finally:
        iterator.close()


def _iterator(chunks: _Chunks, workers: int) -> grain.DatasetIterator[Batch]:
    # Copying from memory takes less time than handing over to a thread; decoding files is worth several.
    threads = 0 if chunks.source.in_memory or workers else 4
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    data = grain.MapDataset.source(chunks).to_iter_dataset(read_options=options)
    if workers:
        if not flags.FLAGS.is_parsed():  # as in a notebook; grain asks for its flags
            flags.FLAGS.mark_as_parsed()
        # Chunks come through a pipe: shared memory of a process that was killed would stay behind.
        data = grain.experimental.WithOptionsIterDataset(data, grain.experimental.DatasetOptions(min_shm_size=2**62))
        settled = functools.partial(settle, os.getpid())
        data = data.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2), settled)
    return iter(data)
