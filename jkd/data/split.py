"""What one replicate trains on: its pool, the labels it may see, their noise; and the validation samples."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int32
from ml_collections import ConfigDict

from jkd import digest
from jkd.data.dataset import DataSet
from jkd.data.sources import hash_order
from jkd.data.texts import TextSource, same
from jkd.errors import UserError
from jkd.random import bits, permutation


@dataclass(frozen=True)
class Split:
    """One replicate's samples. Index arrays count into the training source.

    Attributes:
      pool: int32 `[N]`, ascending; node i of the graph is sample `pool[i]`.
      labels: int32 `[N]`, -1 where hidden, noise already applied.
      true_labels: int32 `[N]`, for reporting only, never for training or choosing.
      val: int32 `[H]`, ascending, apart from every pool, the same in all replicates.
      val_labels: int32 `[H]`, with the same noise as `labels`: a choice must not see cleaner labels than
        training does.
      digest: SHA-256 of all of this and of the training source.
    """

    pool: Int32[np.ndarray, " n"]
    labels: Int32[np.ndarray, " n"]
    true_labels: Int32[np.ndarray, " n"]
    val: Int32[np.ndarray, " h"]
    val_labels: Int32[np.ndarray, " h"]
    digest: str

    @cached_property
    def labelled(self) -> Int32[np.ndarray, " m"]:
        """Positions in the pool (graph nodes) that have a label, ascending."""
        return np.flatnonzero(self.labels >= 0).astype(np.int32)


def make_split(dataset: DataSet, data: ConfigDict, replicate: int) -> Split:
    """Draws one replicate, a pure function of (training source, settings, replicate).

    First the validation samples: those of a split that was named, or some by a fixed hash order of ids among those
    with a label, without texts that the rest has, too; then the pool, from the rest; then the labels that stay
    visible, class-balanced as far as the pool allows; then exactly `round(noise_rate * labels)` wrong ones among them.

    Args:
      dataset: what to draw from.
      data: `config.data`, of which `val`, `pool`, `labels`, `noise`, `noise_rate` matter here.
      replicate: number of the replicate.

    Raises:
      UserError: more pool or labels asked for than there are, or nothing left to train on.
    """
    train = dataset.train
    val = _validation(dataset, data.val)
    rest = np.setdiff1d(np.arange(len(train) - dataset.aside), val)
    if not len(rest) or data.pool > len(rest):
        raise UserError(
            f"data.pool: asked for {data.pool or 'all'}, but {len(rest)} of {len(train)} training samples "
            f"are left after {len(val)} for validation. Lower data.pool or data.val."
        )
    pool = rest
    if data.pool:
        pool = np.sort(rest[permutation("pool", replicate, size=len(rest))[: data.pool]])
    true = train.labels[pool].astype(np.int32)
    visible = _visible(true, data.labels, len(dataset.classes), replicate)
    labels = np.full(len(pool), -1, np.int32)
    labels[visible] = _noisy(true[visible], data, len(dataset.classes), replicate, 0)
    val_labels = _noisy(train.labels[val].astype(np.int32), data, len(dataset.classes), replicate, 1)
    arrays = {"pool": pool.astype(np.int32), "labels": labels, "true_labels": true}
    arrays |= {"val": val.astype(np.int32), "val_labels": val_labels}
    return Split(**arrays, digest=digest.of_json([train.fingerprint, digest.of_tree(arrays)]))


def _validation(dataset: DataSet, share: float) -> np.ndarray:
    train, known = dataset.train, np.flatnonzero(dataset.train.labels >= 0)
    if dataset.aside:
        return known[known >= len(train) - dataset.aside]
    count = round(share * len(known))
    if not count:
        return known[:0]
    ids = [train.id(int(index)) for index in known]
    chosen = np.sort(known[hash_order(ids, "validation")[:count]])
    return _without_repeats(train, chosen) if isinstance(train, TextSource) else chosen


def _without_repeats(train: TextSource, chosen: np.ndarray) -> np.ndarray:
    """Those of the chosen whose text nobody else has: what a choice is scored on must not have been trained on."""
    others = np.setdiff1d(np.arange(len(train)), chosen)
    there = {same(text) for text in train.texts(others)}
    return np.array([at for at, text in zip(chosen, train.texts(chosen), strict=True) if same(text) not in there], int)


def _visible(true: Int32[np.ndarray, " n"], count: int, classes: int, replicate: int) -> np.ndarray:
    """Positions in the pool whose label stays visible, ascending: one of each class in turn until there are
    `count`.

    Where `count` is no multiple of the classes, the classes that get one more are drawn, too.
    """
    known = np.flatnonzero(true >= 0)
    if count == 0:
        return known
    if count > len(known):
        raise UserError(f"data.labels: asked for {count} labels, but only {len(known)} samples of the pool have one.")
    shuffled = known[permutation("labels", replicate, size=len(known))]
    turn = permutation("labels", replicate, 1, size=classes)
    round_of = np.empty(len(known), np.int64)  # how many of its class stand before it
    for label in range(classes):
        mine = true[shuffled] == label
        round_of[mine] = np.arange(mine.sum())
    first = np.lexsort((turn[true[shuffled]], round_of))[:count]
    return np.sort(shuffled[first])


def _noisy(
    labels: Int32[np.ndarray, " m"], data: ConfigDict, classes: int, replicate: int, part: int
) -> Int32[np.ndarray, " m"]:
    count = 0 if data.noise == "none" else round(data.noise_rate * len(labels))
    if not count:
        return labels
    wrong = permutation("noise", replicate, part, size=len(labels))[:count]
    step = np.ones(count, np.int64)
    if data.noise == "symmetric":
        step += (bits("noise", replicate, part, 1, size=count) % np.uint64(classes - 1)).astype(np.int64)
    noisy = labels.copy()
    noisy[wrong] = (labels[wrong] + step) % classes
    return noisy
