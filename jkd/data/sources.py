"""What a data source is: samples by index, in a stable order, with stable ids and a fingerprint."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32, Integer, UInt8

from jkd import digest
from jkd.errors import UserError

# Decoded pixels kept in memory up to here; larger sets are decoded when asked for.
IN_MEMORY_BYTES = 2 * 2**30
# What one file may make jkd hold at once, whatever its header says.
LOAD_BYTES = 8 * 2**30


@runtime_checkable
class Source(Protocol):
    """Random access to labelled samples in a stable order.

    Attributes:
      name: what a message calls it.
      kind: `images` or `texts`: the method that gives them; `objects`: `images`, and `boxes` beside them.
      classes: class names, in label order.
      shape: height, width, channels of every image; `()` of texts.
      labels: int32 `[N]`, -1 where a sample has no label.
      skipped: `(id, why)` of the samples left out.
      counts: how many samples each of the source's rules touched, by rule.
      in_memory: whether a sample is a mere copy; if not, it is read and decoded from files.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    labels: np.ndarray
    skipped: tuple[tuple[str, str], ...]
    counts: Mapping[str, int]
    in_memory: bool

    def __len__(self) -> int: ...

    def id(self, index: int) -> str:
        """The sample's stable id, such as `train/cat/0001.jpg`."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 of ids, labels and contents."""
        ...


@runtime_checkable
class ImageSource(Source, Protocol):
    """A source of images of one size."""

    def images(self, index: Integer[np.ndarray, " n"]) -> UInt8[np.ndarray, "n h w c"]:
        """The images at `index`, in that order."""
        ...


class ArraySource:
    """A source whose images are one uint8 array in memory."""

    kind = "images"
    counts: Mapping[str, int] = MappingProxyType({})
    in_memory = True

    def __init__(
        self,
        name: str,
        classes: Sequence[str],
        ids: Sequence[str],
        labels: Integer[np.ndarray, " n"],
        pixels: UInt8[np.ndarray, "n h w c"],
        skipped: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.name = name
        self.classes = tuple(classes)
        self.labels = np.asarray(labels, np.int32)
        self.skipped = tuple(skipped)
        self.shape: tuple[int, ...] = tuple(pixels.shape[1:])
        self._ids = list(ids)
        self._pixels = pixels
        if not len(self._ids) == len(self.labels) == len(pixels):
            raise ValueError(f"{len(self._ids)} ids, {len(self.labels)} labels, {len(pixels)} images")

    def __len__(self) -> int:
        return len(self._ids)

    def id(self, index: int) -> str:
        return self._ids[int(index)]

    def images(self, index: Integer[np.ndarray, " n"]) -> UInt8[np.ndarray, "n h w c"]:
        return self._pixels[index]

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint_of(self._ids, self.labels, digest.of_array(self._pixels))

    def take(self, index: Integer[np.ndarray, " n"]) -> "ArraySource":
        """The same source with only the samples at `index`."""
        ids = [self._ids[int(i)] for i in index]
        return ArraySource(self.name, self.classes, ids, self.labels[index], self._pixels[index], self.skipped)

    def as_rgb(self) -> "ArraySource":
        """Grey images repeated over three channels; others as they are."""
        if self.shape[2] != 1:
            return self
        pixels = np.repeat(self._pixels, 3, axis=3)
        return ArraySource(self.name, self.classes, self._ids, self.labels, pixels, self.skipped)


def fingerprint_of(ids: Sequence[str], labels: Int32[np.ndarray, " n"], contents: Any) -> str:
    """SHA-256 of ids, labels and whatever JSON value stands for the contents."""
    return digest.of_json([digest.of_json(list(ids)), digest.of_array(labels), contents])


def hash_order(ids: Sequence[str], salt: str) -> np.ndarray:
    """Indices sorted by SHA-256 of (salt, id), int64 `[N]`: a fixed order that no file system, seed or run
    changes.

    Samples taken from its front stay the same ones when others are added or removed.
    """
    keys = [hashlib.sha256(f"{salt}\n{name}".encode()).digest() for name in ids]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)


def keep(ids: Sequence[str], limit: int) -> np.ndarray:
    """Sorted indices of the `limit` samples that come first in hash order; all of them for 0, int64 `[n]`."""
    if not 0 < limit < len(ids):
        return np.arange(len(ids))
    return np.sort(hash_order(ids, "limit")[:limit])


def check_pixels(height: int, width: int, max_pixels: int, where: str) -> None:
    """Refuses, before anything is decoded, an image or array that claims too many pixels."""
    if height * width > max_pixels:
        raise UserError(
            f"{where}: images claim {height}x{width} pixels, over data.max_pixels={max_pixels}. "
            "Raise it if that is meant."
        )
