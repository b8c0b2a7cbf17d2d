"""COCO: `annotations/instances_<split>.json` and a folder of images.

JSON has no NaN, so a box that is not finite is refused with its file. Category ids, which have gaps in COCO (1 to 90
for 80 categories), become class numbers in the order of the ids.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jkd import files, places
from jkd.data.annotations import MOST_CLASSES, Annotated, annotation, class_numbers
from jkd.data.image_files import folder_of, images_in, plain
from jkd.errors import UserError, some
from jkd.places import Path

MOST_BYTES = 2**30  # of a JSON file; COCO 2017's largest has 450 MB
MOST_IMAGES = 10_000_000
MOST_OBJECTS = 50_000_000
ANNOTATIONS = ("annotations/instances_{}.json", "annotations/{}.json", "{}/_annotations.coco.json", "{}.json")
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
    content = files.read_json(path, each=3)
    images = sorted(_list(content, "images", path, MOST_IMAGES), key=lambda image: str(image.get("file_name")))
    names, number = _categories(_list(content, "categories", path, MOST_CLASSES), path, classes)
    there = images_in(folder, max_bytes)
    file_names = [plain(_text(image, "file_name", path), str(path)) for image in images]
    if missing := [name for name in file_names if name not in there]:
        raise UserError(f"{path}: {len(missing)} of {len(images)} images are not in {folder}: {some(missing)}.")
    place = {_whole(image, "id", path): row for row, image in enumerate(images)}
    if len(place) < len(images) or len(set(file_names)) < len(images):
        raise UserError(f"{path}: images: an id or a file name comes up twice.")
    annotated = "annotations" in content
    objects = _list(content, "annotations", path, MOST_OBJECTS) if annotated else []
    by_image = _by_image(objects, place, path)
    sizes = [(_whole(image, "height", path), _whole(image, "width", path)) for image in images]
    marks = [_annotation(by_image[row], number, sizes[row], path) if annotated else None for row in range(len(images))]
    labels = np.full(len(images), 0 if annotated else -1, np.int32)
    ids = [f"{split}/{name}" for name in file_names]
    return Annotated(f"{root}:{split}", names, ids, labels, [there[name] for name in file_names], marks)


def _by_image(objects: list[dict], place: Mapping[int, int], path: Path) -> list[list[dict]]:
    by_image: list[list[dict]] = [[] for _ in place]
    for thing in objects:
        image = _whole(thing, "image_id", path)
        if image not in place:
            raise UserError(f"{path}: annotation {thing.get('id')} is of image {image}, which is not listed.")
        by_image[place[image]].append(thing)
    return by_image


def _flag(thing: dict, key: str, path: Path) -> bool:
    """0 or 1; a text such as "0" would count as 1."""
    value = thing.get(key, 0)
    if value not in (0, 1):  # also False and True
        raise UserError(f"{path}: annotation {thing.get('id')}: {key}: expected 0 or 1, got {value!r}.")
    return bool(value)


def _annotation(objects: list[dict], number: Mapping[int, int], size: tuple[int, int], path: Path) -> Any:
    corners = np.asarray([_box(thing, path) for thing in objects], np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    categories = [_whole(thing, "category_id", path) for thing in objects]
    return annotation(
        corners,
        [number.get(one, -1) for one in categories],
        crowd=[_flag(thing, "iscrowd", path) for thing in objects],
        difficult=[_flag(thing, "ignore", path) for thing in objects],
        area=[_area(thing) for thing in objects],
        size=size,
        names=[f"category {one}" for one in categories],
    )


def _box(thing: dict, path: Path) -> list[float]:
    box = thing.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        raise UserError(f"{path}: annotation {thing.get('id')}: bbox should be [x, y, width, height], got {box!r:.80}.")
    return [float(value) for value in box]


def _area(thing: dict) -> float:
    area: Any = thing.get("area")
    return float(area) if _is_number(area) and area > 0 else float("nan")


def _categories(found: list[dict], path: Path, classes: Sequence[str]) -> tuple[tuple[str, ...], dict[int, int]]:
    by_id = {_whole(category, "id", path): _text(category, "name", path) for category in found}
    if len(by_id) < len(found):
        raise UserError(f"{path}: categories: an id comes up twice.")
    names = tuple(classes) or tuple(by_id[one] for one in sorted(by_id))
    number = class_numbers(names, f"{path}: categories")
    if strange := sorted(set(by_id.values()) - set(number)):
        raise UserError(f"{path}: categories that are not in data.classes: {some(strange)}.")
    return names, {one: number[name] for one, name in by_id.items()}


def _list(content: Any, key: str, path: Path, most: int) -> list[dict]:
    value = content.get(key) if isinstance(content, dict) else None
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise UserError(
            f"{path}: expected COCO's {{images: [...], annotations: [...], categories: [...]}}; '{key}' is not."
        )
    if len(value) > most:
        raise UserError(f"{path}: {len(value)} {key}, over {most}.")
    return value


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
