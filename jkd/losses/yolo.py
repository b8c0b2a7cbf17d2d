"""The loss that a YOLO network is trained with on true boxes."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jkd.losses.boxes import ciou, diou, giou, iou
from jkd.losses.yolo_heads import Heads, rows
from jkd.losses.yolo_targets import assign, truth_of

OVERLAPS = {"iou": iou, "giou": giou, "diou": diou, "ciou": ciou}


def yolo_loss(
    raw: Sequence[Float[Array, "b _ _ _ _"]],
    boxes: Float[Array, "b m 4"],
    classes: Int[Array, "b m"],
    mask: Bool[Array, "b m"] | Float[Array, "b m"],
    labelled: Float[Array, " b"],
    description: Heads,
    *,
    overlap: str = "ciou",
    ignore: float = 0.5,
    extra: float = 0.213,
    smoothing: float = 0.0,
    box_weight: float = 5.0,
    objectness_weight: float = 1.0,
    class_weight: float = 1.0,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """box_weight L_box + objectness_weight L_objectness + class_weight L_class, each a sum per image.

    L_box: 1 - overlap with the target, over the rows that answer for a box. L_objectness: binary cross-entropy of
    all rows but the ignored ones, target 1 where the row answers for a box. L_class: binary cross-entropy of every
    class, over the rows that answer for a box. All are sums over an image's rows, averaged over the labelled images,
    so that an image counts the same whatever batch it stands in. One without boxes teaches silence.

    Args:
      raw: the network's outputs.
      boxes: true ones, `x1, y1, x2, y2` in pixels of the network's input, padded to M.
      classes: of each box, in [0, C).
      mask: 0 where a box pads. A box without area counts as padding too.
      labelled: 1 where the image's boxes are known, else 0: then it adds nothing, not even silence.
      description: of the heads.
      overlap: `iou`, `giou`, `diou` or `ciou`.
      ignore: see `assign`; Darknet's `ignore_thresh`.
      extra: shape IoU above which anchors other than the best answer for a box; Darknet's `iou_thresh`. 2 for none.
      smoothing: class targets are 1 - smoothing / 2 and smoothing / 2.
      box_weight, objectness_weight, class_weight: of the three terms; the defaults are YOLOX's.

    Returns:
      The loss, and the value of each term without its weight: `box`, `objectness`, `class`.

    Raises:
      ValueError: an unknown overlap, or outputs that are not those of such heads.

    References: Redmon, Farhadi 2018, arXiv 1804.02767; Bochkovskiy, Wang, Liao 2020, arXiv 2004.10934; Ge et al.
    2021, arXiv 2107.08430 (the weights).
    """
    if overlap not in OVERLAPS:
        raise ValueError(f"yolo_loss: expected an overlap of {sorted(OVERLAPS)}, got '{overlap}'")
    found = rows(raw, description)
    truth = truth_of(boxes, classes, mask)
    targets = assign(found.boxes, truth, description, description.size(raw), ignore=ignore, extra=extra)
    positive = targets.positive.astype(jnp.float32)
    misses = 1 - OVERLAPS[overlap](found.boxes, targets.boxes)
    silent = binary_cross_entropy(found.objectness, positive)
    smooth = targets.classes * (1 - smoothing) + smoothing / 2
    confused = jnp.sum(binary_cross_entropy(found.classes, smooth), axis=-1)
    values = {
        "box": _per_image(misses, targets.positive, labelled),
        "objectness": _per_image(silent, ~targets.ignored, labelled),
        "class": _per_image(confused, targets.positive, labelled),
    }
    weights = {"box": box_weight, "objectness": objectness_weight, "class": class_weight}
    return sum((weights[name] * value for name, value in values.items()), jnp.zeros((), jnp.float32)), values


def detection(
    student_heads: Sequence[Float[Array, "b _ _ _ _"]],
    boxes: Float[Array, "b m 4"],
    box_classes: Int[Array, "b m"],
    box_mask: Float[Array, "b m"],
    annotated: Float[Array, " b"],
    student_description: Heads,
    **settings: Any,
) -> Float[Array, ""]:
    """`yolo_loss` of the annotated images: what labels teach a detector."""
    return yolo_loss(student_heads, boxes, box_classes, box_mask, annotated, student_description, **settings)[0]


def pseudo_labels(
    student_heads: Sequence[Float[Array, "b _ _ _ _"]],
    boxes: Float[Array, "b m 4"],
    box_classes: Int[Array, "b m"],
    box_mask: Float[Array, "b m"],
    annotated: Float[Array, " b"],
    student_description: Heads,
    **settings: Any,
) -> Float[Array, ""]:
    """`yolo_loss` of the images that nobody has annotated, with the boxes and classes that the teacher is sure of."""
    found = 1.0 - annotated
    return yolo_loss(student_heads, boxes, box_classes, box_mask, found, student_description, **settings)[0]


def binary_cross_entropy(logits: Float[Array, "*b"], target: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """-t log sigmoid(x) - (1 - t) log(1 - sigmoid(x)), entry by entry, from logits."""
    return jax.nn.softplus(logits) - target * logits


def _per_image(
    losses: Float[Array, "b n"], counted: Bool[Array, "b n"], labelled: Float[Array, " b"]
) -> Float[Array, ""]:
    """Mean over the labelled images of the sum over their counted rows; 0 where none is labelled."""
    known = labelled.astype(jnp.float32)
    sums = jnp.sum(jnp.where(counted, losses, 0.0), axis=1)
    return jnp.sum(sums * known) / jnp.maximum(jnp.sum(known), 1.0)
