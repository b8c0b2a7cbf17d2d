"""Paths of the local disk and of object stores (`gs://bucket/run`), with one set of methods.

A local path is a `pathlib.Path`, any other an `etils.epath.Path`, which has the same methods. Text becomes one or the
other here and nowhere else: `pathlib.Path("gs://...")` would quietly be a folder named `gs:`. What the two cannot do
alike is here, too. An object store has no append, no rename and no lock: an object is written whole, which is atomic.
"""

import contextlib
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from etils import epath

from jkd.errors import UserError

if TYPE_CHECKING:  # where epath's class counts as one of pathlib's, whose methods it has
    Path = pathlib.Path
else:
    Path = pathlib.Path | epath.Path
REWRITE_EVERY = 1.0  # seconds; stores refuse to have one object written much more often


def path_of(place: str | os.PathLike[str]) -> Path:
    """The path that a text names, `runs/digits` or `gs://bucket/run`; a path stays what it is."""
    text = os.fspath(place)
    return epath.Path(text) if "://" in text else pathlib.Path(text)


def is_remote(path: Path) -> bool:
    """Whether a path is of an object store."""
    return isinstance(path, epath.Path)


def absolute(path: Path) -> Path:
    """A path that does not depend on the current folder."""
    return path if is_remote(path) else path.absolute()


def exists(path: Path) -> bool:
    """Whether there is anything.

    Raises:
      UserError: the store cannot be asked: a package or a permission is missing.
    """
    try:
        return path.exists()
    except Exception as error:
        if is_remote(path):  # each store has exceptions of its own
            raise UserError(f"{path} cannot be reached ({_short(error)}). Install or allow that first.") from None
        raise


def write_whole(path: Path, data: bytes) -> None:
    """Writes an object of a store: readers see all of it or what was there before.

    Raises:
      UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except Exception as error:
        raise UserError(f"cannot write {path}: {_short(error)}. Check the store's permissions.") from None


def open_read(path: str | Path) -> IO[bytes]:
    """Opens a file to read bytes, anywhere in it."""
    path = path_of(path)
    return path.open("rb")


def size(path: Path) -> int:
    """Bytes of a file."""
    found: Any = path.stat()
    return found.length if is_remote(path) else found.st_size


def is_link(path: Path) -> bool:
    """Whether a path is a symbolic link; an object store has none."""
    return not is_remote(path) and path.is_symlink()


def files_below(path: Path) -> list[Path]:
    """Every file below a folder, and every link, whatever it points to, sorted."""
    if is_remote(path):
        walked: Any = path
        return sorted(folder / name for folder, _, names in walked.walk() for name in names)
    return sorted(entry for entry in path.rglob("*") if entry.is_file() or entry.is_symlink())


def remove_tree(path: Path) -> None:
    """Removes a folder and all below it; none there, or one that will not go, is no error."""
    if is_remote(path):
        with contextlib.suppress(OSError):
            path.rmtree()  # type: ignore[attr-defined]
    else:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def local(path: str | Path) -> Iterator[pathlib.Path]:
    """The file itself, or, while the body runs, a copy on the local disk, for readers that know no other."""
    path = path_of(path)
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / path.name
        with open_read(path) as source, open(copy, "wb") as target:
            shutil.copyfileobj(source, target, 2**24)
        yield copy


class Rewritten:
    """Bytes added to an object of a store, which cannot be appended to: all of it is kept, and written anew.

    Not with every `write`, but once in `REWRITE_EVERY` seconds, or in twenty times as long as the last time took, with
    `flush`, and at the end; a kill may cost what was added since.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._data = bytearray(path.read_bytes() if path.exists() else b"")
        self._behind = False
        self._due = 0.0

    def write(self, data: bytes | memoryview) -> int:
        """Adds to the end."""
        self._data += data
        self._behind = True
        if time.monotonic() >= self._due:
            self._rewrite()
        return len(data)

    def flush(self) -> None:
        """Writes what is not written yet."""
        if self._behind:
            self._rewrite()

    def close(self) -> None:
        """Writes what is not written yet."""
        self.flush()

    def _rewrite(self) -> None:
        started = time.monotonic()
        write_whole(self._path, bytes(self._data))
        now = time.monotonic()
        self._behind, self._due = False, now + max(REWRITE_EVERY, 20 * (now - started))


def _short(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
