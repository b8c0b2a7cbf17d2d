"""From what a detector says of every place to a list of detections: non-maximum suppression inside jit."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from jkd.losses.boxes import pairwise_iou


class Detections(NamedTuple):
    """The K best of each image, best first; zeros where `mask` is 0.

    Attributes:
      boxes: `x1, y1, x2, y2`, in the unit of what came in, float32 `[B, K, 4]`.
      scores: in (0, 1], float32 `[B, K]`.
      classes: int32 `[B, K]`.
      mask: 1 where there is a detection, else 0, float32 `[B, K]`.
    """

    boxes: Float[Array, "b k 4"]
    scores: Float[Array, "b k"]
    classes: Int32[Array, "b k"]
    mask: Float[Array, "b k"]


def nms(
    boxes: Float[Array, "b n 4"],
    scores: Float[Array, "b n c"],
    *,
    score_threshold: float,
    iou_threshold: float = 0.45,
    limit: int = 100,
    candidates: int = 1000,
    one_class: bool = False,
    agnostic: bool = False,
) -> Detections:
    """Greedy non-maximum suppression of each image.

    Every (row, class), or with `one_class` every row's best class, with a score above `score_threshold` is a
    candidate; the best `candidates` of them are looked at. Best first, equal scores by rising row, then class: a
    candidate is kept unless its IoU with a kept one before it, of the same class, is above `iou_threshold`. The best
    `limit` kept ones come out.

    Args:
      boxes: `x1, y1, x2, y2` in any one unit: stretching an axis changes no IoU.
      scores: of each class, objectness times class probability. A NaN is no candidate.
      score_threshold: at least 0; what equals it is no candidate.
      iou_threshold: what equals it is kept.
      limit: K, detections that come out of an image.
      candidates: how many are looked at; memory is its square, bytes per image.
      one_class: a row stands for its best class alone (the first of equals), as OpenCV and Ultralytics' predictions do
        and evaluations do not.
      agnostic: a kept candidate suppresses those of other classes, too.

    Raises:
      ValueError: a negative score threshold.
    """
    if score_threshold < 0:
        raise ValueError(f"nms: expected a score threshold of at least 0, got {score_threshold}")
    scores = jnp.where(scores > score_threshold, scores, 0).astype(jnp.float32)
    best, row, kinds = _candidates(scores, candidates, one_class)
    places = jnp.take_along_axis(boxes.astype(jnp.float32), row[..., None], axis=1)
    rivals = pairwise_iou(places, places) > iou_threshold
    if not agnostic:
        rivals &= kinds[:, :, None] == kinds[:, None, :]
    kept = _greedy(rivals, best > 0)
    order = jnp.argsort(~kept, axis=1, stable=True)[:, :limit]
    order = jnp.pad(order, ((0, 0), (0, max(0, limit - order.shape[1]))))
    found = jnp.take_along_axis(kept, order, axis=1) & (jnp.arange(limit)[None] < jnp.sum(kept, axis=1, keepdims=True))
    return Detections(
        boxes=jnp.where(found[..., None], jnp.take_along_axis(places, order[..., None], axis=1), 0.0),
        scores=jnp.where(found, jnp.take_along_axis(best, order, axis=1), 0.0),
        classes=jnp.where(found, jnp.take_along_axis(kinds, order, axis=1), 0),
        mask=found.astype(jnp.float32),
    )


def _candidates(
    scores: Float[Array, "b n c"], candidates: int, one_class: bool
) -> tuple[Float[Array, "b k"], Int32[Array, "b k"], Int32[Array, "b k"]]:
    """Score, row and class of the best, equal scores by rising row, then class."""
    batch, many, classes = scores.shape
    if one_class:
        best, row = jax.lax.top_k(jnp.max(scores, axis=2), min(candidates, many))
        return best, row, jnp.take_along_axis(jnp.argmax(scores, axis=2), row, axis=1).astype(jnp.int32)
    best, index = jax.lax.top_k(scores.reshape(batch, many * classes), min(candidates, many * classes))
    return best, index // classes, index % classes


def _greedy(rivals: Bool[Array, "b k k"], candidate: Bool[Array, "b k"]) -> Bool[Array, "b k"]:
    """Which candidates, best first, have no kept rival before them.

    Starts with all and drops those with a kept rival until nothing changes. Round r settles at least the first r, so
    that it ends, and only the greedy choice stays as it is; a few rounds do in practice, where a loop over candidates
    would take one each.
    """
    many = rivals.shape[-1]
    before = rivals & (jnp.arange(many)[:, None] > jnp.arange(many)[None, :])[None]  # [b, k, those before it]

    def again(state: tuple[Bool[Array, "b k"], Bool[Array, ""]]) -> tuple[Bool[Array, "b k"], Bool[Array, ""]]:
        kept, _ = state
        fewer = candidate & ~jnp.any(before & kept[:, None, :], axis=2)
        return fewer, jnp.any(fewer != kept)

    return jax.lax.while_loop(lambda state: state[1], again, (candidate, jnp.bool_(True)))[0]
