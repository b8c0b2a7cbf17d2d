"""What is done with objects on the host, whichever network found them: nodes, views, relations, metrics."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as masks

from jkd import evaluate
from jkd.data.objects import ObjectSource
from jkd.evaluate.detection import LEAST, Truth, shown
from jkd.evaluate.detection import Found as FoundIn
from jkd.evaluate.nms import Detections
from jkd.graph import objects
from jkd.graph.nearest import Edges
from jkd.tasks.task import Differences, Found, Nodes

SURE = 0.4  # least score of a teacher's box, in an image that nobody has annotated, that becomes a node
ONCE = 0.45  # IoU above which two of them are one object


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
    """COCO's figures, VOC's average precision at IoU 0.5, and the share of boxes that a teacher finds alike.

    Also COCO's average precision of each class, as `map/NAME` and `map50/NAME`.
    """
    outputs = _in_images(found, source, index)
    theirs = None if teacher is None else _in_images(teacher, source, index)
    truth = []
    for image in index:
        there = source.truth(int(image))
        truth.append(Truth(there.boxes, there.classes, there.crowd, there.difficult, there.area))
    return figures(outputs, truth, theirs, source.classes)


def figures(
    outputs: Sequence[FoundIn], truth: Sequence[Truth], teacher: Sequence[FoundIn] | None, classes: Sequence[str]
) -> dict[str, float | None]:
    """As `metrics`, of boxes in pixels of the images.

    Args:
      outputs: what was found in each image.
      truth: what there is.
      teacher: what the teacher finds in the same images, if there is one.
      classes: their names.
    """
    found = evaluate.coco(outputs, truth, len(classes))
    by_class = {
        f"{metric}/{name}": value
        for metric, values in (("map", found.classes), ("map50", found.classes50))
        for name, value in zip(classes, values, strict=True)
    }
    return {
        **found.figures,
        "voc_map50": evaluate.voc_map50(outputs, truth, len(classes)),
        "agreement": None if teacher is None else evaluate.agreement_of_boxes(outputs, teacher),
        **by_class,
    }


def _in_images(found: Found, source: ObjectSource, index: np.ndarray) -> list[FoundIn]:
    return found_of(_detections(found), lambda at, boxes: source.to_image(int(index[at]), boxes))


def _detections(found: Mapping[str, Any]) -> Detections:
    return Detections(*(found[name] for name in Detections._fields))


def differences(found: Sequence[Mapping[str, np.ndarray]], labels: np.ndarray) -> Differences:
    """Share of boxes that two runs find alike, `agreement`, and its complement, `churn`."""
    lists = [found_of(_detections(some)) for some in found]
    alike = np.ones((len(lists), len(lists)))
    for one in range(len(lists)):
        for other in range(one):
            alike[one, other] = alike[other, one] = evaluate.agreement_of_boxes(lists[one], lists[other])
    return Differences({"churn": 1 - alike, "agreement": alike}, {})


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
        kept &= _once(boxes, kept)
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


def _once(boxes: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Which boxes, best first in each image, lie on no better one of another class; of its own class none does."""
    first = np.zeros_like(kept)
    for image, places in enumerate(map(np.flatnonzero, kept)):
        corners = boxes[image, places].astype(np.float64)
        sides = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
        overlap = np.reshape(masks.iou(sides, sides, [0] * len(places)), (len(places), len(places)))
        alone: list[int] = []
        for row in range(len(places)):
            if not alone or overlap[row, alone].max() <= ONCE:
                alone.append(row)
        first[image, places[alone]] = True
    return first


def found(predictions: Found) -> Nodes:
    """The detections of N samples that are `shown`, sample by sample; `sample` counts from 0, labels are unknown."""
    sample, place = np.nonzero(shown(predictions))
    boxes, classes = (predictions[name][sample, place] for name in ("boxes", "classes"))
    return Nodes(
        sample=sample.astype(np.int32),
        labels=np.full(len(sample), -1, np.int32),
        boxes=boxes.astype(np.float32),
        classes=classes.astype(np.int32),
    )


def told(predictions: Found, source: ObjectSource, index: np.ndarray) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """An answer for each detection that is `shown`: class, score, and box in pixels of the image."""
    sample, place = np.nonzero(shown(predictions))
    made = []
    for at, one in zip(sample, place, strict=True):
        box = source.to_image(int(index[at]), predictions["boxes"][at, one][None])[0]
        score, kind = (predictions[name][at, one] for name in ("scores", "classes"))
        made.append({"class": int(kind), "score": float(score), "box": [round(float(side), 2) for side in box]})
    return sample, made


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
    made = objects.crop_view(_Canvases(source, images), boxes, row_of, like=len(within.sample))
    return made[-len(nodes.sample) :]


class _Canvases:
    """The images at `index`, read one at a time: those of a large set would not fit into memory together."""

    def __init__(self, source: ObjectSource, index: np.ndarray) -> None:
        self._source, self._index = source, index
        self.shape = (len(index), *source.shape)

    def __getitem__(self, row: int) -> np.ndarray:
        return self._source.images(self._index[row : row + 1])[0]


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
