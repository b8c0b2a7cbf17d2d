"""TFDS sets through `tfds.data_source`: random access to ArrayRecord files, without TensorFlow."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from jkd.data.listing import InMemory, Listing
from jkd.data.sources import LOAD_BYTES
from jkd.errors import UserError

HOLD_BYTES = LOAD_BYTES // 4  # encoded images are kept in memory up to here, read again from disk beyond


@dataclass(frozen=True)
class Record:
    """The encoded image of one record."""

    source: Any
    index: int

    def read(self) -> bytes:
        return self.source[self.index]["image"]


def listings(name: str, data_dir: str, splits: tuple[str, str]) -> list[Listing]:
    """The samples of each split of a TFDS set with the features `image` and `label`.

    Records lie on disk in a hash-shuffled order, so an id is `<split>/<digest of the image bytes>` (a second
    copy of the same image gets `-1`, and so on) and samples are sorted by it: the same set gives the same
    order however it is cut into files.

    Args:
      name: `NAME`, `NAME/CONFIG`, `NAME:VERSION` or `NAME/CONFIG:VERSION`.
      data_dir: TFDS's data_dir; empty for its default.
      splits: names of the splits.

    Raises:
      UserError: no such set or split, a file format without random access, or other features.
    """
    return [_listing(name, data_dir, split) for split in splits]


def _listing(name: str, data_dir: str, split: str) -> Listing:
    source = open_split(name, data_dir, split, {"image": still_encoded()})
    features = source.dataset_info.features
    names = list(features.keys()) if hasattr(features, "keys") else []
    label: Any = features["label"] if "label" in names else None
    if not hasattr(label, "names") or "image" not in names:
        found = ", ".join(names) or type(features).__name__
        raise UserError(f"tfds:{name}: expected the features 'image' and 'label' (ClassLabel), found: {found}.")
    rows, held = [], 0
    for index in range(len(source)):
        record = source[index]
        data = record["image"]
        held += len(data)
        blob = InMemory(data) if held <= HOLD_BYTES else Record(source, index)
        rows.append((hashlib.sha256(data).hexdigest()[:32], int(record["label"]), index, blob))
    rows.sort(key=lambda row: row[:3])
    ids: list[str] = []
    for position, row in enumerate(rows):
        copies = 1
        while copies <= position and rows[position - copies][0] == row[0]:
            copies += 1
        ids.append(f"{split}/{row[0]}" + (f"-{copies - 1}" if copies > 1 else ""))
    labels = np.array([row[1] for row in rows], dtype=np.int32)
    return Listing(f"tfds:{name}:{split}", tuple(label.names), ids, labels, [row[3] for row in rows])


def still_encoded() -> Any:
    """Leaves an image as it was encoded: its header is checked before its body."""
    import tensorflow_datasets as tfds

    return tfds.decode.SkipDecoding()


def open_split(name: str, data_dir: str, split: str, decoders: dict[str, Any] | None = None) -> Any:
    """A split's records by index, in the order of the disk; see `listings` for names and errors."""
    import tensorflow_datasets as tfds

    try:
        # Nothing is downloaded or prepared behind the user's back, in a format that could then not be read.
        return tfds.data_source(name, split=split, data_dir=data_dir or None, decoders=decoders, download=False)
    except Exception as error:  # TFDS raises assertions, lookups, type and import errors for a user's mistakes
        what = " ".join(str(error).split())[:400]
        raise UserError(
            f"data.source 'tfds:{name}', split '{split}': {type(error).__name__}: {what} "
            "Prepare the set as ArrayRecord (file_format='array_record') and give its data_dir as data.path."
        ) from None
