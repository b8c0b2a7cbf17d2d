"""Where the encoded images of a split are: the step between a folder, a tar or TFDS and decoded pixels."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Protocol, runtime_checkable

import numpy as np

from jkd import files, places
from jkd.data.decode import SUFFIXES
from jkd.errors import UserError, some


@runtime_checkable
class Blob(Protocol):
    """Encoded bytes that can be read again at any time."""

    def read(self) -> bytes: ...


@dataclass(frozen=True)
class InMemory:
    """Bytes already read, as from a compressed tar, which allows no random access."""

    data: bytes

    def read(self) -> bytes:
        return self.data


@dataclass(frozen=True)
class InFile:
    """`size` bytes of a file from `offset` on."""

    path: str
    offset: int
    size: int

    def read(self) -> bytes:
        return files.retried(self._read)

    def _read(self) -> bytes:
        with places.open_read(self.path) as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True)
class Listing:
    """The samples of one split before decoding, sorted by id."""

    name: str
    classes: tuple[str, ...]
    ids: Sequence[str]
    labels: np.ndarray
    blobs: Sequence[Blob]


@dataclass
class Tree:
    """What a folder or tar holds: files by relative path, and the folders that were seen.

    Attributes:
      where: the path for messages.
      files: `train/cat/1.jpg` -> its bytes.
      folders: `train`, `train/cat`, also where they hold nothing.
      top: names at the top level, for messages.
    """

    where: str
    files: dict[str, Blob] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    top: set[str] = field(default_factory=set)


LAYOUT = "Expected <split>/<class>/<file>, such as train/cat/0001.jpg."


def is_image(path: str) -> bool:
    """Whether a path names an image. Hidden files and anything else, such as notes, are passed over."""
    name = PurePosixPath(path).name
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def listing(tree: Tree, split: str) -> Listing:
    """The samples of one split of a tree, by the layout `<split>/<class>/<file>`.

    Raises:
      UserError: no such split, images at another depth, an empty class, fewer than two classes, names that
        are not text.
    """
    inside = sorted(path for path in tree.files if path.startswith(f"{split}/"))
    folders = {path.split("/")[1] for path in tree.folders if path.startswith(f"{split}/")}
    if not inside and not folders:
        found = some(sorted(tree.top), 8) or "nothing"
        raise UserError(f"{tree.where}: there is no split '{split}' with images. {LAYOUT} Found: {found}.")
    strange = [path for path in (*inside, *sorted(folders)) if not _is_text(path)]
    if strange:
        raise UserError(f"{tree.where}: names that are not UTF-8: {some([ascii(path) for path in strange])}.")
    misplaced = [path for path in inside if path.count("/") != 2]
    if misplaced:
        raise UserError(f"{tree.where}: images at another depth: {some(misplaced)}. {LAYOUT}")
    classes = sorted(folders | {path.split("/")[1] for path in inside})
    filled = {path.split("/")[1] for path in inside}
    empty = [name for name in classes if name not in filled]
    if empty:
        raise UserError(
            f"{tree.where}: no images in class folder {some([f'{split}/{name}' for name in empty])}. "
            f"Fill or remove it; images end in {' '.join(SUFFIXES)}."
        )
    if len(classes) < 2:
        raise UserError(
            f"{tree.where}: split '{split}' has only the class '{classes[0]}'. {LAYOUT} At least two classes."
        )
    number = {name: label for label, name in enumerate(classes)}
    labels = np.array([number[path.split("/")[1]] for path in inside], dtype=np.int32)
    return Listing(f"{tree.where}:{split}", tuple(classes), inside, labels, [tree.files[path] for path in inside])


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
