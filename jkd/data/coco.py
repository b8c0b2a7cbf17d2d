"""COCO: `annotations/instances_<split>.json` and a folder of images.

JSON has no NaN, so a box that is not finite is refused with its file. Category ids, which have gaps in COCO (1 to 90
for 80 categories), become class numbers in the order of the ids.
"""

from array import array
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jkd import places
from jkd.data import json_lists
from jkd.data.annotations import MOST_CLASSES, Annotated, Annotation, annotation, class_numbers
from jkd.data.image_files import folder_of, images_in, plain
from jkd.errors import UserError, some
from jkd.places import Path

MOST_BYTES = 2**30  # of a JSON file; COCO 2017's largest has 450 MB
MOST_IMAGES = 10_000_000
MOST_OBJECTS = 50_000_000
ANNOTATIONS = ("annotations/instances_{}.json", "annotations/{}.json", "{}/_annotations.coco.json", "{}.json")
FORM = "COCO's {images: [...], annotations: [...], categories: [...]}"
IMAGES = ("{}", "images/{}", "images")


def listings(root: Path, splits: Sequence[str], max_bytes: int, *, classes: Sequence[str] = ()) -> list[Annotated]:
    """The images of each split with their objects, in the order of their file names; ids are `<split>/<file name>`.

    A file without `annotations` at all (COCO's `image_info`) lists images that nobody has annotated; an image that
    has none in a file with annotations has no objects.

    Args:
      root: the folder that holds annotations and images.
      splits: names, `train2017`.
      max_bytes: most bytes of one image.
      classes: names in order, where another than that of the category ids is wanted; each category must be among them.

    Raises:
      UserError: another layout, missing images, objects of unknown images or categories, ids that come up twice.
    """
    return [_split(root, plain(split, "data: a split"), max_bytes, classes) for split in splits]


def _split(root: Path, split: str, max_bytes: int, classes: Sequence[str]) -> Annotated:
    path = folder_of(root, [name.format(split) for name in ANNOTATIONS], f"annotation file of split '{split}'")
    folder = folder_of(root, [name.format(split) for name in IMAGES], f"folder with the images of split '{split}'")
    if places.size(path) > MOST_BYTES:
        raise UserError(f"{path} has {places.size(path)} bytes, over {MOST_BYTES}.")
    content = _Content(path)
    images = sorted(content.images, key=lambda image: image.file_name)
    names, number = _categories(content.categories, path, classes)
    there = images_in(folder, max_bytes)
    file_names = [plain(image.file_name, str(path)) for image in images]
    if missing := [name for name in file_names if name not in there]:
        raise UserError(f"{path}: {len(missing)} of {len(images)} images are not in {folder}: {some(missing)}.")
    place = {image.id: row for row, image in enumerate(images)}
    if len(place) < len(images) or len(set(file_names)) < len(images):
        raise UserError(f"{path}: images: an id or a file name comes up twice.")
    marks: list[Any] = [None] * len(images)
    if content.annotated:
        by_image = content.by_image(place)
        marks = [content.annotation(by_image[row], number, images[row].size) for row in range(len(images))]
    labels = np.full(len(images), 0 if content.annotated else -1, np.int32)
    ids = [f"{split}/{name}" for name in file_names]
    return Annotated(f"{root}:{split}", names, ids, labels, [there[name] for name in file_names], marks)


class _Image(NamedTuple):
    file_name: str
    id: int
    size: tuple[int, int]


class _Content:
    """What is used of a file: 60 bytes an object in columns, where the file takes 500 and Python's values 5,000.

    Attributes:
      images: in the file's order.
      categories: (id, name) of each.
      annotated: whether there is a list of annotations.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.images: list[_Image] = []
        self.categories: list[tuple[int, str]] = []
        self._ids: list[Any] = []  # of the annotations, for messages
        self._image, self._category = array("q"), array("q")
        self._boxes, self._area = array("d"), array("d")
        self._crowd, self._ignore = array("b"), array("b")
        take = {"images": self._add_image, "categories": self._add_category, "annotations": self._add_annotation}
        keys = json_lists.read(path, take, FORM)
        for key in ("images", "categories"):
            if key not in keys:
                raise self._other(key)
        self.annotated = "annotations" in keys

    def by_image(self, place: Mapping[int, int]) -> list[np.ndarray]:
        """The annotations of each image, in the file's order; `place` is from ids to rows of images."""
        rows = np.empty(len(self._image), np.int64)
        for number, image in enumerate(self._image):
            if image not in place:
                what = f"annotation {self._ids[number]} is of image {image}"
                raise UserError(f"{self._path}: {what}, which is not listed.")
            rows[number] = place[image]
        order = np.argsort(rows, kind="stable")
        return np.split(order, np.searchsorted(rows[order], np.arange(1, len(place)))) if place else []

    def annotation(self, at: np.ndarray, number: Mapping[int, int], size: tuple[int, int]) -> Annotation:
        """The annotations at `at` as those of one image."""
        corners = np.frombuffer(self._boxes, np.float64).reshape(-1, 4)[at]
        corners[:, 2:] += corners[:, :2]
        categories = [self._category[one] for one in at]
        return annotation(
            corners,
            [number.get(one, -1) for one in categories],
            crowd=np.frombuffer(self._crowd, np.int8)[at],
            difficult=np.frombuffer(self._ignore, np.int8)[at],
            area=np.frombuffer(self._area, np.float64)[at],
            size=size,
            names=[f"category {one}" for one in categories],
        )

    def _add_image(self, item: Any) -> None:
        image = self._checked(item, "images", len(self.images), MOST_IMAGES)
        size = _whole(image, "height", self._path), _whole(image, "width", self._path)
        self.images.append(_Image(_text(image, "file_name", self._path), _whole(image, "id", self._path), size))

    def _add_category(self, item: Any) -> None:
        category = self._checked(item, "categories", len(self.categories), MOST_CLASSES)
        self.categories.append((_whole(category, "id", self._path), _text(category, "name", self._path)))

    def _add_annotation(self, item: Any) -> None:
        thing = self._checked(item, "annotations", len(self._image), MOST_OBJECTS)
        self._image.append(_whole(thing, "image_id", self._path))
        self._category.append(_whole(thing, "category_id", self._path))
        self._boxes.extend(_box(thing, self._path))
        self._area.append(_area(thing))
        self._crowd.append(_flag(thing, "iscrowd", self._path))
        self._ignore.append(_flag(thing, "ignore", self._path))
        given = thing.get("id")
        self._ids.append(given if _is_number(given) else f"{given!r:.20}")

    def _checked(self, item: Any, key: str, there: int, most: int) -> dict:
        if not isinstance(item, dict):
            raise self._other(key)
        if there >= most:
            raise UserError(f"{self._path}: over {most} {key}.")
        return item

    def _other(self, key: str) -> UserError:
        return UserError(f"{self._path}: expected {FORM}; '{key}' is not.")


def _flag(thing: dict, key: str, path: Path) -> bool:
    """0 or 1; a text such as "0" would count as 1."""
    value = thing.get(key, 0)
    if value not in (0, 1):  # also False and True
        raise UserError(f"{path}: annotation {thing.get('id')}: {key}: expected 0 or 1, got {value!r}.")
    return bool(value)


def _box(thing: dict, path: Path) -> list[float]:
    box = thing.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        raise UserError(f"{path}: annotation {thing.get('id')}: bbox should be [x, y, width, height], got {box!r:.80}.")
    return [float(value) for value in box]


def _area(thing: dict) -> float:
    area: Any = thing.get("area")
    return float(area) if _is_number(area) and area > 0 else float("nan")


def _categories(
    found: list[tuple[int, str]], path: Path, classes: Sequence[str]
) -> tuple[tuple[str, ...], dict[int, int]]:
    by_id = dict(found)
    if len(by_id) < len(found):
        raise UserError(f"{path}: categories: an id comes up twice.")
    names = tuple(classes) or tuple(by_id[one] for one in sorted(by_id))
    number = class_numbers(names, f"{path}: categories")
    if strange := sorted(set(by_id.values()) - set(number)):
        raise UserError(f"{path}: categories that are not in data.classes: {some(strange)}.")
    return names, {one: number[name] for one, name in by_id.items()}


def _whole(item: dict, key: str, path: Path) -> int:
    value: Any = item.get(key)
    if not _is_number(value) or value != value // 1 or not 0 <= value < 2**63:
        raise UserError(f"{path}: {key} should be a whole number, got {value!r:.80}.")
    return int(value)


def _text(item: dict, key: str, path: Path) -> str:
    value = item.get(key)
    if not isinstance(value, str):
        raise UserError(f"{path}: {key} should be a text, got {value!r:.80}.")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63
