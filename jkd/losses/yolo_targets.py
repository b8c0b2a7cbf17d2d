"""Which of a YOLO network's rows answer for which true box.

Boxes come padded: `[B, M, 4]` in pixels of the input, with a mask. Shapes are static, no row is gathered or scattered
that a gradient flows through, and the order of an image's boxes changes nothing, to the bit: they are sorted first.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jkd.losses.boxes import area, extents, pairwise_iou, shape_iou, to_centre
from jkd.losses.yolo_heads import Heads

NEVER = 2.0  # a threshold that no IoU exceeds


class Truth(NamedTuple):
    """True boxes in an order of their own; what pads is all zeros."""

    boxes: Float[Array, "b m 4"]
    classes: Int[Array, "b m"]
    real: Bool[Array, "b m"]


class Targets(NamedTuple):
    """What each of the N rows should say; no gradient flows into it.

    Attributes:
      positive: the row answers for a box.
      ignored: it answers for none, yet its box overlaps one so well that it is not told to be silent either.
      boxes: the box to give, zeros where not positive.
      classes: 1 for the class of each box that it answers for, else 0.
    """

    positive: Bool[Array, "b n"]
    ignored: Bool[Array, "b n"]
    boxes: Float[Array, "b n 4"]
    classes: Float[Array, "b n c"]


def truth_of(
    boxes: Float[Array, "b m 4"], classes: Int[Array, "b m"], mask: Bool[Array, "b m"] | Float[Array, "b m"]
) -> Truth:
    """True boxes sorted by area, corners and class, at least one. A box without area counts as padding."""
    if not boxes.shape[1]:  # maxima over no box are not defined: one that pads stands in
        boxes, classes, mask = (
            jnp.pad(it, ((0, 0), (0, 1)) + ((0, 0),) * (it.ndim - 2)) for it in (boxes, classes, mask)
        )
    width, height = extents(boxes.astype(jnp.float32))
    real = mask.astype(bool) & (width > 0) & (height > 0)
    boxes = jnp.where(real[..., None], boxes.astype(jnp.float32), 0.0)
    classes = jnp.where(real, classes.astype(jnp.int32), 0)
    corners = [boxes[..., at] for at in range(4)]
    keys = ((~real).astype(jnp.int32), area(boxes), *corners, classes)
    absent, _, *corners, classes = jax.lax.sort(keys, dimension=1, num_keys=len(keys))
    return Truth(jnp.stack(corners, axis=-1), classes, absent == 0)


def responsible(
    truth: Truth, description: Heads, size: tuple[int, int], extra: float = NEVER
) -> tuple[Bool[Array, "b m n"], Float[Array, "b m n"]]:
    """Whether each row answers for each box, and the IoU of their shapes (of box and anchor).

    A row answers for a box if the box's centre lies in its cell and its anchor is the best of all heads' by shape IoU
    (the first of equals), or has a shape IoU above `extra`, as in YOLOv4. A centre outside of the image belongs to the
    nearest cell.
    """
    centred = to_centre(truth.boxes)
    anchors = jnp.asarray([anchor for head in description.heads for anchor in head.anchors], jnp.float32)
    fit = shape_iou(centred[:, :, None, 2:], anchors[None, None])
    best = jnp.argmax(fit, axis=-1, keepdims=True) == jnp.arange(anchors.shape[0]).reshape(1, 1, -1)
    chosen = (best | (fit > extra)) & truth.real[..., None]
    positive, fits, start = [], [], 0
    for head in description.heads:
        own = slice(start, start + len(head.anchors))
        in_row, in_column = (
            _at(centred[..., axis] / head.stride, size[1 - axis] // head.stride)[..., None] for axis in (1, 0)
        )
        inside = in_row & in_column.swapaxes(2, 3)
        table = inside[..., None] & chosen[:, :, None, None, own]
        positive.append(table.reshape(*table.shape[:2], -1))
        fits.append(jnp.broadcast_to(fit[:, :, None, None, own], table.shape).reshape(positive[-1].shape))
        start = own.stop
    return jnp.concatenate(positive, axis=-1), jnp.concatenate(fits, axis=-1)


def assign(
    predicted: Float[Array, "b n 4"],
    truth: Truth,
    description: Heads,
    size: tuple[int, int],
    *,
    ignore: float,
    extra: float = NEVER,
) -> Targets:
    """Targets of all rows.

    A row that answers for several boxes aims at the one that fits its anchor best (of equals at the smallest), and
    at the classes of all of them.

    Args:
      predicted: the boxes that the network gives now, `Rows.boxes`.
      truth: from `truth_of`.
      description: of the heads.
      size: height and width of the network's input, in pixels.
      ignore: rows that answer for no box, with an IoU above it to one, are ignored.
      extra: as in `responsible`.

    References: Redmon, Farhadi 2018, arXiv 1804.02767; Bochkovskiy, Wang, Liao 2020, arXiv 2004.10934.
    """
    answers, fit = responsible(truth, description, size, extra)
    positive = jnp.any(answers, axis=1)
    owner = jnp.argmax(jnp.where(answers, fit, -1.0), axis=1)
    boxes = jnp.where(positive[..., None], jnp.take_along_axis(truth.boxes, owner[..., None], axis=1), 0.0)
    one_hot = jax.nn.one_hot(truth.classes, description.classes, dtype=jnp.float32)
    classes = jnp.einsum("bmn,bmc->bnc", answers.astype(jnp.float32), one_hot)
    overlap = pairwise_iou(truth.boxes, jax.lax.stop_gradient(predicted))  # padding overlaps nothing
    ignored = ~positive & (jnp.max(overlap, axis=1) > ignore)
    return Targets(positive, ignored, boxes, jnp.minimum(classes, 1.0))


def _at(place: Float[Array, "b m"], cells: int) -> Bool[Array, "b m l"]:
    """One-hot of the cell that a coordinate, in cells, falls into."""
    cell = jnp.clip(jnp.floor(place), 0, cells - 1).astype(jnp.int32)
    return cell[..., None] == jnp.arange(cells).reshape(1, 1, -1)
