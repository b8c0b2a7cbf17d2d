"""What readers of annotated sets hand on, and the rules for boxes that are not as they should be.

In this order, for every box, in pixels of its image:

1. A class that the set does not have is refused.
2. A coordinate that is not finite, a right (lower) side before the left (upper) one, or a box that lies outside of its
   image, as those in another unit do, is **broken**: refused, or under `broken="skip"` dropped and counted, as long as
   no more than `broken_limit` of all boxes are.
3. What reaches over the image's border is **clipped**; counted where a side moves by more than 0.01 pixels, as rounded
   decimals do not.
4. A box that is then narrower or lower than 1 pixel is dropped and counted as **small**: nothing can be learnt from it,
   and annotation tools leave such boxes behind by a slip of the mouse.

Crowds (COCO's `iscrowd`) and difficult objects (VOC) stay in the truth that an evaluation sees, flagged, and are no
training objects; difficult ones are if that is asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from jkd.data.listing import Listing
from jkd.errors import UserError, some

MOST_BOXES = 10_000  # of one image
MOST_CLASSES = 100_000
MOVED = 0.01  # pixels from which on a box counts as clipped
LEAST = 1.0  # pixels that a side must have


@dataclass(frozen=True)
class Annotation:
    """The objects of one image, as its file gives them.

    Attributes:
      boxes: xyxy, float64 `[k, 4]`, in pixels of the image or, if `relative`, as shares of its width and height.
      classes: numbers, or -1 for an unknown one, int `[k]`.
      crowd: a group that stands for several objects.
      difficult: not counted either way in an evaluation.
      area: of each object in square pixels, where the file knows better than the box does; else NaN.
      size: height and width that the file claims, to be compared with the image; None where it claims none.
      relative: what `boxes` counts in.
      origin: number of the first pixel, 0 or 1: left and upper sides are to be moved by as many pixels.
      names: class names as the file gives them, for messages; may be empty.
    """

    boxes: Float[np.ndarray, "k 4"]
    classes: Int[np.ndarray, " k"]
    crowd: Bool[np.ndarray, " k"]
    difficult: Bool[np.ndarray, " k"]
    area: Float[np.ndarray, " k"]
    size: tuple[int, int] | None = None
    relative: bool = False
    origin: int = 0
    names: Sequence[str] = ()


def annotation(
    boxes: Sequence[Sequence[Any]] | np.ndarray,
    classes: Sequence[int] | np.ndarray,
    *,
    crowd: Sequence[bool] | np.ndarray | None = None,
    difficult: Sequence[bool] | np.ndarray | None = None,
    area: Sequence[float] | np.ndarray | None = None,
    size: tuple[int, int] | None = None,
    relative: bool = False,
    origin: int = 0,
    names: Sequence[str] = (),
) -> Annotation:
    """An `Annotation` from plain lists; flags default to False, areas to unknown."""
    count = len(classes)
    flags = [np.zeros(count, bool) if given is None else np.asarray(given, bool) for given in (crowd, difficult)]
    return Annotation(
        boxes=np.asarray(boxes, np.float64).reshape(-1, 4),
        classes=np.asarray(classes, np.int64),
        crowd=flags[0],
        difficult=flags[1],
        area=np.full(count, np.nan) if area is None else np.asarray(area, np.float64),
        size=size,
        relative=relative,
        origin=origin,
        names=names,
    )


@dataclass(frozen=True)
class Annotated(Listing):
    """A listing whose samples are images with objects.

    `labels` is 0 for an image whose objects are known (there may be none) and -1 for one that nobody has annotated;
    `classes` are those of the objects.

    Attributes:
      annotations: one an image; None where `labels` is -1.
    """

    annotations: Sequence[Annotation | None] = field(default_factory=list)


@dataclass
class Found:
    """What the rules met: how many boxes there were, what was done to some, and the first that were broken."""

    boxes: int = 0
    clipped: int = 0
    small: int = 0
    broken: int = 0
    crowd: int = 0
    difficult: int = 0
    named: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """The numbers by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, int)}


def cleaned(given: Annotation, size: tuple[int, int], classes: int, where: str, found: Found) -> Annotation:
    """The annotation in pixels of its image, by the rules of this module, which are counted in `found`.

    Args:
      given: as the file gives it.
      size: height and width of the image.
      classes: how many there are.
      where: names the image in messages.
      found: counts, to which those of this image are added.

    Raises:
      UserError: a class outside `0..classes - 1`, or more than `MOST_BOXES` boxes.
    """
    if len(given.classes) > MOST_BOXES:
        raise UserError(f"{where}: {len(given.classes)} boxes, over {MOST_BOXES}. Is it one image's annotation?")
    unknown = np.flatnonzero((given.classes < 0) | (given.classes >= classes))
    if len(unknown):
        first = int(unknown[0])
        name = f"'{given.names[first]}'" if given.names else str(given.classes[first])
        raise UserError(f"{where}: object {first} is of the unknown class {name}; there are {classes} classes.")
    height, width = size
    border = np.asarray([width, height, width, height], np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        boxes = given.boxes * border if given.relative else given.boxes
        boxes = boxes - np.asarray([given.origin, given.origin, 0, 0])
        sound = np.isfinite(boxes).all(1) & (boxes[:, 2] >= boxes[:, 0]) & (boxes[:, 3] >= boxes[:, 1])
        sound &= (boxes[:, :2] <= border[:2] + MOVED).all(1) & (boxes[:, 2:] >= -MOVED).all(1)  # else it is outside
        inside = np.clip(boxes, 0.0, border)
        moved = (np.abs(inside - boxes) > MOVED).any(1) & sound
        tall_enough = (inside[:, 2] - inside[:, 0] >= LEAST) & (inside[:, 3] - inside[:, 1] >= LEAST)
    kept = sound & tall_enough
    found.boxes += len(boxes)
    found.broken += int((~sound).sum())
    found.named += [f"{where}, object {index}: {given.boxes[index].tolist()}" for index in np.flatnonzero(~sound)]
    found.clipped += int((moved & kept).sum())
    found.small += int((sound & ~tall_enough).sum())
    found.crowd += int((given.crowd & kept).sum())
    found.difficult += int((given.difficult & kept).sum())
    sides = inside[kept][:, 2:] - inside[kept][:, :2]
    area = np.where(np.isfinite(given.area[kept]), given.area[kept], sides[:, 0] * sides[:, 1])
    return Annotation(inside[kept], given.classes[kept], given.crowd[kept], given.difficult[kept], area, size)


def judge(found: Found, name: str, broken: str, broken_limit: float) -> None:
    """Refuses broken boxes, or, under `broken="skip"`, more of them than `broken_limit` of all.

    Raises:
      UserError: naming the first of them.
    """
    if not found.broken:
        return
    named = some(found.named, 3)
    what = f"{name}: {found.broken} of {found.boxes} boxes are not finite, or end before they begin: {named}."
    if broken != "skip":
        raise UserError(f"{what} Repair them, or set data.broken='skip'.")
    allowed = int(broken_limit * found.boxes)
    if found.broken > allowed:
        raise UserError(f"{what} data.broken_limit lets {allowed} be skipped. Repair them, or raise it.")


def class_numbers(classes: Sequence[str], where: str) -> Mapping[str, int]:
    """Number of each class by its name.

    Raises:
      UserError: none, too many, or one twice.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    if not classes or len(classes) > MOST_CLASSES or len(numbers) < len(classes):
        twice = some(sorted({name for name in classes if list(classes).count(name) > 1})) if len(classes) < 1000 else ""
        raise UserError(f"{where}: expected 1 to {MOST_CLASSES} distinct class names, got {len(classes)} {twice}.")
    return numbers
