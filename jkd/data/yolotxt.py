"""YOLO text: `images/<split>/*.jpg` and `labels/<split>/*.txt`, a line an object: `class cx cy w h`.

Centre and size are shares of the image's width and height. An empty text says that there is nothing in the image; an
image without a text is one that nobody has annotated (not one without objects, as some tools take it).
"""

from collections.abc import Sequence

import numpy as np

from jkd import places
from jkd.data.annotations import MOST_BOXES, Annotated, Annotation, annotation, class_numbers
from jkd.data.image_files import MOST_LABELS, by_stem, folder_of, images_in, lines, plain
from jkd.errors import UserError
from jkd.places import Path

NAMES = ("classes.txt", "names.txt", "obj.names", "coco.names")


def listings(
    root: Path, splits: Sequence[str], max_bytes: int, *, classes: Sequence[str] = (), names: str = ""
) -> list[Annotated]:
    """The images of each split with their objects, in the order of their names; ids are `<split>/<stem>`.

    Args:
      root: the folder that holds `images` and `labels`.
      splits: names of folders below both.
      max_bytes: most bytes of one image.
      classes: names in order of their numbers.
      names: a text file of them, a line each; if neither is given, one of `NAMES` in `root`.

    Raises:
      UserError: another layout, no names, or a line that is not five numbers (which may be out of range: that is for
        the rules of boxes to judge).
    """
    if not classes:
        path = places.path_of(names) if names else folder_of(root, NAMES, "file of class names (data.names)")
        classes = lines(path)
    known = tuple(class_numbers(classes, f"{root}: class names"))
    return [_split(root, plain(split, "data: a split"), max_bytes, known) for split in splits]


def _split(root: Path, split: str, max_bytes: int, classes: tuple[str, ...]) -> Annotated:
    folder = folder_of(root, [f"images/{split}", f"{split}/images"], f"folder with the images of split '{split}'")
    labels = root / (f"labels/{split}" if folder.name == split else f"{split}/labels")
    images = by_stem(images_in(folder, max_bytes), folder)
    texts = {entry.stem for entry in labels.iterdir() if entry.suffix == ".txt"} if labels.is_dir() else set()
    marks = [_annotation(labels / f"{stem}.txt") if stem in texts else None for stem in images]
    there = np.asarray([-1 if mark is None else 0 for mark in marks], np.int32)
    ids = [f"{split}/{stem}" for stem in images]
    return Annotated(f"{root}:{split}", classes, ids, there, list(images.values()), marks)


def _annotation(path: Path) -> Annotation:
    rows = lines(path, MOST_LABELS)
    if len(rows) > MOST_BOXES:
        raise UserError(f"{path}: {len(rows)} objects, over {MOST_BOXES}.")
    table = np.asarray([_row(row, number, path) for number, row in enumerate(rows, 1)], np.float64).reshape(-1, 5)
    centre, half = table[:, 1:3], table[:, 3:5] / 2
    boxes = np.concatenate([centre - half, centre + half], axis=1)
    return annotation(boxes, table[:, 0].astype(np.int64), relative=True)


def _row(line: str, number: int, path: Path) -> list[float]:
    cells = line.split()
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        values = []
    if len(values) != 5 or not cells[0].isascii() or not cells[0].isdigit() or values[0] >= 2**31:
        raise UserError(f"{path}: line {number} should be 'class cx cy w h' with a whole class, got {line!r:.80}.")
    return values
