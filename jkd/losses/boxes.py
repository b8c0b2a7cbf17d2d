"""Boxes and their overlaps, differentiable: what detection losses are made of, and all else that handles boxes.

A box is `x1, y1, x2, y2`, float32, in pixels of the network's input unless said otherwise: x to the right, y down,
corners as real numbers, so that its width is x2 - x1. Nothing depends on the unit: fractions of the image do as well.
A box whose x2 <= x1 or y2 <= y1 has no area, and overlap 0 with everything.

Overlaps have finite gradients everywhere: at boxes without area, at equal ones, at distant ones.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Areas and lengths below these count as these where one divides by them. Their inverse squares still fit float32.
SMALLEST_AREA = 1e-12
SMALLEST_LENGTH = 1e-6


def from_centre(centred: Float[Array, "*b 4"]) -> Float[Array, "*b 4"]:
    """`cx, cy, w, h` to `x1, y1, x2, y2`."""
    centre, half = centred[..., :2], centred[..., 2:] / 2
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def to_centre(boxes: Float[Array, "*b 4"]) -> Float[Array, "*b 4"]:
    """`x1, y1, x2, y2` to `cx, cy, w, h`."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return jnp.concatenate([(low + high) / 2, high - low], axis=-1)


def clipped(boxes: Float[Array, "*b 4"], size: tuple[int, int]) -> Float[Array, "*b 4"]:
    """Boxes cut off at the borders of an image of `size` (height, width); one outside it loses its area."""
    height, width = size
    return jnp.stack([jnp.clip(boxes[..., at], 0.0, (width, height)[at % 2]) for at in range(4)], axis=-1)


def extents(boxes: Float[Array, "*b 4"]) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
    """Width and height, 0 where the corners are the wrong way round."""
    return _extents(_edges(boxes))


def area(boxes: Float[Array, "*b 4"]) -> Float[Array, "*b"]:
    """Width times height."""
    width, height = extents(boxes)
    return width * height


def iou(one: Float[Array, "*#b 4"], other: Float[Array, "*#b 4"]) -> Float[Array, "*#b"]:
    """Intersection over union, pair by pair, in [0, 1]; shapes broadcast."""
    return _iou(_edges(one), _edges(other))


def pairwise_iou(one: Float[Array, "*b n 4"], other: Float[Array, "*b m 4"]) -> Float[Array, "*b n m"]:
    """Intersection over union of each with each, in [0, 1]."""
    rows = [edge[..., :, None] for edge in _edges(one)]
    columns = [edge[..., None, :] for edge in _edges(other)]
    return _iou(rows, columns)


def giou(one: Float[Array, "*#b 4"], other: Float[Array, "*#b 4"]) -> Float[Array, "*#b"]:
    """Generalised IoU, in [-1, 1]: IoU less the share of the smallest enclosing box that neither covers.

    References: Rezatofighi et al. 2019, arXiv 1902.09630.
    """
    both, union = _intersection_and_union(_edges(one), _edges(other))
    width, height = _extents(_hull(_edges(one), _edges(other)))
    hull = width * height
    empty = (hull - union) / jnp.maximum(hull, SMALLEST_AREA)
    return both / jnp.maximum(union, SMALLEST_AREA) - jnp.maximum(empty, 0.0)


def diou(one: Float[Array, "*#b 4"], other: Float[Array, "*#b 4"]) -> Float[Array, "*#b"]:
    """Distance IoU, in [-1, 1]: IoU less the squared distance of the centres over that of the hull's corners.

    References: Zheng et al. 2020, arXiv 1911.08287.
    """
    width, height = _extents(_hull(_edges(one), _edges(other)))
    x, y = (one[..., at] + one[..., at + 2] - other[..., at] - other[..., at + 2] for at in (0, 1))
    apart = (x**2 + y**2) / 4 / jnp.maximum(width**2 + height**2, SMALLEST_AREA)
    return iou(one, other) - apart


def ciou(one: Float[Array, "*#b 4"], other: Float[Array, "*#b 4"]) -> Float[Array, "*#b"]:
    """Complete IoU: distance IoU less alpha v, in (-2, 1].

    v = 4 / pi^2 (atan(w/h) - atan(w'/h'))^2 compares the aspect ratios; alpha = v / (1 - IoU + v), through which no
    gradient flows, gives them weight as the boxes come to overlap.

    References: Zheng et al. 2020, arXiv 1911.08287.
    """
    v = (4 / jnp.pi**2) * (_aspect(one) - _aspect(other)) ** 2
    alpha = jax.lax.stop_gradient(v / jnp.maximum(1 - iou(one, other) + v, SMALLEST_LENGTH))
    return diou(one, other) - alpha * v


def shape_iou(one: Float[Array, "*#b 2"], other: Float[Array, "*#b 2"]) -> Float[Array, "*#b"]:
    """IoU of two boxes of given width and height laid corner on corner; shapes broadcast."""
    both = jnp.prod(jnp.minimum(one, other), axis=-1)
    union = jnp.prod(one, axis=-1) + jnp.prod(other, axis=-1) - both
    return both / jnp.maximum(union, SMALLEST_AREA)


# Pairs are computed edge by edge: one array of x1, one of y1, ... that broadcast. With the edges in the last axis, XLA
# on CPU takes ten times as long for a table of pairs.
Edges = Sequence[Array]


def _edges(boxes: Float[Array, "*b 4"]) -> Edges:
    return [boxes[..., at] for at in range(4)]


def _extents(edges: Edges) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
    left, top, right, bottom = edges
    return jnp.maximum(right - left, 0.0), jnp.maximum(bottom - top, 0.0)


def _intersection_and_union(one: Edges, other: Edges) -> tuple[Float[Array, "*b"], Float[Array, "*#b"]]:
    inner = [jnp.maximum(a, b) for a, b in zip(one[:2], other[:2], strict=True)]
    outer = [jnp.minimum(a, b) for a, b in zip(one[2:], other[2:], strict=True)]
    (width, height), (w1, h1), (w2, h2) = _extents(inner + outer), _extents(one), _extents(other)
    both = width * height
    return both, w1 * h1 + w2 * h2 - both


def _iou(one: Edges, other: Edges) -> Float[Array, "*#b"]:
    both, union = _intersection_and_union(one, other)
    return both / jnp.maximum(union, SMALLEST_AREA)


def _hull(one: Edges, other: Edges) -> Edges:
    low = [jnp.minimum(a, b) for a, b in zip(one[:2], other[:2], strict=True)]
    return low + [jnp.maximum(a, b) for a, b in zip(one[2:], other[2:], strict=True)]


def _aspect(boxes: Float[Array, "*b 4"]) -> Float[Array, "*b"]:
    width, height = extents(boxes)
    return jnp.arctan2(jnp.maximum(width, SMALLEST_LENGTH), jnp.maximum(height, SMALLEST_LENGTH))
