"""Rendered shapes with boxes, no files: the embedded set for detection.

Image i of a split is a pure function of (seed, split, i). Only sums, products, quotients, square roots and comparisons
make pixels, which IEEE 754 rounds alike everywhere: the bytes do not depend on the machine.

There is something for a graph to know. Classes come in **scenes** of two: an object belongs to its image's scene with
probability `context`, so classes co-occur; and the second class of a scene tends to stand to the right of the first,
at a distance that goes with its size. Shapes that are easily taken for each other (circle and ring, square and diamond,
triangle and half) are in different scenes, so a doubtful one is told apart by what is around it. Noise and occlusion
make for doubts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from jkd import random
from jkd.data.annotations import Annotation, annotation
from jkd.data.letterbox import place
from jkd.data.objects import Canvas, ObjectSource
from jkd.errors import UserError, did_you_mean

NAMES = ("circle", "square", "triangle", "ring", "diamond", "half", "cross", "bar")
SPLITS = ("train", "test", "val")  # a split's number goes into its draws
DEFAULT_SIZE, DEFAULT_IMAGES, DEFAULT_OTHERS = 96, 2000, 500
FINE = 3  # points an axis by which a pixel's coverage is counted
TRIES = 4  # places that are tried for an object before it is left out
DRAWS = 16  # numbers an object has for each try
REACH = 1.21  # how far a point of a shape may be from its centre, in half sides: a square's corner
VISIBLE = 0.6  # share of a shape that later ones may not cover, and that must be inside the image


@dataclass(frozen=True)
class ShapeSettings:
    """What is drawn.

    Attributes:
      seed: of the set.
      classes: how many of `NAMES`, 2 to 8; an odd last one is a scene by itself.
      least, most: objects of an image; a crowded one may hold fewer than drawn.
      smallest, largest: half the side of a shape as a share of the image's side.
      context: probability that an object is of the image's scene.
      beside: probability that the second class of a scene stands beside a first one.
      noise: most that a channel is moved by, 0..1, uniformly.
    """

    seed: int = 0
    classes: int = 6
    least: int = 2
    most: int = 8
    smallest: float = 0.06
    largest: float = 0.18
    context: float = 0.8
    beside: float = 0.7
    noise: float = 0.1

    def __post_init__(self) -> None:
        wrong = not 2 <= self.classes <= len(NAMES) or not 1 <= self.least <= self.most <= 100
        wrong |= not 0 < self.smallest <= self.largest <= 0.5
        if wrong or not all(0 <= share <= 1 for share in (self.context, self.beside, self.noise)):
            raise UserError(
                f"data.shapes: expected 2 to {len(NAMES)} classes, sane counts and shares, got {asdict(self)}."
            )


def load(
    splits: Sequence[str],
    limits: Sequence[int],
    *,
    image_size: int = 0,
    max_boxes: int = 0,
    shapes: Mapping[str, Any] | None = None,
) -> list[ObjectSource]:
    """A source for each of some splits.

    Args:
      splits: of `SPLITS`.
      limits: images of each; 0 = 2,000 of `train`, 500 of another.
      image_size: side of the images; 0 = 96.
      max_boxes: slots of an image, see `jkd.data.objects.load`.
      shapes: what differs from `ShapeSettings`.

    Raises:
      UserError: a split that is not of `SPLITS`, or settings out of range.
    """
    given = dict(shapes or {})
    known = ShapeSettings.__dataclass_fields__
    for key in given:
        if key not in known:
            raise UserError(f"data.shapes: there is no key '{key}'.{did_you_mean(key, known)}")
    settings, size = ShapeSettings(**given), image_size or DEFAULT_SIZE
    return [source(split, limit, size, settings, max_boxes) for split, limit in zip(splits, limits, strict=True)]


def source(split: str, images: int, size: int, settings: ShapeSettings, max_boxes: int = 0) -> ObjectSource:
    """One split of rendered shapes, in memory; ids are `shapes/<split>/<number>`."""
    if split not in SPLITS:
        raise UserError(f"shapes have the splits {', '.join(SPLITS)}, not '{split}'.{did_you_mean(split, SPLITS)}")
    images = images or (DEFAULT_IMAGES if split == "train" else DEFAULT_OTHERS)
    canvas = Canvas((size, size))
    pixels = np.empty((images, size, size, 3), np.uint8)
    marks = []
    for index in range(images):
        pixels[index], mark = render(split, index, size, settings)
        marks.append(mark)
    return ObjectSource(
        f"shapes:{split}",
        NAMES[: settings.classes],
        [f"shapes/{split}/{index:06d}" for index in range(images)],
        marks,
        [place(canvas.size, canvas.size)] * images,
        canvas,
        pixels=pixels,
        counts={"boxes": sum(len(mark.classes) for mark in marks)},
        max_boxes=max_boxes,
    )


class _Shape(NamedTuple):
    """A shape to be drawn: class, centre, half side (pixels), tilt, hole, and colour."""

    kind: int
    x: float
    y: float
    half: float
    tilt: float
    hole: float
    colour: np.ndarray


def render(split: str, index: int, size: int, settings: ShapeSettings) -> tuple[np.ndarray, Annotation]:
    """One image, uint8 `[size, size, 3]`, and its objects, in boxes that are tight around what lies in the image."""
    numbers = (settings.seed, SPLITS.index(split), index)
    draws = random.uniform("shapes", *numbers, 0, size=12 + settings.most * TRIES * DRAWS)
    canvas = _background(draws[:9], size)
    wanted = settings.least + int(draws[9] * (settings.most - settings.least + 1))
    scene = int(draws[10] * -(-settings.classes // 2))
    owner = np.full((size, size), -1, np.int64)
    drawn: list[_Shape] = []
    boxes: list[tuple[int, int, int, int]] = []
    area: list[int] = []
    visible = np.zeros(0, np.int64)
    tries = draws[12:].reshape(settings.most, TRIES, DRAWS)
    for one in range(wanted):
        for draw in tries[one]:
            shape = _shape(draw, scene, drawn, size, settings)
            if not (0 <= shape.x < size and 0 <= shape.y < size):
                continue
            rows, columns, seen, full = _covered(shape, size)
            cover, solid = seen / FINE**2, 2 * seen > FINE**2
            hidden = np.bincount(owner[rows, columns][solid] + 1, minlength=len(drawn) + 1)[1:]
            left = visible - hidden
            if seen.sum(dtype=np.int64) < VISIBLE * full or (left < VISIBLE * np.asarray(area, np.float64)).any():
                continue
            visible = np.append(left, int(solid.sum()))
            ys, xs = np.flatnonzero(cover.any(1)), np.flatnonzero(cover.any(0))
            boxes.append(
                (columns.start + xs[0], rows.start + ys[0], columns.start + xs[-1] + 1, rows.start + ys[-1] + 1)
            )
            canvas[rows, columns] += cover[:, :, None] * (shape.colour - canvas[rows, columns])
            owner[rows, columns][solid] = len(drawn)
            area.append(int(visible[-1]))
            drawn.append(shape)
            break
    return _bytes(canvas, numbers, settings.noise), annotation(
        boxes, [shape.kind for shape in drawn], size=(size, size)
    )


def _background(draws: np.ndarray, size: int) -> np.ndarray:
    """A colour that changes linearly over the image, float64 `[size, size, 3]`."""
    along = (np.arange(size) + 0.5) / size - 0.5
    down, across = 0.3 * (draws[3:6] - 0.5), 0.3 * (draws[6:9] - 0.5)
    return 0.2 + 0.6 * draws[:3] + along[:, None, None] * down + along[None, :, None] * across


def _shape(draw: np.ndarray, scene: int, drawn: list[_Shape], size: int, settings: ShapeSettings) -> _Shape:
    classes = settings.classes
    of_scene = min(2 * scene + int(draw[1] * 2), classes - 1)
    kind = of_scene if draw[0] < settings.context else int(draw[1] * classes)
    half = size * (settings.smallest + draw[2] * (settings.largest - settings.smallest))
    x, y = (0.08 + 0.84 * draw[3]) * size, (0.08 + 0.84 * draw[4]) * size
    first = next((other for other in drawn if other.kind == kind - 1), None) if kind % 2 else None
    if first is not None and draw[5] < settings.beside:
        x = first.x + first.half + half * (1.1 + 0.4 * draw[3])
        y = first.y + half * (draw[4] - 0.5)
    colour = draw[9:12] + (draw[9:12] < 0.5) * -0.2 + (draw[9:12] >= 0.5) * 0.2  # off the middle greys
    return _Shape(kind, x, y, half, 0.5 * (draw[7] - 0.5), 0.3 + 0.25 * draw[8], np.clip(colour, 0.0, 1.0))


def _covered(shape: _Shape, size: int) -> tuple[slice, slice, np.ndarray, int]:
    """Rows and columns that a shape touches, points of each pixel there inside it, and points of the whole shape."""
    reach = int(shape.half * REACH) + 2
    left, top = int(np.floor(shape.x)) - reach, int(np.floor(shape.y)) - reach
    fine = (np.arange(2 * reach * FINE) + 0.5) / FINE
    inside = _inside((left + fine - shape.x) / shape.half, (top + fine - shape.y) / shape.half, shape)
    counts = _blocks(_blocks(inside.view(np.uint8)).T).T  # at most FINE^2
    rows, columns = (slice(max(start, 0), max(min(start + 2 * reach, size), 0)) for start in (top, left))
    seen = counts[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return rows, columns, seen, int(counts.sum(dtype=np.int64))


def _blocks(points: np.ndarray) -> np.ndarray:
    """Sums of each `FINE` rows."""
    total = points[0::FINE].copy()
    for row in range(1, FINE):
        total += points[row::FINE]
    return total


def _inside(across: np.ndarray, down: np.ndarray, shape: _Shape) -> np.ndarray:
    """Which points of a grid are in a shape of half side 1 around 0, bool `[len(down), len(across)]`."""
    t = shape.tilt  # the angle is 2 arctan t; written so, no sine is needed
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    x = cosine * across[None, :] + sine * down[:, None]
    y = cosine * down[:, None] - sine * across[None, :]
    wide, high = np.abs(x), np.abs(y)
    match NAMES[shape.kind]:
        case "circle":
            return x * x + y * y <= 1
        case "square":
            return np.maximum(wide, high) <= 0.85
        case "triangle":
            return (y <= 0.6) & (wide <= 0.6 * (y + 1))
        case "ring":
            return (x * x + y * y <= 1) & (x * x + y * y >= shape.hole * shape.hole)
        case "diamond":
            return wide + 0.75 * high <= 0.9
        case "half":
            return (x * x + (y - 0.4) * (y - 0.4) <= 1) & (y <= 0.4)
        case "cross":
            return ((wide <= 0.3) & (high <= 1)) | ((high <= 0.3) & (wide <= 1))
        case _:
            return (wide <= 1) & (high <= 0.35)


def _bytes(canvas: np.ndarray, numbers: tuple[int, ...], noise: float) -> np.ndarray:
    """The image in bytes, each channel of each pixel moved by up to `noise`."""
    if noise:
        words = random.bits("shapes", *numbers, 1, size=-(-canvas.size // 8))
        moved = words.astype("<u8").view(np.uint8)[: canvas.size].reshape(canvas.shape)
        canvas = canvas + noise * ((moved.astype(np.float64) - 127.5) / 127.5)
    return np.floor(np.clip(canvas, 0.0, 1.0) * 255 + 0.5).astype(np.uint8)
