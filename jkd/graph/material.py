"""What a diagnosis needs: labels that a teacher has not seen, and what the graph looked like without them.

One form serves both ways of holding labels back. A **trial** is a teacher with some labels hidden from it;
its hidden nodes are scored. Folds: F trials over the pool's own labels, nothing else spent. Hold-out: one
trial; the held-out samples stand after the pool as further rows that have edges into it and that nobody has
edges to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float32, Int, Int32

from jkd import random
from jkd.graph.nearest import Edges, neighbours, neighbours_of

View = np.ndarray | Edges  # features to take neighbours by, or edges as they are


@dataclass(frozen=True)
class Folds:
    """What F fold teachers said of the pool, fold f's teacher trained without fold f's labels.

    Attributes:
      fold_of: the fold of each labelled node, -1 where there is no label, int `[N]`; see `assign_folds`.
      beliefs: each fold teacher's softmax at T = 1, F times float32 `[N, C]`.
      features: each fold teacher's embeddings, F times float32 `[N, D]`.
      views: each fold's views that depend on what its teacher says or on labels, the fold's own hidden; none where all
        views are of the samples alone.
    """

    fold_of: Int[np.ndarray, " N"]
    beliefs: Sequence[Float[np.ndarray, "N C"]]
    features: Sequence[Float[np.ndarray, "N D"]]
    views: Sequence[Mapping[str, View]] = ()


@dataclass(frozen=True)
class HoldOut:
    """What the teacher said of H labelled samples outside the pool.

    Attributes:
      labels: int `[H]`.
      beliefs: softmax at T = 1, float32 `[H, C]`.
      features: embeddings, float32 `[H, D]`.
      views: for each view but `teacher`, the samples' features, or their edges into the pool.
    """

    labels: Int[np.ndarray, " H"]
    beliefs: Float[np.ndarray, "H C"]
    features: Float[np.ndarray, "H D"]
    views: Mapping[str, View] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Material:
    """The trials of a diagnosis over M nodes: the pool's N, and held-out samples after them.

    Attributes:
      by: `folds` or `holdout`.
      pool: N; only these nodes are ever neighbours.
      beliefs: of each trial's teacher, float32 `[F, M, C]`.
      labels: int32 `[M]`, -1 where there is none.
      trial_of: the trial in which a node's label is hidden and scored, int32 `[M]`, -1 where never.
      edges: for each view, tables `[F, M, K]`, or `[1, M, K]` where all trials share them.
    """

    by: str
    pool: int
    beliefs: Float32[np.ndarray, "F M C"]
    labels: Int32[np.ndarray, " M"]
    trial_of: Int32[np.ndarray, " M"]
    edges: Mapping[str, Edges]

    @property
    def labels_used(self) -> int:
        """Labels that a choice sees and training does not: none by folds, all of a hold-out."""
        return int((self.labels[self.pool :] >= 0).sum())

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything by name, as it is stored."""
        named = {"beliefs": self.beliefs, "labels": self.labels, "trial_of": self.trial_of}
        for index, table in enumerate(self.edges.values()):
            named |= {f"neighbours.{index}": table.ids, f"weights.{index}": table.weights}
        return {f"material.{name}": array for name, array in named.items()}


def assign_folds(
    labels: Int[np.ndarray, " N"], folds: int, seed: int = 0, replicate: int = 0
) -> Int32[np.ndarray, " N"]:
    """Deals the labelled nodes out to folds, each class as evenly as it goes; -1 where there is no label."""
    order = random.permutation("folds", seed, replicate, size=len(labels))
    order = order[labels[order] >= 0]
    order = order[np.argsort(labels[order], kind="stable")]  # class by class, shuffled within
    fold_of = np.full(len(labels), -1, np.int32)
    fold_of[order] = np.arange(len(order)) % folds
    return fold_of


def view_edges(view: View, k: int, block: int) -> Edges:
    """The edges of a view over the pool."""
    return view if isinstance(view, Edges) else neighbours(view, k, block)


def from_folds(folds: Folds, labels: Int[np.ndarray, " N"], edges: Mapping[str, Edges], k: int, block: int) -> Material:
    """Material from fold teachers. `edges` are the graph's own; `teacher`, and `folds.views`, are each fold's."""
    views = folds.views or [{} for _ in folds.features]
    each: list[dict[str, View]] = [
        {"teacher": np.asarray(seen), **own} for seen, own in zip(folds.features, views, strict=True)
    ]
    by_view = {}
    for view, table in edges.items():
        tables = [view_edges(own[view], k, block) for own in each if view in own] or [table]
        by_view[view] = Edges(*(np.stack(part) for part in zip(*tables, strict=True)))
    return Material(
        by="folds",
        pool=len(labels),
        beliefs=np.stack([np.asarray(one, np.float32) for one in folds.beliefs]),
        labels=labels.astype(np.int32),
        trial_of=np.where(labels >= 0, folds.fold_of, -1).astype(np.int32),
        edges=by_view,
    )


def from_holdout(
    holdout: HoldOut,
    beliefs: Float[np.ndarray, "N C"],
    labels: Int[np.ndarray, " N"],
    edges: Mapping[str, Edges],
    views: Mapping[str, View],
    k: int,
    block: int,
) -> Material:
    """Material from a hold-out: its samples' edges into the pool stand below the pool's own.

    Args:
      holdout: the samples held out.
      beliefs: the teacher's, of the pool.
      labels: the pool's.
      edges: the pool's, by view.
      views: the pool's features by view, `teacher` included, to look the held-out samples up in.
      k: neighbours of a sample.
      block: rows of a block.
    """
    by_view = {}
    for view, table in edges.items():
        outside = holdout.features if view == "teacher" else holdout.views[view]
        found = outside if isinstance(outside, Edges) else neighbours_of(outside, _features(views[view]), k, block)
        by_view[view] = Edges(*(np.concatenate(pair)[None] for pair in zip(table, found, strict=True)))
    inside, held = len(labels), len(holdout.labels)
    return Material(
        by="holdout",
        pool=inside,
        beliefs=np.concatenate([beliefs, holdout.beliefs])[None].astype(np.float32),
        labels=np.concatenate([labels, holdout.labels]).astype(np.int32),
        trial_of=np.repeat(np.asarray([-1, 0], np.int32), [inside, held]),
        edges=by_view,
    )


def _features(view: View) -> np.ndarray:
    if isinstance(view, Edges):
        raise ValueError("a view of edges inside needs edges outside too")
    return view
