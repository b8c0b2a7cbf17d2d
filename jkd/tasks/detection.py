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

from jkd import evaluate
from jkd.data.objects import ObjectSource
from jkd.errors import UserError
from jkd.evaluate.detection import Found as FoundIn
from jkd.evaluate.detection import Truth
from jkd.evaluate.nms import Detections, nms
from jkd.graph import objects
from jkd.graph.nearest import Edges
from jkd.losses import yolo_targets
from jkd.losses.boxes import extents, pairwise_iou
from jkd.losses.yolo_heads import Heads, Rows, decode, describe, rows
from jkd.models.darknet import shapes
from jkd.models.roi import roi_pool
from jkd.tasks.task import Anchors, Found, Nodes, Task

OVERLAPPING = 0.5  # a row whose box overlaps an object by more speaks of it
FLOOR = 0.01  # the weight of the row that answers for an object, whatever its box: there is always one
SURE = 0.4  # least score of a teacher's box, in an image that nobody has annotated, that becomes a node
LEAST = 1.0  # pixels that a side of it must have
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
        figures=("map50", "map", "voc_map50", "agreement"),
        supervised="yolo",
        stored=("boxes", "scores", "classes", "mask"),
        views=("crop", "context"),
        nodes=nodes,
        targets=targets,
        example=example,
        given=given,
        rows=rows_of,
        metrics=metrics,
        differences=differences,
        answers=None,
        nodes_of=nodes_of,
        view=view,
        relations=relations,
        ids=ids,
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


def found_of(
    detections: Detections, to_image: Callable[[int, np.ndarray], np.ndarray] = lambda _, boxes: boxes
) -> list[FoundIn]:
    """One `Found` per image of a batch, without what pads.

    Args:
      detections: from `detect`.
      to_image: takes an image's place in the batch and boxes on the network's input to boxes on the image itself.
    """
    boxes, scores, classes, mask = (np.asarray(part) for part in detections)
    each = enumerate(mask > 0)
    return [FoundIn(to_image(at, boxes[at, kept]), scores[at, kept], classes[at, kept]) for at, kept in each]


def metrics(
    found: Found, source: ObjectSource, index: np.ndarray, labels: np.ndarray, teacher: Found | None
) -> dict[str, float | None]:
    """COCO's figures, VOC's average precision at IoU 0.5, and the share of boxes that a teacher finds alike."""
    outputs = _in_images(found, source, index)
    theirs = None if teacher is None else _in_images(teacher, source, index)
    truth = []
    for image in index:
        there = source.truth(int(image))
        truth.append(Truth(there.boxes, there.classes, there.crowd, there.difficult, there.area))
    return figures(outputs, truth, theirs, len(source.classes))


def figures(
    outputs: Sequence[FoundIn], truth: Sequence[Truth], teacher: Sequence[FoundIn] | None, classes: int
) -> dict[str, float | None]:
    """As `metrics`, of boxes in pixels of the images.

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


def _in_images(found: Found, source: ObjectSource, index: np.ndarray) -> list[FoundIn]:
    return found_of(_detections(found), lambda at, boxes: source.to_image(int(index[at]), boxes))


def _detections(found: Mapping[str, Any]) -> Detections:
    return Detections(*(found[name] for name in Detections._fields))


def differences(found: Sequence[Mapping[str, np.ndarray]], labels: np.ndarray) -> dict[str, np.ndarray]:
    """Share of boxes that two runs find alike, `agreement`, and its complement, `churn`, `[R, R]`."""
    lists = [found_of(_detections(some)) for some in found]
    alike = np.ones((len(lists), len(lists)))
    for one in range(len(lists)):
        for other in range(one):
            alike[one, other] = alike[other, one] = evaluate.agreement_of_boxes(lists[one], lists[other])
    return {"churn": 1 - alike, "agreement": alike}


def nodes_of(source: ObjectSource, index: np.ndarray, labels: np.ndarray, look: Callable[[np.ndarray], Found]) -> Nodes:
    """The true boxes of the annotated images, and in the others those that the teacher is sure of."""
    index, known = np.asarray(index, np.int32), np.asarray(labels) >= 0
    true = source.objects(index[known])
    parts = [(source.image_of[true], source.object_boxes[true], source.object_classes[true], np.ones(len(true), bool))]
    if not known.all():
        found, hidden = look(index[~known]), index[~known]
        boxes = np.clip(found["boxes"], 0, np.asarray([*source.shape[1::-1]] * 2, np.float32))
        sides = boxes[..., 2:] - boxes[..., :2]
        kept = (found["mask"] > 0) & (found["scores"] >= SURE) & (sides >= LEAST).all(-1)
        at, place = np.nonzero(kept)
        parts.append((hidden[at], boxes[at, place], found["classes"][at, place], np.zeros(len(at), bool)))
    sample, boxes, classes, sure = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.argsort(sample, kind="stable")
    classes = classes[order].astype(np.int32)
    return Nodes(
        sample=sample[order].astype(np.int32),
        labels=np.where(sure[order], classes, -1).astype(np.int32),
        boxes=boxes[order].astype(np.float32),
        classes=classes,
    )


def view(
    name: str,
    source: ObjectSource,
    nodes: Nodes,
    beliefs: np.ndarray,
    k: int,
    inside: tuple[Nodes, np.ndarray] | None = None,
) -> np.ndarray | Edges:
    """`crop`, the image within each box, or `context`, what surrounds it; see `jkd.graph.objects`."""
    assert nodes.boxes is not None
    within, _ = inside or (nodes, beliefs)
    if name == "context":
        weights = objects.class_co_occurrence(within.labels, within.sample, beliefs.shape[1])
        return objects.context_view(beliefs, nodes.boxes, nodes.sample, weights)
    assert within.boxes is not None
    both = [within, nodes] if inside else [nodes]
    sample = np.concatenate([some.sample for some in both])
    images, row_of = np.unique(sample, return_inverse=True)
    boxes = np.concatenate([some.boxes for some in both])  # type: ignore[list-item]
    made = objects.crop_view(source.images(images), boxes, row_of, like=len(within.sample))
    return made[-len(nodes.sample) :]


def relations(nodes: Nodes, beliefs: np.ndarray, classes: int, k: int) -> dict[str, Edges]:
    """`co_occurs` and `spatial` edges within images."""
    assert nodes.boxes is not None
    believed = np.where(nodes.labels >= 0, nodes.labels, beliefs.argmax(-1))
    weights = objects.class_co_occurrence(nodes.labels, nodes.sample, classes)
    return {
        "co_occurs": objects.co_occurs(believed, nodes.sample, weights, k),
        "spatial": objects.spatial(nodes.boxes, nodes.sample, k).edges,
    }


def ids(source: ObjectSource, nodes: Nodes) -> list[str]:
    """The image's id and the object's place in it."""
    place = np.arange(len(nodes.sample)) - np.searchsorted(nodes.sample, nodes.sample)
    return [f"{source.id(int(image))}#{at}" for image, at in zip(nodes.sample, place, strict=True)]


def _real(batch: Mapping[str, Array]) -> Bool[Array, "b m"]:
    width, height = extents(batch["boxes"])
    return (batch["object"] >= 0) & (width > 0) & (height > 0)
