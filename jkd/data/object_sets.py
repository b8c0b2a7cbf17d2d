"""From settings to a training and a test source of images with objects: VOC, COCO, YOLO text, TFDS, rendered shapes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from ml_collections import ConfigDict

from jkd.data.annotations import Annotated
from jkd.data.decode import Rules
from jkd.data.letterbox import GREY
from jkd.data.objects import Canvas, ObjectSource, joined
from jkd.data.objects import load as load_listing
from jkd.errors import UserError, did_you_mean, some

Given: TypeAlias = Mapping[str, Any] | ConfigDict
KINDS = ("coco", "shapes", "tfds:NAME", "voc", "yolo")


@dataclass(frozen=True)
class ObjectSettings:
    """The keys of `config.data` that a set with objects is read by.

    Attributes:
      source: one of `KINDS`.
      path: folder of the set; for TFDS its data_dir.
      train, test: names of splits; `a+b` joins two.
      classes: names in order; empty = those of the set.
      names: YOLO text: file of class names.
      image_size: side of the square canvas.
      fit, interpolation, fill: see `jkd.data.objects.Canvas`.
      max_boxes: slots of an image, see `jkd.data.objects.load`; 0 = the fullest image's count.
      train_difficult: whether objects flagged difficult are trained on.
      origin: VOC and TFDS: number of the first pixel, see `jkd.data.voc`.
      limit, test_limit: images kept by hash order of ids; 0 = all. For shapes: images made; 0 = 2,000 and 500.
      max_pixels, broken, broken_limit: as for images; `broken` also rules boxes, see `jkd.data.annotations`.
      shapes: what differs from `jkd.data.shapes.ShapeSettings`.
    """

    source: str
    path: str = ""
    train: str = "train"
    test: str = "test"
    classes: tuple[str, ...] = ()
    names: str = ""
    image_size: int = 0
    fit: str = "stretch"
    interpolation: str = "bilinear"
    fill: int = GREY
    max_boxes: int = 0
    train_difficult: bool = False
    origin: int = 0
    limit: int = 0
    test_limit: int = 0
    max_pixels: int = 64_000_000
    broken: str = "refuse"
    broken_limit: float = 0.001
    shapes: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, data: Given) -> "ObjectSettings":
        """Those of `config.data`, or of any mapping; keys that it has not stay at their defaults."""
        given = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        return cls(**given | dict(classes=tuple(given.get("classes", ())), shapes=dict(given.get("shapes") or {})))


def is_objects(source: str) -> bool:
    """Whether a `data.source` is one of images with objects only; TFDS sets may be of either kind."""
    return source in KINDS


def load(settings: ObjectSettings | Given) -> tuple[ObjectSource, ObjectSource]:
    """The training and the test source.

    Raises:
      UserError: what a reader refuses; a split in both; a test image without annotation; different classes.
    """
    settings = settings if isinstance(settings, ObjectSettings) else ObjectSettings.of(settings)
    if settings.train == settings.test:
        raise UserError(f"data.train and data.test are both '{settings.train}'. The test split must be another one.")
    train, test = load_splits(settings, (settings.train, settings.test))
    if (test.labels < 0).any():
        missing = [test.id(index) for index, label in enumerate(test.labels) if label < 0]
        raise UserError(
            f"{test.name}: {len(missing)} test images have no annotation: {some(missing)}. All need one; an empty one "
            "says that there is nothing in the image."
        )
    return train, test


def load_splits(settings: ObjectSettings | Given, splits: Sequence[str]) -> list[ObjectSource]:
    """A source for each of some splits (the first is limited by `limit`, the others by `test_limit`), of one canvas and
    the same classes; no image is in two of them.

    Raises:
      UserError: what a reader refuses; different classes; an image in two splits.
    """
    settings = settings if isinstance(settings, ObjectSettings) else ObjectSettings.of(settings)
    limits = [settings.limit, *[settings.test_limit] * (len(splits) - 1)]
    if settings.classes and (settings.source == "shapes" or settings.source.startswith("tfds:")):
        raise UserError(f"data.classes: {settings.source} has classes of its own. Leave it empty, as ().")
    if settings.source == "shapes":
        from jkd.data import shapes

        options = dict(image_size=settings.image_size, max_boxes=settings.max_boxes)
        return shapes.load(splits, limits, **options, shapes=settings.shapes)
    if settings.image_size < 1:
        raise UserError("data.image_size: images with objects need the side of the network's input, such as 320.")
    canvas = Canvas((settings.image_size,) * 2, settings.fit, settings.interpolation, settings.fill)
    names = [name for split in splits for name in split.split("+")]
    found = _listings(settings, names)
    if len({listing.classes for listing in found}) > 1:
        raise UserError(f"{settings.path}: the splits {some(names)} have different classes. Give data.classes.")
    by_split = dict(zip(names, found, strict=True))
    listings = [joined([by_split[name] for name in split.split("+")]) for split in splits]
    _apart(listings)
    return [
        load_listing(
            listing,
            canvas,
            max_pixels=settings.max_pixels,
            broken=settings.broken,
            broken_limit=settings.broken_limit,
            limit=limit,
            max_boxes=settings.max_boxes,
            train_difficult=settings.train_difficult,
        )
        for listing, limit in zip(listings, limits, strict=True)
    ]


def _listings(settings: ObjectSettings, splits: Sequence[str]) -> list[Annotated]:
    from jkd.data import coco, tfds_objects, voc, yolotxt
    from jkd.data.folder import existing

    if settings.origin not in (0, 1):
        raise UserError(f"data.origin: expected 0 or 1, got {settings.origin}.")
    if settings.source.startswith("tfds:"):
        name = settings.source.removeprefix("tfds:")
        return tfds_objects.listings(name, settings.path, splits, origin=settings.origin)
    if settings.source not in KINDS:
        hint = did_you_mean(settings.source, KINDS)
        raise UserError(f"data.source: expected {', '.join(KINDS)}, got '{settings.source}'.{hint}")
    root, most, classes = existing(settings.path), Rules(settings.max_pixels).max_bytes, settings.classes
    if not root.is_dir():
        raise UserError(f"data.path: {root} is a file; a set of images with objects is a folder.")
    if settings.source == "voc":
        return voc.listings(root, splits, most, classes=classes, origin=settings.origin)
    if settings.source == "coco":
        return coco.listings(root, splits, most, classes=classes)
    return yolotxt.listings(root, splits, most, classes=classes, names=settings.names)


def _apart(listings: Sequence[Annotated]) -> None:
    seen: dict[str, str] = {}
    for listing in listings:
        for name in listing.ids:
            if name in seen:
                raise UserError(f"{name} is in the splits {seen[name]} and {listing.name}; they must not overlap.")
            seen[name] = listing.name
