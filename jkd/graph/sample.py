"""sample: which nodes a student trains on when only so many may be kept or moved.

Anchors stay uniform within the kept set: batches made of clumps of neighbours trained unstably.
"""

import heapq

import numpy as np
from jaxtyping import Float, Float32, Int, Int32

from jkd import random
from jkd.errors import UserError
from jkd.graph.nearest import Edges


def sampling(
    by: str,
    budget: int,
    *,
    classes_of: Int[np.ndarray, " N"],
    edges: Edges | None = None,
    seed: int = 0,
    replicate: int = 0,
) -> Int32[np.ndarray, " M"]:
    """Positions of the nodes kept, sorted, int32 `[min(budget, N)]`; all of them where `budget` is 0.

    Args:
      by: `uniform`; `class_balanced`, as even over classes as they go; `facility_location`, greedy on edges.
      budget: how many to keep.
      classes_of: the class believed of each node (label where known, else the teacher's argmax).
      edges: `[V, N, K]`, for facility_location.
      seed: with `replicate`, of the draw; facility_location draws nothing.
    """
    size = len(classes_of)
    if not 0 < budget < size:
        return np.arange(size, dtype=np.int32)
    if by == "facility_location":
        if edges is None:
            raise UserError("sampling: facility_location needs edges; give the student graph.edges = 'real'.")
        kept = facility_location(edges, budget)
    elif by == "class_balanced":
        kept = _in_turn(classes_of, random.permutation("sampling", seed, replicate, size=size))[:budget]
    elif by == "uniform":
        kept = random.permutation("sampling", seed, replicate, size=size)[:budget]
    else:
        raise UserError(f"sampling: '{by}' is not one of uniform, class_balanced, facility_location.")
    return np.sort(kept).astype(np.int32)


def _in_turn(classes_of: np.ndarray, order: np.ndarray) -> np.ndarray:
    """`order` rearranged so that every class gives its first node, then its second, and so on."""
    group = classes_of[order]
    by_class = np.argsort(group, kind="stable")
    sizes = np.bincount(np.searchsorted(np.unique(group), group))
    turn = np.empty(len(order), np.int64)
    turn[by_class] = np.concatenate([np.arange(size) for size in sizes])
    return order[np.argsort(turn, kind="stable")]


def facility_location(edges: Edges, budget: int) -> Int32[np.ndarray, " M"]:
    """Greedily picks nodes that together cover the graph best, int32 `[budget]` in order of picking.

    Maximises the sum over all nodes of their similarity to the nearest pick, where similarity is the larger
    of both directions of an edge, 1 to oneself, 0 without an edge; with several views, the mean of theirs.
    Lazy: a node's gain only falls, so it is recomputed only when it is on top. Ties go to the lower id.

    Reference: Minoux 1978; at least 1 - 1/e of the optimum (Nemhauser et al. 1978).
    """
    start, ids, weights = _symmetric(edges)
    nodes = len(start) - 1
    covered = np.zeros(nodes)
    gains = np.add.reduceat(weights, start[:-1])
    heap = [(-gain, node) for node, gain in enumerate(gains.tolist())]
    heapq.heapify(heap)
    picks: list[int] = []
    while len(picks) < min(budget, nodes):
        _, node = heapq.heappop(heap)
        near, weight = ids[start[node] : start[node + 1]], weights[start[node] : start[node + 1]]
        gain = float(np.maximum(weight - covered[near], 0).sum())
        if heap and (-gain, node) > heap[0]:
            heapq.heappush(heap, (-gain, node))
            continue
        covered[near] = np.maximum(covered[near], weight)
        picks.append(node)
    return np.asarray(picks, np.int32)


def coverage(edges: Edges, picks: Int[np.ndarray, " M"]) -> float:
    """What `facility_location` maximises, for any set of picks."""
    start, ids, weights = _symmetric(edges)
    covered = np.zeros(len(start) - 1)
    for node in picks:
        part = slice(start[node], start[node + 1])
        covered[ids[part]] = np.maximum(covered[ids[part]], weights[part])
    return float(covered.sum())


def _symmetric(edges: Edges) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows as (start `[N + 1]`, ids, float64 weights): both directions and oneself, ids rising in a row."""
    ids, weights = _with_views(edges)
    views, nodes, k = ids.shape
    own = np.arange(nodes)
    keys, values = [], []
    for view in range(views):
        present = ids[view] >= 0
        source = np.repeat(own, k).reshape(nodes, k)[present]
        target, weight = ids[view][present].astype(np.int64), weights[view][present].astype(np.float64)
        pairs = np.concatenate([source * nodes + target, target * nodes + source, own * nodes + own])
        both = np.concatenate([weight, weight, np.ones(nodes)])
        order = np.lexsort((both, pairs))
        pairs, both = pairs[order], both[order]
        last = np.append(pairs[1:] != pairs[:-1], True)  # the largest weight of a pair
        keys.append(pairs[last])
        values.append(np.maximum(both[last], 0) / views)
    pairs, where = np.unique(np.concatenate(keys), return_inverse=True)
    total = np.bincount(where, np.concatenate(values))
    start = np.searchsorted(pairs, np.arange(nodes + 1) * nodes)
    return start, pairs % nodes, total


def _with_views(edges: Edges) -> tuple[Int32[np.ndarray, "V N K"], Float32[np.ndarray, "V N K"]]:
    ids, weights = edges
    return (ids[None], weights[None]) if ids.ndim == 2 else (ids, weights)


def believed_class(beliefs: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " N"]) -> Int32[np.ndarray, " N"]:
    """The label where it is known, else the class the teacher believes most."""
    return np.where(labels >= 0, labels, beliefs.argmax(-1)).astype(np.int32)
