"""Detection: the anchors of an image are its objects. Every box is a node of the graph, never a pixel.

A batch holds, beside its inputs, `boxes` float32 `[B, M, 4]` (`x1, y1, x2, y2` in pixels of the network's input),
`classes` and `object` int32 `[B, M]`, where `object` is the node's number and -1 pads. Outputs are the raw heads of a
YOLO network, its taps `neck0`, `neck1`, ... the maps `[B, h, w, c]` that its heads are computed from, and the heads
again as `head0`, `head1`, ....

Nodes are the true boxes of the annotated images and what the teacher finds in the others.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jkd.data.objects import ObjectSource
from jkd.errors import UserError
from jkd.evaluate.nms import Detections, nms
from jkd.losses import yolo_targets
from jkd.losses.boxes import extents, pairwise_iou
from jkd.losses.yolo_heads import Heads, Rows, decode, describe, rows
from jkd.models.darknet import shapes
from jkd.models.roi import roi_pool
from jkd.tasks import objects
from jkd.tasks.task import Anchors, Found, Nodes, Task

OVERLAPPING = 0.5  # a row whose box overlaps an object by more speaks of it
FLOOR = 0.01  # the weight of the row that answers for an object, whatever its box: there is always one
COLUMNS = {"map50": "mAP50", "map": "mAP", "map75": "mAP75", "voc_map50": "VOC mAP50", "agreement": "agrees"}


def detection(module: Any, shape: tuple[int, ...]) -> Task:
    """The task of a YOLO network on images of a shape; of no network where `module` is None."""
    network = {} if module is None else _of_network(heads_of(module, shape))
    return Task(
        name="detection",
        kinds=("objects",),
        primary=("map50", "max"),
        columns=COLUMNS,
        further={},
        caption="mAP and mAP50 are COCO's average precision, over IoU 0.50 to 0.95 and at 0.50, the mean over classes, "
        "and VOC mAP50 is Pascal VOC's. Agreement is the share of boxes, of those that score over 0.25, that the "
        "teacher gives, too; churn the share that only one of two runs gives. All are percent.",
        figures=("map50", "map", "voc_map50", "agreement"),
        supervised="yolo",
        stored=("boxes", "scores", "classes", "mask"),
        views=("crop", "context"),
        nodes=nodes,
        targets=targets,
        example=example,
        given=given,
        rows=rows_of,
        metrics=objects.metrics,
        differences=objects.differences,
        answers=None,
        told=objects.told,
        found=objects.found,
        nodes_of=objects.nodes_of,
        view=objects.view,
        relations=objects.relations,
        ids=objects.ids,
        believed_views=("context",),
        always=False,
        **({"anchors": _no_network, "predict": _no_network, "describe": _no_network} | network),
    )


def heads_of(module: Any, shape: tuple[int, ...]) -> Heads:
    """What the raw heads of a `Yolo` mean on images of a shape (height, width, channels)."""
    cfg, (height, width) = module.cfg.at_size(*shape[:2]), shape[:2]
    unfit = f"data.image_size: {height}x{width} does not fit the cfg: "
    try:
        sizes = shapes(cfg)
    except UserError as error:
        raise UserError(f"{unfit}{error} Use a multiple of 32.") from None
    maps = [size[:2] for size, layer in zip(sizes, cfg.layers, strict=True) if layer in cfg.heads]
    for cells, columns in maps:
        if height % cells or width % columns or height // cells != width // columns:
            raise UserError(f"{unfit}a head of {cells}x{columns} cells does not divide it. Use a multiple of 32.")
    return describe(cfg.heads, [height // cells for cells, _ in maps])


def _of_network(description: Heads) -> dict[str, Any]:
    """The fields of a task that depend on what a network's outputs mean."""
    count = range(len(description.heads))
    return {
        "anchors": anchors_of(description),
        "predict": partial(_predict, description),
        "describe": partial(_describe, description),
        "described": {
            "description": description,
            "heads": tuple(f"head{number}" for number in count),
            "necks": tuple(f"neck{number}" for number in count),
        },
    }


def _no_network(*_: Any) -> Any:
    raise ValueError("this task was made without a network")


def _predict(
    description: Heads, batch: Mapping[str, Array], outputs: Sequence[Array], taps: Mapping[str, Array]
) -> dict[str, Array]:
    return detect(outputs, description, description.size(outputs))._asdict()


def _describe(
    description: Heads, batch: Mapping[str, Array], outputs: Sequence[Array], taps: Mapping[str, Array]
) -> dict[str, Array]:
    found = anchors(batch, outputs, taps, description)
    return {"logits": found.logits, "embedding": found.feature}


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
    """`[B, M]`: every place for a box is an anchor, with mask 1 where it holds an object that has an area.

    Features are the neck's maps, averaged over the box (`roi_pool`) and concatenated; logits are `pooled_logits`.
    Both are zero where the mask is. Teacher and student are asked about the same boxes, whatever they would find.
    """
    size, found = description.size(outputs), rows(outputs, description)
    real = _real(batch)
    necks = [taps[f"neck{number}"] for number in range(len(description.heads))]
    feature = jnp.concatenate([roi_pool(neck, batch["boxes"], real, size) for neck in necks], axis=-1)
    logits = pooled_logits(found, batch["boxes"], real, description, size)
    return Anchors(node=nodes(batch), mask=real.astype(jnp.float32), feature=feature, logits=logits)


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


def nodes(batch: Mapping[str, Array]) -> Int[Array, "b m"]:
    """Number of each object, 0 where none is: a node that can be looked up, and that the mask leaves out."""
    return jnp.maximum(batch["object"], 0)


def targets(
    source: ObjectSource, indices: np.ndarray, labels: np.ndarray, nodes: Nodes | None = None
) -> dict[str, np.ndarray]:
    """Boxes, classes and numbers of the objects of these images.

    Args:
      source: has `boxes(indices)`, which gives `boxes`, `classes` and `object` (see `jkd.data`).
      indices: into the source, `[N]`.
      labels: -1 where an image counts as not annotated, `[N]`.
      nodes: objects to take instead of the source's, by their place among them; without, an image whose label is
        hidden has none.
    """
    if nodes is not None:
        return _slots(nodes, np.asarray(indices))
    there = source.boxes(indices)
    known = np.asarray(labels)[:, None] >= 0
    return {
        "boxes": np.where(known[..., None], there.boxes, np.float32(0)),
        "classes": np.where(known, there.classes, np.int32(-1)),
        "object": np.where(known, there.object, np.int32(-1)),
    }


def _slots(nodes: Nodes, indices: np.ndarray) -> dict[str, np.ndarray]:
    """The nodes of some samples, padded to as many as the fullest sample of all has."""
    assert nodes.boxes is not None and nodes.classes is not None
    first, last = (np.searchsorted(nodes.sample, indices, side)[:, None] for side in ("left", "right"))
    number = first + np.arange(_most(nodes))
    there = number < last
    at = np.where(there, number, 0)
    return {
        "boxes": np.where(there[..., None], nodes.boxes[at], np.float32(0)),
        "classes": np.where(there, nodes.classes[at], -1).astype(np.int32),
        "object": np.where(there, number, -1).astype(np.int32),
    }


def _most(nodes: Nodes) -> int:
    return max(1, int(np.unique(nodes.sample, return_counts=True)[1].max(initial=0)))


def example(count: int) -> dict[str, np.ndarray]:
    """Images without objects."""
    none = np.full((count, 1), -1, np.int32)
    return {"boxes": np.zeros((count, 1, 4), np.float32), "classes": none, "object": none}


def given(batch: Mapping[str, Array], classes: int) -> dict[str, Array]:
    """What is known of the objects, of all A = B M places at once and image by image.

    `label_target` float32 `[A, C]`, the object's class, a zero row where none is or nobody has annotated it; `labelled`
    float32 `[A]`; `boxes` `[B, M, 4]`, `box_classes` int32 `[B, M]` and `box_mask` float32 `[B, M]`, a teacher's boxes
    among them; `annotated` float32 `[B]`, 1 where the boxes are those of the labels.
    """
    real, known = _real(batch), batch["label"] >= 0
    labelled = (real & known[:, None]).reshape(-1)
    label = jnp.where(labelled, batch["classes"].reshape(-1), -1)
    return {
        "label_target": jax.nn.one_hot(label, classes, dtype=jnp.float32),
        "labelled": labelled.astype(jnp.float32),
        "boxes": batch["boxes"],
        "box_classes": jnp.maximum(batch["classes"], 0),
        "box_mask": real.astype(jnp.float32),
        "annotated": known.astype(jnp.float32),
    }


def rows_of(described: Found, index: np.ndarray, nodes: Nodes) -> Found:
    """Of `[N, M, ...]`, in the places that `targets` gives the nodes of the samples at `index` (rising): the nodes'."""
    place = np.arange(len(nodes.sample)) - np.searchsorted(nodes.sample, nodes.sample)
    at = np.searchsorted(index, nodes.sample)
    return {name: array[at, place] for name, array in described.items()}


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


def _real(batch: Mapping[str, Array]) -> Bool[Array, "b m"]:
    width, height = extents(batch["boxes"])
    return (batch["object"] >= 0) & (width > 0) & (height > 0)
