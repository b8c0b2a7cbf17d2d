"""Controls: edges with the same shape and the same weights that know nothing, or nothing but the class."""

import numpy as np
from jaxtyping import Int

from jkd import random
from jkd.graph.nearest import Edges


def random_edges(edges: Edges, seed: int, replicate: int, view: int = 0, pool: int = 0) -> Edges:
    """As many edges with the same weights, to nodes drawn uniformly, never oneself, with replacement.

    Args:
      edges: `[..., N, K]`; tables of several folds get the same draw, so that only their weights differ.
      seed: with `replicate` and `view` (its index), of the draw.
      pool: nodes that may be drawn, the first so many; 0 = all N. Hold-out rows stand after the pool.
    """
    ids, weights = edges
    nodes, k = ids.shape[-2:]
    pool = pool or nodes
    member = np.arange(nodes) < pool  # a row outside the pool cannot draw itself anyway
    others = pool - member  # [N]
    drawn = _below(np.maximum(others, 1), (nodes, k), seed, replicate, view)
    drawn = drawn + (member[:, None] & (drawn >= np.arange(nodes)[:, None]))
    return _filled(drawn, others > 0, ids, weights)


def class_random(
    edges: Edges, classes_of: Int[np.ndarray, " N"], seed: int, replicate: int, view: int = 0, pool: int = 0
) -> Edges:
    """Like `random_edges`, but drawn among the nodes of the same believed class.

    A node that is alone in its class gets no edges.

    Args:
      classes_of: the class believed of each node, int `[N]` (label where known, else the teacher's argmax).
    """
    ids, weights = edges
    nodes, k = ids.shape[-2:]
    pool = pool or nodes
    order = np.argsort(classes_of[:pool], kind="stable")
    sorted_classes = classes_of[:pool][order]
    first = np.searchsorted(sorted_classes, classes_of, "left")  # where each node's class starts in `order`
    size = np.searchsorted(sorted_classes, classes_of, "right") - first
    member = np.arange(nodes) < pool
    own = np.full(nodes, nodes, np.int64)  # each pool node's place within its class
    own[order] = np.arange(pool) - first[order]
    others = size - member
    drawn = _below(np.maximum(others, 1), (nodes, k), seed, replicate, view)
    drawn = drawn + (member[:, None] & (drawn >= own[:, None]))
    drawn = order[np.minimum(first[:, None] + drawn, pool - 1)]
    return _filled(drawn, others > 0, ids, weights)


def _below(limits: np.ndarray, shape: tuple[int, int], *numbers: int) -> np.ndarray:
    """Whole numbers drawn below each row's limit, int64 `shape`."""
    words = random.bits("edges", *numbers, size=shape[0] * shape[1]).reshape(shape)
    return (words % limits.astype(np.uint64)[:, None]).astype(np.int64)


def _filled(drawn: np.ndarray, possible: np.ndarray, ids: np.ndarray, weights: np.ndarray) -> Edges:
    present = (ids >= 0) & possible[:, None]
    return Edges(np.where(present, drawn, -1).astype(np.int32), np.where(present, weights, 0).astype(np.float32))
