"""Writing so that a reader sees all of a file or none of it, and locks that survive a killed owner.

Paths may also be those of an object store (`jkd.places`). A write there is one whole object, and there are no locks:
two processes that make one part make the same bytes, twice.
"""

import contextlib
import errno
import fcntl
import json
import math
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import IO, Any, TypeVar

import numpy as np

from jkd import digest, places, processes
from jkd.errors import Damaged, Locked, UserError
from jkd.places import Path

HOST = socket.gethostname()
POLL = 0.2  # seconds between two tries for a lock
PASSING = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO)  # what a network file system gets over
PAUSES = (0.1, 0.4, 1.6)  # seconds before another try

HEADER = 2**21  # most bytes of a safetensors header: some 20,000 arrays
JSON = 2**24  # most bytes of a JSON file that comes from elsewhere
VALUES, EACH = 2**20, 16  # most values of a JSON file, or one in EACH bytes of a larger one: one may take 100 bytes

T = TypeVar("T")


def retried(action: Callable[[], T]) -> T:
    """What `action` returns. Errors of storage that may pass are waited for, three times; then, as any other, raised.

    The one place where jkd tries again. `action` must be safe to repeat.
    """
    for pause in PAUSES:
        try:
            return action()
        except OSError as error:
            if error.errno not in PASSING:
                raise
        time.sleep(pause)
    return action()


def write_bytes(path: Path, data: bytes) -> None:
    """Writes to a neighbour, syncs, renames. A kill or a full disk leaves the old file as it was.

    Of several processes the first alone writes.
    """
    if not processes.first():
        return
    if places.is_remote(path):
        return places.write_whole(path, data)
    make_folder(path.parent)
    draft = path.with_name(f".{path.name}.{HOST}.{os.getpid()}.tmp")

    def write() -> None:
        with open(draft, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)

    try:
        retried(write)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}. Free space or check permissions.") from None
    finally:
        with contextlib.suppress(OSError):  # a file system gone read-only has nothing to tidy up
            draft.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Writes and removes a file in `folder`, so that a full, read-only or foreign one is found before hours of work.

    Raises:
      UserError: naming the folder and why nothing can be written.
    """
    make_folder(folder)
    probe = folder / f".probe.{HOST}.{os.getpid()}.tmp"
    write_bytes(probe, bytes(4096))
    probe.unlink(missing_ok=True)


def appender(path: Path) -> "IO[bytes] | places.Rewritten":
    """A file to append to; what is written lies in the file at once, not in a buffer. Not so in an object store."""
    if places.is_remote(path):
        return places.Rewritten(path)
    try:
        return open(path, "ab", buffering=0)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}. Free space or check permissions.") from None


def append(file: "IO[bytes] | places.Rewritten", data: bytes) -> None:
    """Adds all of `data` to what `appender` opened: a disk that is nearly full takes a part without a word.

    Raises:
      UserError: there is no space, or the file cannot be written any more.
    """
    left = memoryview(data)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"cannot write {file.name}: {why}. Free space or check permissions.") from None


def remove_drafts(folder: Path) -> None:
    """Removes what killed processes had begun to write; only for who holds the folder's lock."""
    if not processes.first() or places.is_remote(folder):
        return
    for draft in folder.glob(".*.tmp"):
        draft.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it; a file in the way or a missing permission is a `UserError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the folder {folder}: {error.strerror or error}. Choose another --workdir."
        ) from None


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON with sorted keys, atomically. NaN is refused: use null for 'not measured'."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """What `write_json` writes: equal values give equal bytes."""
    return "".join(_encoded(value)).encode()


def _encoded(value: Any) -> Iterator[str]:
    yield from json.JSONEncoder(indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False).iterencode(value)
    yield "\n"


def write_signed(path: Path, value: dict[str, Any]) -> None:
    """Writes JSON with its own `digest`, atomically."""
    write_json(path, digest.signed(value))


def read_signed(path: Path, remedy: str = "Delete its folder to make it again.") -> dict[str, Any]:
    """Reads what `write_signed` wrote; one of which any byte is not what was saved is a `Damaged` that names it."""
    data = _bytes_of(path)
    value = _parsed(path, data)
    if not isinstance(value, dict) or not _is_signed(value) or not _writes(value, data):
        raise Damaged(f"{path} is damaged: it is not what its digest says. {remedy}")
    return value


def _is_signed(value: dict[str, Any]) -> bool:
    try:
        return value == digest.signed(value)
    except RecursionError:  # deeper than any program of ours wrote
        return False


def _writes(value: dict[str, Any], data: bytes) -> bool:
    """Whether a value would be written as `data`: so not even a changed blank goes unnoticed.

    Compared piece by piece: indented, a small file of deep lists would be written as gigabytes.
    """
    at = 0
    try:
        for piece in (text.encode() for text in _encoded(value)):
            if not data.startswith(piece, at):
                return False
            at += len(piece)
    except (ValueError, RecursionError):  # half a surrogate pair, or a depth, which no program of ours wrote
        return False
    return at == len(data)


def read_json(path: Path, most: int | None = None) -> Any:
    """Reads JSON; a missing or broken file, or one that gives a key twice, is a `UserError` that names it.

    So is one of over `most` bytes, which is not read, and one of so many values that they would fill the memory.
    """
    if most is not None and path.is_file() and places.size(path) > most:
        raise UserError(f"{path} has {places.size(path)} bytes; expected at most {most}. Is it the right file?")
    return _parsed(path, _bytes_of(path))


def _bytes_of(path: Path) -> bytes:
    try:
        return retried(path.read_bytes)
    except FileNotFoundError:
        raise UserError(f"{path} is missing.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}). Check it and its permissions.") from None


def decoder() -> json.JSONDecoder:
    """Of JSON that gives no key twice, and no number that JSON has not: a `ValueError` each."""
    return json.JSONDecoder(object_pairs_hook=_object, parse_float=_number, parse_constant=_number)


def _parsed(path: Path, data: bytes) -> Any:
    values, most = _values(data), max(VALUES, len(data) // EACH)
    if values > most:
        raise Damaged(
            f"{path} is not JSON that jkd reads: {values} values in {len(data)} bytes, over {most}. Check that it is "
            "the right file, or delete it and run again."
        )
    try:
        return json.loads(data.decode(), object_pairs_hook=_object, parse_float=_number, parse_constant=_number)
    except RecursionError:
        raise Damaged(f"{path} is not valid JSON (nested too deeply). Delete it and run again.") from None
    except ValueError as error:  # of the encoding, the syntax, or a number of thousands of digits
        raise Damaged(f"{path} is not valid JSON ({error}). Delete it and run again.") from None


def _values(data: bytes) -> int:
    """How many values and keys JSON has at most. Marks within texts count, too: one pass would else not do."""
    return sum(data.count(mark) for mark in (b"[", b"{", b",", b":"))


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number that JSON knows")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        times = Counter(key for key, _ in pairs)
        twice = next(key for key in times if times[key] > 1)
        raise ValueError(f"the key {twice!r} comes up twice")
    return made


def check_header(path: Path) -> None:
    """Refuses, with a `ValueError`, a safetensors file that names an array twice, which its own reader lets pass.

    So it does one whose header is too large or no JSON. To be called before the reader opens the file: of each byte of
    a header it makes sixteen in memory. Whatever else may be wrong is left for it to find.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > HEADER:
            raise ValueError(f"its header has {length} bytes, over {HEADER}")
        header = file.read(length)
    if len(header) == length:
        try:
            json.loads(header.decode(), object_pairs_hook=_object)
        except RecursionError:
            raise ValueError("its header is nested too deeply") from None


def write_arrays(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    """Writes named arrays as safetensors, atomically; `metadata` goes into the header."""
    from safetensors.numpy import save

    write_bytes(path, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata))


def read_arrays(path: Path, sha256: str | None = None) -> dict[str, np.ndarray]:
    """Reads a safetensors file; no code runs, and a malformed file is a `UserError` that names it.

    With `sha256`, the `digest.of_tree` of what was written, arrays that are not these are a `Damaged`.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        with places.local(path) as here:
            check_header(here)
            arrays = retried(lambda: load_file(here))
    except FileNotFoundError:
        raise UserError(f"{path} is missing.") from None
    except (SafetensorError, ValueError, TypeError, OSError, KeyError) as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}). Make or copy it again.") from None
    if sha256 is not None and digest.of_tree(arrays) != sha256:
        raise Damaged(
            f"{path} is damaged: it is not what result.json says. Delete {path.parent} to make this part again."
        )
    return arrays


@contextlib.contextmanager
def lock(folder: Path, what: str, wait: bool = False, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Holds `folder/.lock` while the body runs.

    An `flock`: the kernel releases it when its owner dies, so a killed run leaves nothing stale behind. Of several
    processes that compute one run, the first holds it for all. An object store has no locks: there, the body runs at
    once, and whoever shares a workdir shares it out by `--only`.

    Args:
      folder: made if it is not there.
      what: names the part in messages.
      wait: whether to wait for another holder to finish; otherwise `Locked` is raised, naming it.
      waiting: told the holder now and then while waiting; what it raises ends the wait.

    Raises:
      Locked: another process holds it.
      UserError: no lock can be made here.
    """
    if not processes.first() or places.is_remote(folder):
        yield
        return
    make_folder(folder)
    with _lock_file(folder) as file:
        while not _taken(file, folder):
            file.seek(0)
            holder = file.read() or "another process"
            if not wait:
                raise Locked(f"{what} is being made by {holder} ({folder}).")
            if waiting:
                waiting(holder)
            time.sleep(POLL)
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {HOST}")
        file.flush()
        try:
            yield
        finally:
            file.seek(0)
            file.truncate()


def _lock_file(folder: Path) -> IO[str]:
    try:
        return open(folder / ".lock", "a+", encoding="utf-8")
    except OSError as error:
        raise _no_lock(folder, error) from None


def _taken(file: IO[str], folder: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # a file system without locks
        raise _no_lock(folder, error) from None
    return True


def _no_lock(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot lock {folder / '.lock'}: {error.strerror or error}. Check permissions, or choose a --workdir that can "
        "be written and locked."
    )
