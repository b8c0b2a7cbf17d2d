"""Images with objects: a source whose samples have boxes, on the canvas of one network size.

`images` and `boxes` of the same index belong together: both have gone through the same `Placement`, which also maps
what a network finds back to the image. Sets of up to 2 GiB of canvases are decoded once, others when asked for.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32, Integer, UInt8

from jkd import digest
from jkd.data import images as encoded
from jkd.data.annotations import Annotated, Annotation, Found, annotation, cleaned, judge
from jkd.data.decode import Rules, Unreadable, decode, header
from jkd.data.letterbox import FITS, GREY, INTERPOLATIONS, Placement, lay, place
from jkd.data.listing import Blob
from jkd.data.sources import IN_MEMORY_BYTES, fingerprint_of, keep
from jkd.errors import UserError, did_you_mean, some


@dataclass(frozen=True)
class Canvas:
    """How images are laid onto the network's input: its size, and `jkd.data.letterbox`'s settings.

    Attributes:
      size: height and width.
      fit: `stretch` or `letterbox`.
      interpolation: `bilinear` (as OpenCV) or `antialiased` (Pillow).
      fill: 0..255, around a letterboxed image.
    """

    size: tuple[int, int]
    fit: str = "stretch"
    interpolation: str = "bilinear"
    fill: int = GREY

    def __post_init__(self) -> None:
        for key, value, known in (("fit", self.fit, FITS), ("interpolation", self.interpolation, INTERPOLATIONS)):
            if value not in known:
                raise UserError(
                    f"data.{key}: expected {' or '.join(known)}, got '{value}'.{did_you_mean(value, known)}"
                )
        if min(self.size) < 1 or not 0 <= self.fill <= 255:
            raise UserError(f"data: a canvas of {self.size} filled with {self.fill} is none.")


class Boxes(NamedTuple):
    """Training objects, padded to one count.

    Attributes:
      boxes: xyxy in pixels of the canvas, float32 `[n, M, 4]`, 0 where there is none.
      classes: int32 `[n, M]`, -1 where there is none.
      object: number of the object in the whole source, int32 `[n, M]`, -1 where there is none.
    """

    boxes: Float32[np.ndarray, "n M 4"]
    classes: Int32[np.ndarray, "n M"]
    object: Int32[np.ndarray, "n M"]


class Truth(NamedTuple):
    """All objects of one image, in its own pixels, for an evaluation.

    Attributes:
      size: height and width of the image.
      boxes: xyxy, float64 `[k, 4]`.
      classes: int32 `[k]`.
      crowd, difficult: bool `[k]`.
      area: square pixels, of the object where the file says so, else of its box; float64 `[k]`.
    """

    size: tuple[int, int]
    boxes: Float64[np.ndarray, "k 4"]
    classes: Int32[np.ndarray, " k"]
    crowd: Bool[np.ndarray, " k"]
    difficult: Bool[np.ndarray, " k"]
    area: Float64[np.ndarray, " k"]


class ObjectSource:
    """Random access to images of one size with their boxes, in a stable order.

    Attributes:
      name: what a message calls it.
      classes: names of the objects' classes.
      shape: height, width, 3 of every image.
      labels: int32 `[N]`, 0 where an image is annotated (with any number of objects), -1 where it is not.
      skipped: `(id, why)` of the unreadable images left out.
      in_memory: whether `images` is a mere copy.
      max_boxes: M, the most training objects of an image, or what was asked for.
      counts: what the rules of `jkd.data.annotations` met: boxes, clipped, small, broken, crowd, difficult; also
        `over`, objects that did not fit into `max_boxes`, and `unannotated`, images without annotation.
      image_of: the image of each training object, rising, int32 `[O]`.
      object_classes: of each training object, int32 `[O]`.
      object_boxes: of each training object, xyxy in pixels of the canvas, float32 `[O, 4]`.
    """

    kind = "objects"

    def __init__(
        self,
        name: str,
        classes: Sequence[str],
        ids: Sequence[str],
        annotations: Sequence[Annotation | None],
        placements: Sequence[Placement],
        canvas: Canvas,
        *,
        pixels: UInt8[np.ndarray, "n h w 3"] | None = None,
        blobs: Sequence[Blob] = (),
        digests: Sequence[str] = (),
        rules: Rules | None = None,
        skipped: Sequence[tuple[str, str]] = (),
        counts: Mapping[str, int] | None = None,
        max_boxes: int = 0,
        train_difficult: bool = False,
    ) -> None:
        if not len(ids) == len(annotations) == len(placements) == (len(blobs) if pixels is None else len(pixels)):
            raise ValueError(f"{len(ids)} ids, {len(annotations)} annotations, {len(placements)} placements")
        self.name = name
        self.classes = tuple(classes)
        self.labels = np.asarray([-1 if found is None else 0 for found in annotations], np.int32)
        self.shape: tuple[int, ...] = (*canvas.size, 3)
        self.skipped = tuple(skipped)
        self.in_memory = pixels is not None
        self.canvas = canvas
        self._ids = list(ids)
        self._annotations = [annotation([], []) if found is None else found for found in annotations]
        self._placements = list(placements)
        self._pixels, self._blobs, self._digests, self._rules = pixels, list(blobs), list(digests), rules
        self._train_difficult = train_difficult
        over = self._number_objects(max_boxes, train_difficult)
        unannotated = int((self.labels < 0).sum())
        self.counts: Mapping[str, int] = dict(counts or {}) | {"over": over, "unannotated": unannotated}

    def _number_objects(self, max_boxes: int, train_difficult: bool) -> int:
        """Fills the arrays of training objects; returns how many were left out for want of slots."""
        chosen, over = [], 0
        for found in self._annotations:
            kept = np.flatnonzero(~found.crowd & (~found.difficult | train_difficult))
            if max_boxes and len(kept) > max_boxes:
                area = (found.boxes[kept, 2:] - found.boxes[kept, :2]).prod(1)
                largest = np.argsort(-area, kind="stable")[:max_boxes]
                over += len(kept) - max_boxes
                kept = np.sort(kept[largest])
            chosen.append(kept)
        counted = np.asarray([len(kept) for kept in chosen], np.int64)
        self._first = np.concatenate([[0], np.cumsum(counted)])
        self.max_boxes = max_boxes or max(int(counted.max(initial=0)), 1)
        pairs = list(zip(self._annotations, self._placements, chosen, strict=True))
        boxes = [lies.to_canvas(found.boxes[kept]) for found, lies, kept in pairs]
        self.object_boxes = np.concatenate([np.zeros((0, 4)), *boxes]).astype(np.float32)
        classes = [found.classes[kept] for found, _, kept in pairs]
        self.object_classes = np.concatenate([np.zeros(0, np.int64), *classes]).astype(np.int32)
        self.image_of = np.repeat(np.arange(len(pairs), dtype=np.int32), counted)
        return over

    def __len__(self) -> int:
        return len(self._ids)

    def id(self, index: int) -> str:
        return self._ids[int(index)]

    def images(self, index: Integer[np.ndarray, " n"]) -> UInt8[np.ndarray, "n h w 3"]:
        """The canvases at `index`, in that order."""
        if self._pixels is not None:
            return self._pixels[index]
        pixels = np.empty((len(index), *self.shape), np.uint8)
        for row, i in enumerate(index):
            pixels[row] = self._decoded(int(i))
        return pixels

    def _decoded(self, i: int) -> np.ndarray:
        assert self._rules is not None
        try:
            data = encoded.unchanged(self._blobs[i].read(), self._digests[i])
            return _laid(data, self._rules, self.canvas, self._placements[i].image)
        except Unreadable as why:
            raise UserError(f"{self.name}: {self.id(i)} {why}. Replace or remove it.") from None

    def boxes(self, index: Integer[np.ndarray, " n"]) -> Boxes:
        """The training objects of the images at `index`. Images without annotation have none."""
        shape = (len(index), self.max_boxes)
        index = np.asarray(index, np.int64)
        number = self._first[index][:, None] + np.arange(self.max_boxes)
        there = number < self._first[index + 1][:, None]
        made = Boxes(np.zeros((*shape, 4), np.float32), np.full(shape, -1, np.int32), np.full(shape, -1, np.int32))
        made.boxes[there] = self.object_boxes[number[there]]
        made.classes[there] = self.object_classes[number[there]]
        made.object[there] = number[there]
        return made

    def objects(self, index: Integer[np.ndarray, " n"]) -> Int32[np.ndarray, " o"]:
        """Numbers of all training objects of some images, rising."""
        wanted = np.zeros(len(self), bool)
        wanted[index] = True
        return np.flatnonzero(wanted[self.image_of]).astype(np.int32)

    def truth(self, index: int) -> Truth:
        """Everything annotated in one image, crowds and difficult objects among it, in its own pixels."""
        found = self._annotations[int(index)]
        classes = found.classes.astype(np.int32)
        size, boxes = self._placements[int(index)].image, found.boxes.astype(np.float64)
        area = np.where(np.isfinite(found.area), found.area, (boxes[:, 2:] - boxes[:, :2]).prod(1))
        return Truth(size, boxes, classes, found.crowd, found.difficult, area)

    def placement(self, index: int) -> Placement:
        """How one image lies on its canvas."""
        return self._placements[int(index)]

    def to_image(self, index: int, boxes: Float[np.ndarray, "*b 4"]) -> Float[np.ndarray, "*b 4"]:
        """Boxes found on the canvas of image `index`, in pixels of that image, cut off at its borders."""
        return self._placements[int(index)].to_image(boxes)

    def with_boxes(self, found: Mapping[int, tuple[np.ndarray, np.ndarray]]) -> "ObjectSource":
        """The same images, some with other objects, as a teacher found them in images that nobody has annotated.

        Objects are numbered anew, and these images count as annotated.

        Args:
          found: image -> boxes xyxy in pixels of its canvas `[k, 4]`, and classes `[k]`.
        """
        annotations = [None if label < 0 else mark for label, mark in zip(self.labels, self._annotations, strict=True)]
        counts = Found()
        for index, (boxes, classes) in found.items():
            lies = self._placements[index]
            given = annotation(lies.to_image(boxes), classes, size=lies.image)
            annotations[index] = cleaned(given, lies.image, len(self.classes), self.id(index), counts)
        return ObjectSource(
            self.name,
            self.classes,
            self._ids,
            annotations,
            self._placements,
            self.canvas,
            pixels=self._pixels,
            blobs=self._blobs,
            digests=self._digests,
            rules=self._rules,
            skipped=self.skipped,
            counts=dict(self.counts) | {"found": counts.boxes - counts.small},
            train_difficult=self._train_difficult,
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of ids, labels, pixels (or files and how they are laid), boxes and flags."""
        kind: list[object] = ["objects", *self.shape, self.canvas.fit, self.canvas.interpolation, self.canvas.fill]
        content = digest.of_array(self._pixels) if self._pixels is not None else self._digests
        arrays: dict[str, np.ndarray] = {"boxes": self.object_boxes, "classes": self.object_classes}
        arrays["image_of"] = self.image_of
        for key in ("boxes", "classes", "crowd", "difficult", "area"):
            parts = [getattr(found, key) for found in self._annotations]
            arrays[f"all.{key}"] = np.concatenate(parts) if parts else np.zeros(0)
        arrays["all.count"] = np.asarray([len(found.classes) for found in self._annotations], np.int64)
        arrays["size"] = np.asarray([lies.image for lies in self._placements], np.int64).reshape(-1, 2)
        return fingerprint_of(self._ids, self.labels, [kind, content, digest.of_tree(arrays)])


def load(
    listing: Annotated,
    canvas: Canvas,
    *,
    max_pixels: int,
    broken: str = "refuse",
    broken_limit: float = 0.001,
    limit: int = 0,
    max_boxes: int = 0,
    train_difficult: bool = False,
) -> ObjectSource:
    """A source of the listed images, all laid onto `canvas`, with boxes cleaned by `jkd.data.annotations`.

    Args:
      listing: ids, encoded bytes and annotations.
      canvas: size and fit.
      max_pixels: an image that claims more is refused from its header.
      broken: `refuse` or `skip`, of unreadable images, images of another size than their annotation says, and boxes.
      broken_limit: share of images, and of boxes, that may be skipped.
      limit: keep so many images by hash order of ids, before any is decoded; 0 = all.
      max_boxes: slots of an image; of more objects the largest in area are kept, the others counted as `over`.
        0 = as many as the fullest image has.
      train_difficult: whether difficult objects are training objects.

    Raises:
      UserError: unreadable images or broken boxes where these are refused, or too many of them; an unknown class;
        nothing readable.
    """
    listing = _take(listing, keep(listing.ids, limit))
    if not listing.ids:
        raise UserError(f"{listing.name}: there are no images.")
    rules = Rules(max_pixels)
    whole = len(listing.ids) * canvas.size[0] * canvas.size[1] * 3 <= IN_MEMORY_BYTES

    def look(data: bytes) -> tuple[tuple[int, int], np.ndarray | str]:
        size = header(data, rules)[:2]
        return size, _laid(data, rules, canvas, size) if whole else hashlib.sha256(data).hexdigest()

    allowed = int(broken_limit * len(listing.ids)) if broken == "skip" else None
    seen, good, skipped = encoded.sift(_checked(listing, rules), allowed, look)
    listing = _take(listing, good)
    found = Found()
    annotations = [
        None if given is None else cleaned(given, size, len(listing.classes), f"{listing.name}: {name}", found)
        for given, name, (size, _) in zip(listing.annotations, listing.ids, seen, strict=True)
    ]
    judge(found, listing.name, broken, broken_limit)
    placements = [place(size, canvas.size, canvas.fit) for size, _ in seen]
    pixels = None
    if whole:
        pixels = np.empty((len(seen), *canvas.size, 3), np.uint8)
        for row, (size, image) in enumerate(seen):
            pixels[row] = image
            seen[row] = (size, None)  # let it go, so that the peak stays near one copy
    return ObjectSource(
        listing.name,
        listing.classes,
        listing.ids,
        annotations,
        placements,
        canvas,
        pixels=pixels,
        blobs=() if whole else listing.blobs,
        digests=() if whole else [sha for _, sha in seen],
        rules=rules,
        skipped=skipped,
        counts=found.counts(),
        max_boxes=max_boxes,
        train_difficult=train_difficult,
    )


def _checked(listing: Annotated, rules: Rules) -> Annotated:
    pairs = zip(listing.blobs, listing.annotations, strict=True)
    blobs = [
        blob if found is None or found.size is None else encoded.Sized(blob, found.size, rules) for blob, found in pairs
    ]
    return replace(listing, blobs=blobs)


def _laid(data: bytes, rules: Rules, canvas: Canvas, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    image = decode(data, rules)
    if image.shape[:2] != size:
        raise Unreadable(f"is {image.shape[:2]}, unlike its header")
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    return lay(image, place(size, canvas.size, canvas.fit), canvas.interpolation, canvas.fill)


def _take(listing: Annotated, index: np.ndarray) -> Annotated:
    if len(index) == len(listing.ids):
        return listing
    return replace(
        listing,
        ids=[listing.ids[int(i)] for i in index],
        labels=listing.labels[index],
        blobs=[listing.blobs[int(i)] for i in index],
        annotations=[listing.annotations[int(i)] for i in index],
    )


def joined(parts: Sequence[Annotated]) -> Annotated:
    """Several splits as one, in that order.

    Raises:
      UserError: an image in two of them.
    """
    if len(parts) == 1:
        return parts[0]
    ids = [name for part in parts for name in part.ids]
    if len(set(ids)) < len(ids):
        twice = sorted(name for name, count in Counter(ids).items() if count > 1)
        raise UserError(f"{' + '.join(part.name for part in parts)}: an image stands in two splits: {some(twice)}.")
    return Annotated(
        name="+".join(part.name for part in parts),
        classes=parts[0].classes,
        ids=ids,
        labels=np.concatenate([part.labels for part in parts]),
        blobs=[blob for part in parts for blob in part.blobs],
        annotations=[found for part in parts for found in part.annotations],
    )
