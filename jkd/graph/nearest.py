"""`similar_to` edges: every sample's k nearest neighbours by cosine, never as an [N, N] matrix.

Two passes. A jitted one multiplies a block of rows with a block of columns and keeps a running top (k +
MARGIN) of candidates; a second one scores those few again on the host, in float64 and in one fixed order of
summation. So a weight is the same whatever the block size, the device or its matrix units were, the
similarity of (i, j) has the bits of (j, i), and equal samples tie exactly. Memory is O(N (D + K) + block^2).
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32

from jkd.errors import UserError

MARGIN = 8  # candidates kept beyond k, for the second pass to choose from
GRID = 2.0**20  # candidates are compared on this grid: what differs by rounding alone ties, and the lower id wins
CHUNK = 2**22  # float64 values that the second pass holds at once


class Edges(NamedTuple):
    """A padded neighbour table: row i lists the neighbours of node i, best first.

    Attributes:
      ids: int32 `[..., N, K]`, -1 where there is no (further) neighbour.
      weights: float32 `[..., N, K]`, 0 where there is none.
    """

    ids: np.ndarray
    weights: np.ndarray


def neighbours(features: Float[np.ndarray, "N D"], k: int, block: int = 2048) -> Edges:
    """Each sample's k nearest others by cosine similarity: ids and weights `[N, k]`.

    Sorted by (weight descending, id ascending), self excluded, -1 where there are fewer than k others. A
    sample whose features are all zero has no direction: it gets no edges and is nobody's neighbour.

    Two calls give the same bytes. Weights do not depend on `block`; ids do not either, unless more than
    `MARGIN` other samples lie within 2**-20 of the k-th similarity.

    Raises:
      UserError: naming the first sample whose features are not finite.
    """
    return _search(features, features, k, block, own=True)


def neighbours_of(
    queries: Float[np.ndarray, "Q D"], features: Float[np.ndarray, "N D"], k: int, block: int = 2048
) -> Edges:
    """The k nearest `features` of every query from outside (hold-out, test inputs): ids and weights `[Q, k]`.

    Same rules as `neighbours`, but nothing is excluded.
    """
    return _search(queries, features, k, block, own=False)


def _search(queries: np.ndarray, features: np.ndarray, k: int, block: int, own: bool) -> Edges:
    if queries.ndim != 2 or features.ndim != 2 or queries.shape[1] != features.shape[1]:
        raise UserError(f"features: expected [N, D] of one width, got {queries.shape} against {features.shape}.")
    keep = k + MARGIN
    columns, column_norms = _unit(features, "features")
    rows, row_norms = (columns, column_norms) if own else _unit(queries, "queries")
    block = max(min(block, _up(max(len(rows), len(columns)), 64)), _up(keep, 8))
    ids = np.full((len(rows), k), -1, np.int32)
    weights = np.zeros((len(rows), k), np.float32)
    for start, candidates in _candidates(rows, columns, column_norms > 0, keep, block, own):
        part = slice(start, start + len(candidates))
        scores = _rescore(queries[part], row_norms[part], features, column_norms, candidates)
        order = np.lexsort((candidates, -scores))[:, :k]  # the last key is the first criterion
        found = np.take_along_axis(scores, order, 1)
        present = np.isfinite(found)
        ids[part] = np.where(present, np.take_along_axis(candidates, order, 1), -1)
        weights[part] = np.where(present, found, np.float32(0))
    ids[row_norms == 0], weights[row_norms == 0] = -1, 0
    return Edges(ids, weights)


def _unit(features: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows scaled to length 1, float32 `[N, D]`, and their lengths, float64 `[N]`; zero rows stay zero."""
    unit = np.empty(features.shape, np.float32)
    norms = np.empty(len(features), np.float64)
    step = max(1, CHUNK // max(1, features.shape[1]))
    for start in range(0, len(features), step):
        rows = features[start : start + step].astype(np.float64)
        length = np.sqrt(np.einsum("nd,nd->n", rows, rows))
        if not np.isfinite(length).all():
            row = start + int(np.flatnonzero(~np.isfinite(length))[0])
            raise UserError(f"{what}: row {row} is not finite. Edges need finite features; check what made them.")
        norms[start : start + step] = length
        unit[start : start + step] = rows / np.where(length > 0, length, 1.0)[:, None]
    return unit, norms


def _candidates(
    rows: np.ndarray, columns: np.ndarray, valid: np.ndarray, keep: int, block: int, own: bool
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (first row, candidate ids int32 `[rows, keep]`), row blocks shared out over devices."""
    starts = range(0, len(rows), block)
    devices = jax.local_devices()[: len(starts)]
    for first in range(0, len(starts), len(devices)):
        group = list(zip(starts[first : first + len(devices)], devices, strict=False))
        held = [jax.device_put(_block(rows, start, block), device) for start, device in group]
        best = [jax.device_put(_nothing(block, keep), device) for _, device in group]
        for column in range(0, len(columns), block):
            for slot, (start, device) in enumerate(group):
                part = jax.device_put((_block(columns, column, block), _block(valid, column, block)), device)
                offsets = np.asarray([start if own else -(2**30), column], np.int32)
                best[slot] = _merge(best[slot], held[slot], *part, offsets, keep)
        for (start, _), (_, ids) in zip(group, best, strict=True):
            yield start, np.asarray(ids)[: len(rows) - start]


def _nothing(block: int, keep: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full((block, keep), -np.inf, np.float32), np.full((block, keep), -1, np.int32)


@partial(jax.jit, static_argnames="keep")
def _merge(
    best: tuple[Float32[Array, "B keep"], Int32[Array, "B keep"]],
    rows: Float32[Array, "B D"],
    columns: Float32[Array, "B D"],
    valid: Bool[Array, " B"],
    offsets: Int32[Array, " 2"],
    keep: int,
) -> tuple[Float32[Array, "B keep"], Int32[Array, "B keep"]]:
    """The best `keep` of what was held and of one more block of columns."""
    scores = jnp.matmul(rows, columns.T, precision=jax.lax.Precision.HIGHEST)
    scores = jnp.round(scores * GRID) / GRID
    scores = jnp.where(scores == 0, jnp.zeros_like(scores), scores)  # -0 would sort below 0
    ids = offsets[1] + jax.lax.iota(jnp.int32, len(columns))
    own = (offsets[0] + jax.lax.iota(jnp.int32, len(rows)))[:, None] == ids[None, :]
    scores = jnp.where(own | ~valid[None, :], -jnp.inf, scores)
    # top_k lists the lower index first among equals, and what is held came from lower ids: the lower id wins.
    fresh, at = jax.lax.top_k(scores, keep)
    pooled = jnp.concatenate([best[0], fresh], axis=1)
    pooled_ids = jnp.concatenate([best[1], jnp.where(jnp.isfinite(fresh), ids[at], -1)], axis=1)
    kept, at = jax.lax.top_k(pooled, keep)
    return kept, jnp.take_along_axis(pooled_ids, at, axis=1)


def _rescore(
    queries: np.ndarray, query_norms: np.ndarray, features: np.ndarray, norms: np.ndarray, ids: np.ndarray
) -> np.ndarray:
    """Cosine of each query with its candidates, summed in float64; -inf where there is none."""
    scores = np.full(ids.shape, -np.inf, np.float32)
    step = max(1, CHUNK // (ids.shape[1] * features.shape[1]))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        some = np.maximum(ids[part], 0)
        dots = np.einsum("nd,nkd->nk", queries[part].astype(np.float64), features[some].astype(np.float64))
        length = query_norms[part, None] * norms[some]
        cosine = np.clip(dots / np.where(length > 0, length, 1.0), -1.0, 1.0)
        scores[part] = np.where((ids[part] >= 0) & (length > 0), cosine, -np.inf)
    return scores


def _block(array: np.ndarray, start: int, block: int) -> np.ndarray:
    """`array[start : start + block]`, filled up with zeros, so that every block compiles to one program."""
    part = array[start : start + block]
    return part if len(part) == block else np.pad(part, [(0, block - len(part))] + [(0, 0)] * (array.ndim - 1))


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
