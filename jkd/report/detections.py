"""Cards of detectors: an image three times, with the true boxes, the teacher's and the student's; and for what the
student is surest of, the training objects that its projection puts it next to."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jkd.evaluate.detection import shown
from jkd.report import markup, text

EXPLAINED = 3  # boxes of a card that are explained, the surest
LIKE = 0.5  # least IoU of boxes that count as the same
KINDS = ("best found", "misses or invents", "differs from the teacher")
Boxes = list[dict[str, Any]]  # {box [x1, y1, x2, y2] in pixels of the canvas, class, score or None}


def cards(
    dataset: Any,
    student: dict[str, np.ndarray],
    teacher: dict[str, np.ndarray],
    how_many: int,
    explain: Callable[[int], dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Images of the test split by a fixed rule: in turn of those where the student finds most of the truth, where it
    finds least, and where it has least in common with the teacher.

    Args:
      dataset: the run's.
      student, teacher: stored predictions: `boxes` `[T, K, 4]`, `scores`, `classes` and `mask` `[T, K]`.
      how_many: cards wanted.
      explain: what is to be said of the n-th box that the student finds in all images together.

    Returns:
      Cards `{sample, kind, id, truth, student, teacher, right}`; `right` is the share of boxes, the student's and the
      true ones, that the other has, too. The surest three of the student's boxes of a card have what `explain` says.
    """
    test = dataset.test
    count = len(student["boxes"])
    true = [_true(test, index) for index in range(count)]
    mine, theirs = (_found(of) for of in (student, teacher))
    first = np.cumsum([0, *map(len, mine)])
    right = np.asarray([alike(*pair) for pair in zip(mine, true, strict=True)])
    same = np.asarray([alike(*pair) for pair in zip(mine, theirs, strict=True)])
    queues = [np.argsort(rank, kind="stable").tolist() for rank in (-right, right, same)]
    taken: dict[int, str] = {}
    while len(taken) < min(how_many, count):
        for kind, queue in zip(KINDS, queues, strict=True):
            index = next(index for index in queue if index not in taken)
            taken[index] = kind
            if len(taken) >= min(how_many, count):
                break
    made = []
    for index, kind in sorted(taken.items(), key=lambda item: KINDS.index(item[1])):
        if explain:
            for place in np.argsort([-box["score"] for box in mine[index]], kind="stable")[:EXPLAINED].tolist():
                mine[index][place] |= explain(int(first[index]) + place)
        boxes = {"truth": true[index], "teacher": theirs[index], "student": mine[index]}
        made.append({"sample": index, "kind": kind, "id": test.id(index), "right": float(right[index]), **boxes})
    return made


def alike(one: Boxes, other: Boxes) -> float:
    """Pairs of boxes of one class that overlap by 0.5, over pairs and boxes left alone; 1 of no box."""
    free = list(other)
    pairs = 0
    for box in one:
        overlaps = [_iou(box["box"], rival["box"]) if rival["class"] == box["class"] else 0.0 for rival in free]
        best = int(np.argmax(overlaps)) if overlaps else -1
        if best >= 0 and overlaps[best] >= LIKE:
            free.pop(best)
            pairs += 1
    total = len(one) + len(other) - pairs
    return pairs / total if total else 1.0


def card(given: Mapping[str, Any], dataset: Any, classes: Sequence[str]) -> str:
    """One card as HTML."""
    image = dataset.test.images(np.asarray([given["sample"]]))[0]
    name, shown = f"test image {given['id']}", f"image{given['sample']}"
    sides = "".join(
        f"<figure>{markup.boxed(image, given[side], classes, side, f'{side} of {name}', shown, side != 'truth')}"
        f"<figcaption>{'true boxes' if side == 'truth' else side}: {len(given[side])}</figcaption></figure>"
        for side in ("truth", "teacher", "student")
    )
    header = (
        f'<header><div><h3>{text.escape(given["id"])} <span class="kind">{text.escape(given["kind"])}</span></h3>'
        f"<p>{100 * given['right']:.0f} % of the student’s and the true boxes have their like.</p></div></header>"
    )
    explained = "".join(_explained(box, image, dataset, classes) for box in given["student"] if "neighbours" in box)
    return f'<article class="card boxes">{header}<div class="sides">{sides}</div>{explained}</article>'


def _explained(box: Mapping[str, Any], image: np.ndarray, dataset: Any, classes: Sequence[str]) -> str:
    """A box of the student's and the training objects next to it."""
    pictures = []
    for near in box["neighbours"]:
        crop = _crop(dataset.train.images(np.asarray([near["sample"]]))[0], near["box"])
        pictures.append(markup.thumbnail(crop, f"training object {near['id']}"))
    items = markup.neighbours(box["neighbours"], pictures, classes)
    own, alone = (text.escape(classes[kind]) for kind in (box["class"], box["alone"]))
    says = f"<b>{own}</b> ({100 * box['score']:.0f} %): its neighbours alone say <b>{alone}</b>"
    says += ", as the student does." if box["agrees"] else ", so they do not explain it."
    picture = markup.thumbnail(_crop(image, box["box"]), f"found: {classes[box['class']]}")
    verdict = f'<p class="verdict{"" if box["agrees"] else " warn"}">{says}</p>'
    return f'<div class="found">{picture}{verdict}</div>{items}'


def _crop(image: np.ndarray, box: Sequence[float]) -> np.ndarray:
    """What of an image a box shows: at least one pixel."""
    height, width = image.shape[:2]
    left, top = min(max(int(box[0]), 0), width - 1), min(max(int(box[1]), 0), height - 1)
    return image[top : max(int(np.ceil(box[3])), top + 1), left : max(int(np.ceil(box[2])), left + 1)]


def _true(test: Any, index: int) -> Boxes:
    there = test.truth(index)
    boxes = test.placement(index).to_canvas(there.boxes)
    kept = [at for at in range(len(boxes)) if not there.crowd[at]]
    return [{"box": _rounded(boxes[at]), "class": int(there.classes[at]), "score": None} for at in kept]


def _found(found: dict[str, np.ndarray]) -> list[Boxes]:
    """What there is to show of each image."""
    return [
        [
            {
                "box": _rounded(found["boxes"][index, at]),
                "class": int(found["classes"][index, at]),
                "score": round(float(found["scores"][index, at]), 4),
            }
            for at in np.flatnonzero(kept)
        ]
        for index, kept in enumerate(shown(found))
    ]


def _rounded(box: np.ndarray) -> list[float]:
    return [round(float(side), 2) for side in box]


def _iou(one: Sequence[float], other: Sequence[float]) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (area - shared) if area > shared else 0.0
