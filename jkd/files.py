"""Writing so that a reader sees all of a file or none of it, and locks that survive a killed owner.

Paths may also be those of an object store (`jkd.places`). A write there is one whole object, and there are no locks:
two processes that make one part make the same bytes, twice.
"""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np

from jkd import places
from jkd.errors import Locked, UserError
from jkd.places import Path

HOST = socket.gethostname()
POLL = 0.2  # seconds between two tries for a lock


def write_bytes(path: Path, data: bytes) -> None:
    """Writes to a neighbour, syncs, renames. A kill or a full disk leaves the old file as it was."""
    if places.is_remote(path):
        return places.write_whole(path, data)
    make_folder(path.parent)
    draft = path.with_name(f".{path.name}.{HOST}.{os.getpid()}.tmp")
    try:
        with open(draft, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}. Free space or check permissions.") from None
    finally:
        draft.unlink(missing_ok=True)


def remove_drafts(folder: Path) -> None:
    """Removes what killed processes had begun to write; only for who holds the folder's lock."""
    for draft in () if places.is_remote(folder) else folder.glob(".*.tmp"):
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
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """Reads JSON; a missing or broken file is a `UserError` that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing.") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}). Delete it and run again.") from None


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes named arrays as safetensors, atomically."""
    from safetensors.numpy import save

    write_bytes(path, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads a safetensors file; no code runs, and a malformed file is a `UserError` that names it."""
    from safetensors import SafetensorError
    from safetensors.numpy import load, load_file

    try:
        return load(path.read_bytes()) if places.is_remote(path) else load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing.") from None
    except (SafetensorError, ValueError, OSError, KeyError) as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}). Make or copy it again.") from None


@contextlib.contextmanager
def lock(folder: Path, what: str, wait: bool = False, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Holds `folder/.lock` while the body runs.

    An `flock`: the kernel releases it when its owner dies, so a killed run leaves nothing stale behind. An object store
    has none: there, the body runs at once, and whoever shares a workdir shares it out by `--only`.

    Args:
      folder: made if it is not there.
      what: names the part in messages.
      wait: whether to wait for another holder to finish; otherwise `Locked` is raised, naming it.
      waiting: told the holder now and then while waiting; what it raises ends the wait.

    Raises:
      Locked: another process holds it.
      UserError: no lock can be made here.
    """
    if places.is_remote(folder):
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
