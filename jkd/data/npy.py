"""npz files that nobody vouches for: no pickles, and no more memory than the file earns.

Every array's header is read and compared with what its member really holds before its body is.
"""

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import IO, Any

import numpy as np

from jkd import places
from jkd.errors import UserError
from jkd.places import Path

RATIO = 200  # times its packed size that an array may unpack to
SMALL = 2**27  # bytes of those that may unpack to more, all of a file together
DIRECTORY = 2**20  # most bytes of a zip's directory: some 10,000 arrays
# What zipfile and numpy raise for broken files: numpy reads a header as a Python literal, zipfile guesses.
BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    tokenize.TokenError,
    EOFError,
    ValueError,
    SyntaxError,
    TypeError,
    KeyError,
    OverflowError,
    NotImplementedError,
    RecursionError,
    RuntimeError,
    MemoryError,
)


def read_npz(
    path: Path, most: int, wanted: Callable[[list[str]], Sequence[str]] = lambda names: names
) -> dict[str, np.ndarray]:
    """Arrays by name.

    Args:
      path: an npz file.
      most: bytes that all of them may take.
      wanted: from the names in the file to those to read.

    Raises:
      UserError: not an npz, damaged, pickled objects, headers that lie, or too large.
    """
    try:
        with places.open_read(path) as file, _opened(file) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            chosen = [members[name] for name in wanted(sorted(members))]
            sizes = [_claimed(archive, info, path) for info in chosen]
            total, thin = sum(sizes), sum(size for size, info in zip(sizes, chosen, strict=True) if _is_thin(info))
            if thin > SMALL:
                raise UserError(f"{path}: its arrays would unpack to {thin} bytes from {places.size(path)}. Refused.")
            if total > most:
                raise UserError(
                    f"{path}: its arrays claim {total} bytes, over {most / 2**30:g} GiB. Cut it, or use files."
                )
            return {info.filename.removesuffix(".npy"): _read(archive, info) for info in chosen}
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}). Check it and its permissions.") from None
    except BROKEN as error:
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"{path} is not a readable npz of plain arrays ({what}). Write it with numpy.savez.") from None


def _opened(file: IO[bytes]) -> zipfile.ZipFile:
    """The archive; a `ValueError` where its directory is too large, of which each byte takes ten in memory."""
    record: Any = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # None of what is no zip, or its size sixth
    if record is not None and record[5] > DIRECTORY:
        raise ValueError(f"its directory has {record[5]} bytes, over {DIRECTORY}")
    return zipfile.ZipFile(file)


def _claimed(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> int:
    """Bytes of an array by its header, which must agree with the size in the zip's directory."""
    if info.file_size > SMALL and _is_thin(info):
        raise UserError(
            f"{path}: {info.filename} would unpack to {info.file_size} bytes from {info.compress_size}. Refused."
        )
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
        start = stream.tell()
    if dtype.hasobject:
        raise UserError(
            f"{path}: {info.filename} holds pickled Python objects, which are never loaded: they can run code. Where "
            "you trust the file, load it in Python and write plain numbers and texts again with numpy.savez."
        )
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or info.file_size != start + size:
        raise UserError(
            f"{path}: {info.filename} claims {size} bytes, but has {info.file_size - start}. Write it anew."
        )
    return size


def _is_thin(info: zipfile.ZipInfo) -> bool:
    """Whether a member unpacks to more than arrays of measurements do."""
    return info.file_size > RATIO * info.compress_size


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)
