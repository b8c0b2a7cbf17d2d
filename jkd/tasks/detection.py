"""Detection: the anchors of an image are its objects. Every true box is a node of the graph, never a pixel.

What differs from classification as plain functions, for a `Task` to be made of. A batch holds, beside its inputs,
`boxes` float32 `[B, M, 4]` (`x1, y1, x2, y2` in pixels of the network's input), `classes` and `object` int32 `[B, M]`,
where `object` is the node's number and -1 pads. Outputs are the raw heads of a YOLO network, its taps `neck0`, `neck1`,
... the maps `[B, h, w, c]` that its heads are computed from.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jkd import evaluate
from jkd.evaluate.detection import Found, Truth
from jkd.evaluate.nms import Detections, nms
from jkd.losses import yolo_targets
from jkd.losses.boxes import extents, pairwise_iou
from jkd.losses.yolo_heads import Heads, Rows, decode, rows
from jkd.models.roi import roi_pool
from jkd.tasks.task import Anchors

PRIMARY = ("map50", "max")
OVERLAPPING = 0.5  # a row whose box overlaps an object by more speaks of it
FLOOR = 0.01  # the weight of the row that answers for an object, whatever its box: there is always one


def anchors_of(
    description: Heads,
) -> Callable[[Mapping[str, Array], Sequence[Array], Mapping[str, Array]], Anchors]:
    """`anchors` for networks whose raw outputs mean `description`."""

    def of(batch: Mapping[str, Array], outputs: Sequence[Array], taps: Mapping[str, Array]) -> Anchors:
        return anchors(batch, outputs, taps, description)

    return of


def anchors(
    batch: Mapping[str, Array],
    outputs: Sequence[Float[Array, "b _ _ _ _"]],
    taps: Mapping[str, Array],
    description: Heads,
) -> Anchors:
    """A = B M: every place for a box is an anchor, with mask 1 where it holds an object that has an area.

    Features are the neck's maps, averaged over the box (`roi_pool`) and concatenated; logits are `pooled_logits`.
    Both are zero where the mask is. Teacher and student are asked about the same boxes, whatever they would find.
    """
    size, found = description.size(outputs), rows(outputs, description)
    real = _real(batch)
    necks = [taps[f"neck{number}"] for number in range(len(description.heads))]
    feature = jnp.concatenate([roi_pool(neck, batch["boxes"], real, size) for neck in necks], axis=-1)
    logits = pooled_logits(found, batch["boxes"], real, description, size)
    return Anchors(
        node=nodes(batch),
        mask=real.reshape(-1).astype(jnp.float32),
        feature=feature.reshape(-1, feature.shape[-1]),
        logits=logits.reshape(-1, logits.shape[-1]),
    )


def pooled_logits(
    found: Rows,
    boxes: Float[Array, "b m 4"],
    real: Bool[Array, "b m"],
    description: Heads,
    size: tuple[int, int],
) -> Float[Array, "b m c"]:
    """A network's class logits for each given box: a weighted mean over the rows that speak of it.

    The weight of a row is its objectness times the IoU of its box with the given one where that is above 0.5, and
    0.01 more for the one row that answers for the box in training (best anchor, cell of the centre). So a network that
    finds the object is asked where it finds it, and one that does not is asked where it ought to. No gradient flows
    through the weights. Zero where `real` is not.
    """
    truth = yolo_targets.Truth(jnp.where(real[..., None], boxes, 0.0), jnp.zeros(real.shape, jnp.int32), real)
    answers, _ = yolo_targets.responsible(truth, description, size)
    overlap = pairwise_iou(truth.boxes, found.boxes)
    heard = jnp.where(overlap > OVERLAPPING, overlap * jax.nn.sigmoid(found.objectness)[:, None, :], 0.0)
    weights = jax.lax.stop_gradient(heard + FLOOR * answers.astype(jnp.float32))
    weights = weights / jnp.maximum(jnp.sum(weights, axis=-1, keepdims=True), FLOOR)
    return jnp.einsum("bmn,bnc->bmc", weights, found.classes, precision=jax.lax.Precision.HIGHEST)


def nodes(batch: Mapping[str, Array]) -> Int[Array, " a"]:
    """Number of each object, 0 where none is: a node that can be looked up, and that the mask leaves out."""
    return jnp.maximum(batch["object"].reshape(-1), 0)


def targets(source: Any, indices: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Boxes, classes and numbers of the objects of these images; none of an image whose label, so its boxes, is hidden.

    Args:
      source: has `boxes(indices)`, which gives `boxes`, `classes` and `object` (see `jkd.data`).
      indices: into the source, `[N]`.
      labels: -1 where an image counts as not annotated, `[N]`.
    """
    there = source.boxes(indices)
    known = np.asarray(labels)[:, None] >= 0
    return {
        "boxes": np.where(known[..., None], there.boxes, np.float32(0)),
        "classes": np.where(known, there.classes, np.int32(-1)),
        "object": np.where(known, there.object, np.int32(-1)),
    }


def given(batch: Mapping[str, Array], classes: int) -> dict[str, Array]:
    """`label_target` float32 `[A, C]`, the object's class, a zero row where none is; `labelled` float32 `[A]`."""
    real = _real(batch).reshape(-1)
    target = jax.nn.one_hot(jnp.where(real, batch["classes"].reshape(-1), -1), classes, dtype=jnp.float32)
    return {"label_target": target, "labelled": real.astype(jnp.float32)}


def detect(
    outputs: Sequence[Float[Array, "b _ _ _ _"]], description: Heads, size: tuple[int, int], **settings: Any
) -> Detections:
    """Detections from raw heads, boxes in pixels of the network's input, scores objectness times class probability.

    Args:
      outputs: the network's raw heads.
      description: what they mean.
      size: height and width of the network's input.
      settings: of `jkd.evaluate.nms.nms`; `score_threshold` 0.001 if not given, as for average precision.
    """
    decoded = decode(outputs, description, size)
    scores = decoded.objectness[..., None] * decoded.classes
    return nms(decoded.boxes, scores, **{"score_threshold": 0.001} | settings)


def found_of(
    detections: Detections, to_image: Callable[[int, np.ndarray], np.ndarray] = lambda _, boxes: boxes
) -> list[Found]:
    """One `Found` per image of a batch, without what pads.

    Args:
      detections: from `detect`.
      to_image: takes an image's place in the batch and boxes on the network's input to boxes on the image itself.
    """
    boxes, scores, classes, mask = (np.asarray(part) for part in detections)
    each = enumerate(mask > 0)
    return [Found(to_image(at, boxes[at, kept]), scores[at, kept], classes[at, kept]) for at, kept in each]


def metrics(
    outputs: Sequence[Found], truth: Sequence[Truth], teacher: Sequence[Found] | None, classes: int
) -> dict[str, float | None]:
    """COCO's figures, VOC's average precision at IoU 0.5, and the share of boxes that a teacher finds alike.

    Args:
      outputs: what was found in each image.
      truth: what there is.
      teacher: what the teacher finds in the same images, if there is one.
      classes: how many there are.
    """
    return evaluate.coco(outputs, truth, classes).figures | {
        "voc_map50": evaluate.voc_map50(outputs, truth, classes),
        "agreement": None if teacher is None else evaluate.agreement_of_boxes(outputs, teacher),
    }


def _real(batch: Mapping[str, Array]) -> Bool[Array, "b m"]:
    width, height = extents(batch["boxes"])
    return (batch["object"] >= 0) & (width > 0) & (height > 0)
