"""Encoded images to a source: decoded once into memory where they fit, when asked for where they do not.

A set of up to 2 GiB of pixels becomes one uint8 array, so a batch is a copy. Of a larger set every file is
read once at the start, for its header and its digest; a body that turns out broken later ends the run with
the file's name. Grey images keep one channel if all of them are grey, otherwise all become RGB.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np
from jaxtyping import Integer, UInt8

from jkd.data.decode import Rules, Unreadable, decode, header
from jkd.data.listing import Blob, Listing
from jkd.data.sources import IN_MEMORY_BYTES, ArraySource, fingerprint_of, keep
from jkd.errors import UserError, some


class EncodedSource:
    """A source too large to hold decoded: reads and decodes what is asked for."""

    kind = "images"
    counts: Mapping[str, int] = MappingProxyType({})
    in_memory = False

    def __init__(
        self,
        listing: Listing,
        rules: Rules,
        shape: tuple[int, ...],
        digests: Sequence[str],
        skipped: Sequence[tuple[str, str]],
    ) -> None:
        self.name = listing.name
        self.classes = listing.classes
        self.labels = listing.labels
        self.shape: tuple[int, ...] = shape
        self.skipped = tuple(skipped)
        self._listing = listing
        self._rules = rules
        self._digests = list(digests)

    def __len__(self) -> int:
        return len(self._listing.ids)

    def id(self, index: int) -> str:
        return self._listing.ids[int(index)]

    def images(self, index: Integer[np.ndarray, " n"]) -> UInt8[np.ndarray, "n h w c"]:
        pixels = np.empty((len(index), *self.shape), np.uint8)
        for row, i in enumerate(index):
            try:
                data = unchanged(self._listing.blobs[int(i)].read(), self._digests[int(i)])
                image = decode(data, self._rules)
            except Unreadable as why:
                raise UserError(f"{self.name}: {self.id(int(i))} {why}. Replace or remove it.") from None
            if image.shape[:2] != self.shape[:2]:
                raise UserError(f"{self.name}: {self.id(int(i))} is {image.shape[:2]}, unlike its header.")
            pixels[row] = image
        return pixels

    @cached_property
    def fingerprint(self) -> str:
        kind = ["files", *self.shape, self._rules.image_size]
        return fingerprint_of(self._listing.ids, self.labels, [kind, self._digests])

    def as_rgb(self) -> "EncodedSource":
        """The same files decoded to three channels."""
        return EncodedSource(self._listing, self._rules, (*self.shape[:2], 3), self._digests, self.skipped)


def load(
    listing: Listing, rules: Rules, *, broken: str, broken_limit: float, limit: int
) -> ArraySource | EncodedSource:
    """A source of the listed images.

    Args:
      listing: ids, labels and encoded bytes.
      rules: how to decode.
      broken: `refuse` unreadable images, or `skip` and list them.
      broken_limit: share of the images that may be skipped.
      limit: keep so many by hash order of ids, before any is decoded (so skipped ones are not made up for); 0
        = all.

    Raises:
      UserError: unreadable images under `refuse`, more than `broken_limit` of them under `skip`, nothing readable, or
        images of several sizes.
    """
    listing = take(listing, keep(listing.ids, limit))
    allowed = int(broken_limit * len(listing.ids)) if broken == "skip" else None
    height, width = _first_size(listing, rules)
    if len(listing.ids) * height * width * 3 <= IN_MEMORY_BYTES:
        return _decoded(listing, rules, allowed)
    return _on_demand(listing, rules, allowed)


def _decoded(listing: Listing, rules: Rules, allowed: int | None) -> ArraySource:
    images, good, skipped = sift(listing, allowed, lambda data: decode(data, rules))
    good_listing = take(listing, good)
    shape = _one_size(good_listing, [image.shape for image in images])
    pixels = np.empty((len(images), *shape), np.uint8)
    for row, image in enumerate(images):
        pixels[row] = image  # a grey image among RGB ones is repeated over the channels
        images[row] = None  # let it go, so that the peak stays near one copy
    return ArraySource(listing.name, listing.classes, good_listing.ids, good_listing.labels, pixels, skipped)


def _on_demand(listing: Listing, rules: Rules, allowed: int | None) -> EncodedSource:
    heads, good, skipped = sift(listing, allowed, lambda data: (header(data, rules), hashlib.sha256(data).hexdigest()))
    good_listing = take(listing, good)
    shape = _one_size(good_listing, [(h, w, 1 if grey else 3) for (h, w, grey), _ in heads])
    return EncodedSource(good_listing, rules, shape, [sha for _, sha in heads], skipped)


def unchanged(data: bytes, sha: str) -> bytes:
    """The bytes of a file that is read again, if they are still those whose SHA-256 the run goes by.

    Raises:
      Unreadable: they are not.
    """
    if hashlib.sha256(data).hexdigest() != sha:
        raise Unreadable("has changed since the run began")
    return data


@dataclass(frozen=True)
class Sized:
    """A blob whose image must have the size that its annotation claims."""

    blob: Blob
    size: tuple[int, int]
    rules: Rules

    def read(self) -> bytes:
        data = self.blob.read()
        found = header(data, self.rules)[:2]
        if found != self.size:
            claims, is_of = ("x".join(map(str, size)) for size in (self.size, found))
            raise Unreadable(f"is {is_of} (height x width), but its annotation is for {claims}")
        return data


def sift(
    listing: Listing, allowed: int | None, look: Callable[[bytes], object]
) -> tuple[list, np.ndarray, list[tuple[str, str]]]:
    """Applies `look` to all images: its results, the indices it could read, `(id, why)` of the others.

    Of these there may be `allowed`; None allows none and says so in other words.
    """
    seen: list = []
    good: list[int] = []
    bad: list[tuple[str, str]] = []
    for index, blob in enumerate(listing.blobs):
        try:
            seen.append(look(_read(blob)))
            good.append(index)
        except Unreadable as why:
            bad.append((listing.ids[index], str(why)))
    named = some([f"{name} {why}" for name, why in bad])
    if bad and allowed is None:
        raise UserError(
            f"{listing.name}: {len(bad)} of {len(listing.ids)} images cannot be read: {named}. Repair them, or set "
            "data.broken='skip'."
        )
    if not good:
        raise UserError(f"{listing.name}: none of {len(bad)} images can be read: {named}.")
    if allowed is not None and len(bad) > allowed:
        raise UserError(
            f"{listing.name}: {len(bad)} of {len(listing.ids)} images cannot be read, and data.broken_limit lets "
            f"{allowed} be skipped: {named}. Repair them, or raise data.broken_limit."
        )
    return seen, np.array(good), bad


def _read(blob: Blob) -> bytes:
    try:
        return blob.read()
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror or error})") from None


def _first_size(listing: Listing, rules: Rules) -> tuple[int, int]:
    """Height and width of the first readable image, which speaks for all; (0, 0) when there is none."""
    for blob in listing.blobs:
        try:
            return header(_read(blob), rules)[:2]
        except Unreadable:
            continue
    return 0, 0


def _one_size(listing: Listing, shapes: Sequence[tuple[int, ...]]) -> tuple[int, int, int]:
    """The shape of all images, or a `UserError` naming some that differ from the first."""
    height, width = shapes[0][:2]
    other = [
        f"{name} ({shape[0]}x{shape[1]})"
        for name, shape in zip(listing.ids, shapes, strict=True)
        if shape[:2] != (height, width)
    ]
    if other:
        raise UserError(
            f"{listing.name}: {listing.ids[0]} is {height}x{width}, but {len(other)} differ: {some(other)}. "
            "Set data.image_size to resize them all."
        )
    return height, width, max(shape[2] for shape in shapes)


def take(listing: Listing, index: np.ndarray) -> Listing:
    if len(index) == len(listing.ids):
        return listing
    return replace(
        listing,
        ids=[listing.ids[int(i)] for i in index],
        labels=listing.labels[index],
        blobs=[listing.blobs[int(i)] for i in index],
    )
