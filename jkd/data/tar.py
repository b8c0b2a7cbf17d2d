"""Image tars read as streams of bytes: nothing is ever extracted to disk, and nothing in them is trusted."""

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jkd import places
from jkd.data.listing import Blob, InFile, InMemory, Tree, is_image
from jkd.data.sources import LOAD_BYTES
from jkd.errors import UserError, some
from jkd.places import Path

SUFFIXES = (".tar.gz", ".tgz", ".tar")
MEMBERS = 20_000_000  # more than ImageNet-21k has; each takes some hundred bytes of memory
RATIO, SMALL = (
    100,
    2**26,
)  # a compressed tar may unpack to SMALL bytes, or to RATIO times its size: images hardly shrink


def is_tar(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def scan(path: Path, splits: tuple[str, ...], max_bytes: int) -> Tree:
    """Lists the images of the wanted splits; a compressed tar's are read into memory on the way.

    Args:
      path: a .tar, .tar.gz or .tgz file.
      splits: top-level folders to take.
      max_bytes: most bytes of one image.

    Raises:
      UserError: not a tar, truncated, unsafe members (links, devices, absolute paths, `..`), the same name
        twice, or more than fits in memory.
    """
    tree = Tree(str(path))
    unsafe: list[str] = []
    held = 0
    with _opened(path, max_bytes) as (archive, guard, compressed):
        count = 0
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every one
            count += 1
            if count > MEMBERS:
                raise UserError(f"{path}: over {MEMBERS} members. Pack the images into several tars, one a split.")
            name = member.name.rstrip("/")
            parts = [part for part in name.split("/") if part not in ("", ".")]
            if name.startswith("/") or ".." in parts or not _plain(member):
                unsafe.append(name)
                continue
            if not parts:
                continue
            tree.top.add(parts[0])
            if parts[0] not in splits:
                continue
            if member.isdir():
                tree.folders.add("/".join(parts))
            elif is_image(name):
                place = "/".join(parts)
                if place in tree.files:
                    raise UserError(f"{path}: two files are named {place}. Make the tar again.")
                if member.size > max_bytes:
                    raise UserError(f"{path}: {place} has {member.size} bytes, too many for data.max_pixels.")
                held += member.size if compressed else 0
                if held > LOAD_BYTES:
                    raise UserError(f"{path}: over {LOAD_BYTES >> 30} GiB of images. Unpack it, or use a plain .tar.")
                tree.files[place] = _blob(archive, member, path, compressed)
        guard.expect_end(archive.offset)
    if unsafe:
        raise UserError(
            f"{path}: {len(unsafe)} unsafe members (links, devices, set-user-ID, absolute paths or '..'): "
            f"{some([ascii(name) for name in unsafe])}. Make the tar again from plain files."
        )
    return tree


def _plain(member: tarfile.TarInfo) -> bool:
    """A folder, or a file that would not run as somebody else."""
    return member.isdir() or (member.isfile() and not member.mode & 0o6000)


def _blob(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path, compressed: bool) -> Blob:
    if not compressed and not member.sparse:
        return InFile(str(path), member.offset_data, member.size)
    file = archive.extractfile(member)
    data = file.read() if file else b""
    if len(data) != member.size:
        raise tarfile.ReadError("unexpected end of data")
    return InMemory(data)


class _Guard:
    """A file that refuses single reads no honest tar header asks for, stops at a bomb, and checks how the archive ends.

    Args:
      file: the archive's bytes, unpacked on the way where it is compressed.
      most: most bytes of a read.
      budget: most bytes of the whole.
    """

    def __init__(self, file: io.BufferedIOBase, most: int, budget: int) -> None:
        self._file = file
        self._most = most
        self._budget = budget

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self._most:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        self._within(self._file.tell() + size)
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """To an absolute offset, as tarfile does; what lies before it must be unpacked."""
        self._within(offset)
        return self._file.seek(offset, whence)

    def _within(self, offset: int) -> None:
        if offset > self._budget:
            raise tarfile.ReadError(f"it would unpack to over {self._budget} bytes")

    def tell(self) -> int:
        return self._file.tell()

    def expect_end(self, offset: int) -> None:
        """Reading must have stopped at the end mark; the rest of a gzip is read for its checksum."""
        self._file.seek(offset)
        if self._file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end mark where reading stopped")
        if isinstance(self._file, gzip.GzipFile):
            rest = 0
            while piece := self._file.read(2**20):
                rest += len(piece)
                if rest > 2**26:
                    raise tarfile.ReadError("more than 64 MiB after the end mark")


@contextmanager
def _opened(path: Path, most: int) -> Iterator[tuple[tarfile.TarFile, _Guard, bool]]:
    """The archive, its guard, whether it is compressed; whatever is wrong becomes one `UserError`."""
    try:
        with places.open_read(path) as raw:
            start = raw.read(512)
            raw.seek(0)
            compressed = start[:2] == b"\x1f\x8b"
            named_gz = path.name.lower().endswith("gz")
            if not compressed and (named_gz or start[257:262] != b"ustar"):
                raise UserError(
                    f"{path}: expected a {'gzipped tar' if named_gz else 'tar'}, but it starts with "
                    f"{start[:24]!r}. Give a .tar, .tar.gz or .tgz of <split>/<class>/<file>."
                )
            file: Any = gzip.GzipFile(fileobj=raw) if compressed else raw
            packed = places.size(path)
            guard = _Guard(file, most, max(SMALL, RATIO * packed) if compressed else packed + tarfile.RECORDSIZE)
            with tarfile.open(fileobj=guard, mode="r:") as archive:  # type: ignore[call-overload]
                yield archive, guard, compressed
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, ValueError, OverflowError) as error:
        raise UserError(f"{path}: the tar is truncated or damaged ({error}). Copy or make it again.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from None
