"""TFDS sets with objects: the features of `voc/2007` and `coco/2017`, read as `jkd.data.tfds` reads images.

`image`; `objects`, a sequence of `bbox` (relative ymin, xmin, ymax, xmax), `label` (ClassLabel), and where the set
has them `is_crowd`, `is_difficult` and `area`. Boxes of `voc` are those of its files over the image size, which count
pixels from 1 (see `jkd.data.voc`): `origin=1` reads them so. An id is `<split>/<image/filename>`, or, where the set
has no such feature, `<split>/<digest of the image bytes>`; samples are sorted by it, since the order on disk depends
on how a set was cut.
"""

import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jkd.data import tfds
from jkd.data.annotations import MOST_BOXES, Annotated, Annotation, annotation
from jkd.data.listing import InMemory
from jkd.errors import UserError, some


def has_objects(name: str, data_dir: str, split: str) -> bool:
    """Whether a set is one of images with objects.

    Raises:
      UserError: no such set or split, or a file format without random access.
    """
    features = tfds.open_split(name, data_dir, split).dataset_info.features
    names = list(features.keys()) if hasattr(features, "keys") else []
    return "image" in names and "objects" in names


def listings(name: str, data_dir: str, splits: Sequence[str], *, origin: int = 0) -> list[Annotated]:
    """The images of each split of a TFDS set with their objects.

    Args:
      name: `NAME`, `NAME/CONFIG`, `NAME:VERSION` or `NAME/CONFIG:VERSION`.
      data_dir: TFDS's data_dir; empty for its default.
      splits: names of the splits.
      origin: number of the first pixel, 0 or 1.

    Raises:
      UserError: no such set or split, a file format without random access, other features, or ids that are not unique.
    """
    return [_split(name, data_dir, split, origin) for split in splits]


def _split(name: str, data_dir: str, split: str, origin: int) -> Annotated:
    source = tfds.open_split(name, data_dir, split, {"image": tfds.still_encoded()})
    label = _label(source.dataset_info.features, name)
    rows: list[tuple[str, int, Any, Annotation]] = []
    held = 0
    for index in range(len(source)):
        record = source[index]
        data = record["image"]
        held += len(data)
        blob = InMemory(data) if held <= tfds.HOLD_BYTES else tfds.Record(source, index)
        file = record.get("image/filename")
        stem = bytes(file).decode("utf-8", "replace") if file else hashlib.sha256(data).hexdigest()[:32]
        rows.append((f"{split}/{stem}", index, blob, _annotation(record["objects"], origin, f"tfds:{name}: {stem}")))
    rows.sort(key=lambda row: row[:2])
    ids = [row[0] for row in rows]
    if len(set(ids)) < len(ids):
        twice = [one for one, two in itertools.pairwise(ids) if one == two]
        raise UserError(f"tfds:{name}:{split}: images that are there twice: {some(twice)}.")
    marks = [row[3] for row in rows]
    labels = np.zeros(len(ids), np.int32)
    return Annotated(f"tfds:{name}:{split}", tuple(label.names), ids, labels, [row[2] for row in rows], marks)


def _label(features: Any, name: str) -> Any:
    names = list(features.keys()) if hasattr(features, "keys") else []
    objects = features["objects"].feature if "objects" in names and hasattr(features["objects"], "feature") else {}
    inside = list(objects.keys()) if hasattr(objects, "keys") else []
    if "image" not in names or not {"bbox", "label"} <= set(inside) or not hasattr(objects["label"], "names"):
        found = ", ".join(names) or type(features).__name__
        raise UserError(
            f"tfds:{name}: expected the features 'image' and 'objects' (a sequence with 'bbox' and 'label'), found: "
            f"{found}."
        )
    layout = getattr(getattr(objects["bbox"], "bbox_format", None), "name", "REL_YXYX")
    if layout != "REL_YXYX":
        raise UserError(f"tfds:{name}: boxes are {layout}; expected REL_YXYX, TFDS's own.")
    return objects["label"]


def _annotation(objects: Any, origin: int, where: str) -> Annotation:
    boxes = np.asarray(objects["bbox"], np.float64).reshape(-1, 4)
    if len(boxes) > MOST_BOXES:
        raise UserError(f"{where}: {len(boxes)} objects, over {MOST_BOXES}.")
    flags = {key: np.asarray(objects[key], bool) for key in ("is_crowd", "is_difficult") if key in objects}
    area = np.asarray(objects["area"], np.float64) if "area" in objects else None
    return annotation(
        boxes[:, [1, 0, 3, 2]],
        np.asarray(objects["label"], np.int64),
        crowd=flags.get("is_crowd"),
        difficult=flags.get("is_difficult"),
        area=area,
        relative=True,
        origin=origin,
    )
