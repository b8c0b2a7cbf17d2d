"""Average precision of detections, through pycocotools: COCO's twelve figures, each class's, and Pascal VOC's.

One `Found` and one `Truth` per image, in the same order. Boxes are `x1, y1, x2, y2` in pixels, corners as real
numbers; classes are integers from 0. Detections with equal scores count in the order in which they come: by image,
then by row. An average over nothing (a class, or a range of sizes, without a true box) is None.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Integer
from pycocotools import mask as masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

COCO_FIGURES = (
    *("map", "map50", "map75", "map_small", "map_medium", "map_large"),
    *("recall_1", "recall_10", "recall_100", "recall_small", "recall_medium", "recall_large"),
)
VOC_IOU = 0.5
SHOWN = 0.3  # least score of a box that is explained
LEAST = 1.0  # pixels that a side of it must have


class Found(NamedTuple):
    """What a detector found in an image."""

    boxes: Float[np.ndarray, "n 4"]
    scores: Float[np.ndarray, " n"]
    classes: Integer[np.ndarray, " n"]


class Truth(NamedTuple):
    """What there is in an image.

    Attributes:
      boxes: `[M, 4]`.
      classes: `[M]`.
      crowd: the box holds many objects; COCO's figures ask for none of them and forgive any. None: no box does.
      difficult: VOC's figures neither ask for it nor punish it, COCO's know no such thing. None: no box is.
      area: by which COCO's figures tell sizes apart, in square pixels: of the object's mask. None: the boxes' area.
    """

    boxes: Float[np.ndarray, "m 4"]
    classes: Integer[np.ndarray, " m"]
    crowd: Bool[np.ndarray, " m"] | None = None
    difficult: Bool[np.ndarray, " m"] | None = None
    area: Float[np.ndarray, " m"] | None = None


class Coco(NamedTuple):
    """COCO's evaluation.

    Attributes:
      figures: the twelve of `COCO_FIGURES`, in [0, 1], or None; `map` averages over IoU 0.50 to 0.95, recalls are at 1,
        10 and 100 detections an image.
      classes: `map` of each class.
      classes50: `map50` of each class.
    """

    figures: dict[str, float | None]
    classes: list[float | None]
    classes50: list[float | None]


def coco(found: Sequence[Found], truth: Sequence[Truth], classes: int) -> Coco:
    """COCO's twelve figures by pycocotools, and the average precision of each class.

    Raises:
      ValueError: no image, lists of different length, arrays that do not belong together, classes outside
        [0, `classes`), numbers that are not finite.

    References: Lin et al. 2014, arXiv 1405.0312; https://cocodataset.org/#detection-eval.
    """
    _check(found, truth, classes)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_true_set(truth, classes), _found_set(found, classes), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    figures = {name: _or_none(value) for name, value in zip(COCO_FIGURES, evaluation.stats, strict=True)}
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # [IoU, recall, class] at all sizes, 100 detections
    per_class = [[_mean(table[..., at]) for at in range(classes)] for table in (precision, precision[:1])]
    return Coco(figures, *per_class)


def voc_ap50(
    found: Sequence[Found], truth: Sequence[Truth], classes: int, eleven_point: bool = False
) -> list[float | None]:
    """Pascal VOC's average precision of each class at IoU 0.5; None for a class without a true box.

    A detection, best score first, goes to the true box of its image and class that it overlaps most. With an IoU of
    at least 0.5 it is right if it is the first to, wrong if not; difficult boxes and crowds count for nothing either
    way. IoUs are those of pycocotools, without the devkit's added pixel.

    Args:
      found: per image.
      truth: per image.
      classes: how many there are.
      eleven_point: the mean of precision at recalls 0, 0.1, ..., 1 (VOC 2007) instead of the area under the
        precision-recall curve made monotone (VOC 2010 and later).

    Raises:
      ValueError: as `coco`.

    References: Everingham et al. 2010, The Pascal Visual Object Classes Challenge, IJCV 88.
    """
    _check(found, truth, classes)
    return [_voc_class(found, truth, kind, eleven_point) for kind in range(classes)]


def voc_map50(found: Sequence[Found], truth: Sequence[Truth], classes: int, eleven_point: bool = False) -> float | None:
    """The mean of `voc_ap50` over the classes that have a true box; None where none has."""
    values = [value for value in voc_ap50(found, truth, classes, eleven_point) if value is not None]
    return float(np.mean(values)) if values else None


def agreement_of_boxes(
    one: Sequence[Found], other: Sequence[Found], score_threshold: float = 0.25, iou_threshold: float = 0.5
) -> float:
    """Share of boxes that two detectors both give, in [0, 1]: pairs over pairs and what is left alone on either side.

    Of each image, boxes with a score above `score_threshold`. Best first, a box of `one` is paired with the box of
    `other` of its class, not yet paired, that it overlaps most, by at least `iou_threshold`. 1 where neither gives any.
    """
    pairs = boxes = 0
    for mine, theirs in zip(one, other, strict=True):
        mine, theirs = (_above(found, score_threshold) for found in (mine, theirs))
        boxes += len(mine.boxes) + len(theirs.boxes)
        if len(mine.boxes) and len(theirs.boxes):
            sides = (_corner_and_extent(mine.boxes), _corner_and_extent(theirs.boxes))
            overlap = masks.iou(*sides, np.zeros(len(theirs.boxes), np.uint8))
            pairs += _pairs(np.where(mine.classes[:, None] == theirs.classes[None, :], overlap, 0.0), iou_threshold)
    return pairs / (boxes - pairs) if boxes else 1.0


def _above(found: Found, score_threshold: float) -> Found:
    """Boxes with a score above the threshold, best first."""
    scores = np.asarray(found.scores)
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > score_threshold]
    return Found(*(np.asarray(part)[order] for part in found))


def _pairs(overlap: Float64[np.ndarray, "n m"], iou_threshold: float) -> int:
    free, count = np.ones(overlap.shape[1], bool), 0
    for row in overlap:
        best = int(np.argmax(np.where(free, row, -1.0)))
        if free[best] and row[best] >= iou_threshold:
            free[best], count = False, count + 1
    return count


def _voc_class(found: Sequence[Found], truth: Sequence[Truth], kind: int, eleven_point: bool) -> float | None:
    outcomes = [_outcomes(*pair, kind) for pair in zip(found, truth, strict=True)]
    wanted = sum(count for _, _, count in outcomes)
    if not wanted:
        return None
    scores, right = (np.concatenate([outcome[at] for outcome in outcomes]) for at in (0, 1))
    right = right[np.argsort(-scores, kind="stable")]
    right = right[right >= 0]
    hits = np.cumsum(right)
    recall, precision = hits / wanted, hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if eleven_point:
        reached = np.searchsorted(recall, np.arange(11) / 10 - 1e-12)  # 3 of 10 is a recall of 0.3
        return float(np.append(envelope, 0.0)[reached].mean())
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def _outcomes(
    found: Found, truth: Truth, kind: int
) -> tuple[Float64[np.ndarray, " n"], Integer[np.ndarray, " n"], int]:
    """Of one image and class: scores, best first; 1 right, 0 wrong, -1 uncounted; and how many boxes are asked for."""
    mine, own = np.asarray(found.classes) == kind, np.asarray(truth.classes) == kind
    scores, boxes = np.asarray(found.scores, np.float64)[mine], np.asarray(found.boxes)[mine]
    order = np.argsort(-scores, kind="stable")
    forgiven = (_flags(truth.difficult, truth) | _flags(truth.crowd, truth))[own]
    right = np.zeros(len(scores), np.int64)
    if len(scores) and own.any():
        crowd = _flags(truth.crowd, truth)[own].astype(np.uint8)
        overlap = masks.iou(_corner_and_extent(boxes[order]), _corner_and_extent(np.asarray(truth.boxes)[own]), crowd)
        taken = np.zeros(len(forgiven), bool)
        for at, best in enumerate(overlap.argmax(axis=1)):
            if overlap[at, best] >= VOC_IOU:
                right[at] = -1 if forgiven[best] else not taken[best]
                taken[best] = True
    return scores[order], right, int((~forgiven).sum())


def _true_set(truth: Sequence[Truth], classes: int) -> COCO:
    notes: list[dict[str, Any]] = []
    for image, it in enumerate(truth):
        boxes = _corner_and_extent(it.boxes)
        areas = boxes[:, 2] * boxes[:, 3] if it.area is None else np.asarray(it.area, np.float64)
        for box, area, kind, crowd in zip(boxes, areas, it.classes, _flags(it.crowd, it), strict=True):
            notes.append(_note(image, int(kind), box) | {"area": float(area), "iscrowd": int(crowd)})
    return _coco_set(notes, len(truth), classes)


def _found_set(found: Sequence[Found], classes: int) -> COCO:
    notes: list[dict[str, Any]] = []
    for image, it in enumerate(found):
        for box, score, kind in zip(_corner_and_extent(it.boxes), it.scores, it.classes, strict=True):
            note = {"area": float(box[2] * box[3]), "iscrowd": 0, "score": float(score)}
            notes.append(_note(image, int(kind), box) | note)
    return _coco_set(notes, len(found), classes)


def _note(image: int, kind: int, box: np.ndarray) -> dict[str, Any]:
    return {"image_id": image + 1, "category_id": kind + 1, "bbox": box.tolist()}


def _coco_set(notes: list[dict[str, Any]], images: int, classes: int) -> COCO:
    """Numbers start at 1: pycocotools takes a match with number 0 for none."""
    made = COCO()
    made.dataset = {
        "images": [{"id": image + 1} for image in range(images)],
        "categories": [{"id": kind + 1} for kind in range(classes)],
        "annotations": [note | {"id": at + 1} for at, note in enumerate(notes)],
    }
    made.createIndex()
    return made


def _corner_and_extent(boxes: np.ndarray) -> Float64[np.ndarray, "n 4"]:
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _flags(flags: np.ndarray | None, truth: Truth) -> Bool[np.ndarray, " m"]:
    return np.zeros(len(truth.boxes), bool) if flags is None else np.asarray(flags, bool)


def _mean(table: np.ndarray) -> float | None:
    """Of the entries that are defined; pycocotools writes -1 where not."""
    defined = table[table > -1]
    return float(defined.mean()) if defined.size else None


def _or_none(value: float) -> float | None:
    return float(value) if value > -1 else None


def _check(found: Sequence[Found], truth: Sequence[Truth], classes: int) -> None:
    if not len(truth) or len(found) != len(truth):
        raise ValueError(f"expected as many images found as true ones, at least 1; got {len(found)} and {len(truth)}")
    for image, (one, other) in enumerate(zip(found, truth, strict=True)):
        for name, it in (("found", one), ("truth", other)):
            arrays = {key: np.asarray(value) for key, value in it._asdict().items() if value is not None}
            many, kinds = len(arrays["boxes"]), arrays["classes"]
            shapes = {key: array.shape for key, array in arrays.items()}
            if shapes != {key: (many, 4) if key == "boxes" else (many,) for key in shapes}:
                raise ValueError(f"image {image}, {name}: expected boxes [N, 4] and N of all else, got {shapes}")
            if not all(np.isfinite(array).all() for array in arrays.values()):
                raise ValueError(f"image {image}, {name}: expected finite numbers")
            if many and (kinds.min() < 0 or kinds.max() >= classes):
                raise ValueError(f"image {image}, {name}: expected classes in [0, {classes}), got {kinds.tolist()}")


def shown(predictions: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which detections are shown and explained: a score of at least 0.3, a pixel wide and high; bool `[N, K]`."""
    sides = predictions["boxes"][..., 2:] - predictions["boxes"][..., :2]
    kept: np.ndarray = (predictions["mask"] > 0) & (predictions["scores"] >= SHOWN) & (sides >= LEAST).all(-1)
    return kept
