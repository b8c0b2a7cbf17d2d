"""Pascal VOC folders: `Annotations/*.xml`, `JPEGImages/`, `ImageSets/Main/<split>.txt`.

Coordinates are taken as they stand (`origin=0`), as tools such as labelImg write them: pixel edges. The VOC challenges
themselves count pixels from 1 and name the last one inside; `origin=1` reads them so: the left and upper side move by
one pixel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from xml.etree.ElementTree import Element

import numpy as np

from jkd.data import safe_xml
from jkd.data.annotations import MOST_BOXES, Annotated, Annotation, annotation, class_numbers
from jkd.data.image_files import by_stem, images_in, lines, plain
from jkd.data.listing import Blob
from jkd.errors import UserError, some
from jkd.places import Path

LAYOUT = "Expected Annotations/*.xml, JPEGImages/*.jpg and ImageSets/Main/<split>.txt."
SIDES = ("xmin", "ymin", "xmax", "ymax")


def listings(
    root: Path, splits: Sequence[str], max_bytes: int, *, classes: Sequence[str] = (), origin: int = 0
) -> list[Annotated]:
    """The images of each split with their objects; ids are the names in the split's list.

    An image of the list without an XML file counts as not annotated.

    Args:
      root: the folder that holds the three.
      splits: names of lists.
      max_bytes: most bytes of one image.
      classes: names in order; if none, all names that the splits' objects have, sorted.
      origin: number of the first pixel, 0 or 1; see the module.

    Raises:
      UserError: another layout, an image of a list that is not there, XML that is refused (see `jkd.data.safe_xml`) or
        has no size or box, or a class that is not one of `classes`.
    """
    folder = root / "JPEGImages"
    if not folder.is_dir():
        raise UserError(f"{root}: there is no folder JPEGImages. {LAYOUT}")
    images = by_stem(images_in(folder, max_bytes), folder)
    read = [_split(root, split, images, origin) for split in splits]
    found = {name for _, _, marks in read for mark in marks if mark for name in mark.names}
    known = class_numbers(tuple(classes) or sorted(found), f"{root}: classes")
    if strange := sorted(found - set(known)):
        raise UserError(f"{root}: objects of classes that are not in data.classes: {some(strange)}.")
    return [_numbered(f"{root}:{split}", known, *each) for split, each in zip(splits, read, strict=True)]


Rows = tuple[list[str], list[Blob], list[Annotation | None]]


def _split(root: Path, split: str, images: dict, origin: int) -> Rows:
    path = root / "ImageSets" / "Main" / f"{plain(split, 'data: a split')}.txt"
    if not path.is_file():
        lists = [entry.stem for entry in path.parent.glob("*.txt")] if path.parent.is_dir() else []
        raise UserError(f"{root}: there is no split '{split}' ({path}). Found: {some(sorted(lists), 8) or 'none'}.")
    ids = [plain(line, str(path)) for line in lines(path)]
    if len(set(ids)) < len(ids):
        raise UserError(f"{path}: an image is listed twice.")
    if missing := [name for name in ids if name not in images]:
        raise UserError(f"{path}: {len(missing)} of {len(ids)} images are not in JPEGImages: {some(missing)}.")
    marks = [_annotation(root / "Annotations" / f"{name}.xml", origin) for name in ids]
    return ids, [images[name] for name in ids], marks


def _annotation(path: Path, origin: int) -> Annotation | None:
    if not path.is_file():
        return None
    try:
        top = safe_xml.read(path)
    except safe_xml.Refused as why:
        raise UserError(f"{path} {why}. Repair or replace it.") from None
    objects = top.findall("object")
    if len(objects) > MOST_BOXES:
        raise UserError(f"{path}: {len(objects)} objects, over {MOST_BOXES}.")
    boxes = [[_number(thing, f"bndbox/{side}", path) for side in SIDES] for thing in objects]
    sides = (_number(top, "size/height", path), _number(top, "size/width", path))
    size = (int(sides[0]), int(sides[1])) if min(sides) > 0 else None  # some tools write 0 for unknown
    difficult = [(thing.findtext("difficult") or "0").strip() == "1" for thing in objects]
    names = [(thing.findtext("name") or "").strip() for thing in objects]
    return annotation(boxes, [-1] * len(objects), difficult=difficult, size=size, origin=origin, names=names)


def _number(element: Element, name: str, path: Path) -> float:
    """A number, which may be NaN or infinite: that is for the rules of boxes to judge."""
    text = element.findtext(name)
    try:
        number = float(text or "")
    except ValueError:
        raise UserError(f"{path}: <{name}> should be a number, got {text!r}.") from None
    if name.startswith("size") and not 0 <= number < 2**31:
        raise UserError(f"{path}: <{name}> is {text!r}.")
    return number


def _numbered(
    name: str, known: Mapping[str, int], ids: list[str], blobs: list[Blob], marks: list[Annotation | None]
) -> Annotated:
    numbered = [
        mark if mark is None else replace(mark, classes=np.asarray([known[one] for one in mark.names], np.int64))
        for mark in marks
    ]
    labels = np.asarray([-1 if mark is None else 0 for mark in marks], np.int32)
    return Annotated(name, tuple(known), ids, labels, blobs, numbered)
