"""Checkpoints: orbax writes them, SHA-256 digests say whether what is read back is what was written.

orbax commits atomically and survives a kill, but restores silently from a file with a flipped bit and casts types
without a word. So each committed checkpoint `STEP/` gets a sidecar `STEP.json`, and after it an empty file
`STEP/sealed`. With neither a checkpoint does not count: it is what a kill left of a save. Without the sidecar alone it
is damaged. The sidecar holds the digest of every file, compared before orbax reads a byte (some of its files do not
bear on any leaf, and no damaged one is parsed); the digest of every leaf as it was in memory, compared with what comes
back (so that a write that went wrong shows, too); and its own.
"""

import contextlib
import errno
import logging
import os
import warnings
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import serialization

from jkd import changes, digest, files, places, processes
from jkd.changes import Inputs
from jkd.errors import Damaged, Notice, UserError, some
from jkd.places import Path
from jkd.train.state import TrainState

KEEP = 2
KEYS = {"inputs", "made_of", "changes", "leaves", "files", "step", "record", "digest"}  # of a sidecar
SEALED = "sealed"  # says that there was a sidecar, which may get lost
FINAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)  # no use to try again


def save(folder: Path, state: TrainState, inputs: str, record: str = "") -> None:
    """Writes `state` as `folder/STEP`, then its sidecar, then removes all but the newest `KEEP`.

    Args:
      folder: of a part's checkpoints.
      state: to write.
      inputs: digest of what the part is made from.
      record: `Record.mark` of the part's record up to this step; '' where it has none.

    Raises:
      UserError: when the disk is full, read-only or failing; earlier checkpoints are left as they were.
    """
    tree = jax.tree.map(np.asarray, serialization.to_state_dict(state))
    step = int(tree["step"])
    target = places.absolute(folder) / str(step)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.retried(lambda: _write(target, tree))
        stored = {"inputs": inputs, "leaves": digest.of_leaves(tree), "files": _files(target), "step": step}
        stored["record"] = record
        stored |= {"made_of": getattr(inputs, "made_of", None), "changes": changes_of(folder, inputs, before=step)}
        files.write_signed(_sidecar(target), stored)
        (target / SEALED).touch()
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError):
            _remove(target)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(f"cannot save the checkpoint {target}: {reason}. Free space or check permissions.") from None
    _tidy(folder)


def _write(target: Path, tree: Any) -> None:
    """The checkpoint without its sidecar. Makes way first, so it can be tried again.

    Raises:
      OSError: whatever orbax and tensorstore raise. Only what a full or forbidden disk says is final: after one failed
        write others are still under way, and trip over each other and over the next try in many ways.
    """
    for stale in target.parent.glob("*.orbax-checkpoint-tmp*"):  # left by a kill while orbax was writing
        places.remove_tree(stale)
    _remove(target)  # left by a kill between the two writes, or found to be damaged
    try:
        with _quiet(), _checkpointer() as checkpointer:
            checkpointer.save(target, tree)
            checkpointer.wait_until_finished()
    except (OSError, ValueError) as error:  # tensorstore tells of the disk at the end of a page of paths
        logging.getLogger("asyncio").addFilter(_of_others)
        said = str(error)
        for number in FINAL:
            if os.strerror(number) in said:
                raise OSError(number, os.strerror(number).lower()) from None
        seen = os.strerror(errno.EIO)
        raise OSError(errno.EIO, seen if seen in said else f"{seen}: {said.splitlines()[0][:200]}") from None


def steps(folder: Path) -> list[int]:
    """The steps of the committed checkpoints, ascending; of each, folder or sidecar may be missing since."""
    names = {path.stem for path in folder.glob("*.json")} | {path.parent.name for path in folder.glob(f"*/{SEALED}")}
    return sorted(int(name) for name in names if name.isdigit())


def restore(folder: Path, like: TrainState, inputs: str) -> TrainState | None:
    """The newest sound checkpoint, or None when there is none at all.

    A damaged one is named in a warning and the one before it is tried. What a kill left of a save is removed, all else
    only once a sound one is read.

    Args:
      folder: where `save` wrote.
      like: a state of the expected structure, shapes and types.
      inputs: digest of what the part is made from; a checkpoint of other inputs is refused, unless it is an `Inputs`
        that allows all in which they differ.

    Raises:
      UserError: when nothing can be written here, or there are checkpoints and none is sound: training never restarts
        silently from step 0.
    """
    files.check_writable(folder)  # what could not be saved in hours is refused now
    files.remove_drafts(folder)
    problems, damaged = [], []
    for step in reversed(steps(folder)):
        try:
            state = read(folder / str(step), like, inputs)
        except UserError as error:
            problems.append(str(error))
            damaged += [step] if isinstance(error, Damaged) or not _sidecar(folder / str(step)).exists() else []
            continue
        if problems:
            warnings.warn(f"{' '.join(problems)} Going on from step {step}.", Notice, stacklevel=2)
        if processes.first():
            for later in damaged:  # or it would count as one of the newest, and push out a sound one
                _remove(folder / str(later))
            _tidy(folder)
        return state
    if problems:
        raise UserError(
            f"no sound checkpoint in {folder}: {' '.join(problems)} Delete the folder to start this part again."
        )
    if processes.first():
        _tidy(folder)
    return None


def read(path: Path, like: TrainState, inputs: str | None = None) -> TrainState:
    """One checkpoint, `folder/STEP`, checked file by file and leaf by leaf; of whatever inputs where none are given.

    Raises:
      Damaged: when it is not what was written.
      UserError: when it is not there, does not fit `like`, or was made from other inputs.
    """
    sidecar = sealed(path)
    if inputs is not None:
        _check_inputs(path, sidecar, inputs)
    try:
        there, written = files.retried(lambda: _files(path)), sidecar["files"]
    except OSError as error:
        raise UserError(f"checkpoint {path} cannot be read ({error.strerror or error}).") from None
    if changed := sorted(name for name in there | written if there.get(name) != written.get(name)):
        raise Damaged(f"checkpoint {path} is damaged: {some(changed)} differ from their SHA-256.")
    expected = jax.tree.map(np.asarray, serialization.to_state_dict(like))
    try:
        with _quiet(), _checkpointer() as checkpointer:
            restored = jax.tree.map(np.asarray, checkpointer.restore(places.absolute(path)))
    except Exception as error:  # orbax and tensorstore raise many kinds for a damaged file
        raise UserError(f"checkpoint {path} cannot be read ({type(error).__name__}).") from None
    found = digest.flatten(restored)
    problems = [
        f"{name}: expected {leaf.dtype.name}{list(leaf.shape)}, got "
        + (f"{found[name].dtype.name}{list(found[name].shape)}" if name in found else "nothing")
        for name, leaf in digest.flatten(expected).items()
        if name not in found or (found[name].shape, found[name].dtype) != (leaf.shape, leaf.dtype)
    ]
    problems += [f"{name}: not expected" for name in found if name not in digest.flatten(expected)]
    if problems:
        raise UserError(f"checkpoint {path} does not fit: {'; '.join(problems)}.")
    leaves = digest.of_leaves(restored)
    damaged = sorted(name for name in leaves if leaves[name] != sidecar["leaves"].get(name))
    if damaged:
        raise Damaged(f"checkpoint {path} is damaged: {some(damaged)} differ from their SHA-256.")
    return serialization.from_state_dict(like, restored)


def sealed(path: Path) -> dict[str, Any]:
    """The sidecar of the checkpoint `path`, every byte of it as it was written.

    Raises:
      Damaged: when it is not; a missing one is a `UserError`.
    """
    sidecar = files.read_signed(_sidecar(path), "The checkpoint does not count.")
    dicts = all(isinstance(sidecar.get(key), dict) for key in ("leaves", "files"))
    if set(sidecar) != KEYS or not dicts or not isinstance(sidecar["changes"], list):
        raise Damaged(f"{_sidecar(path)} does not hold the digests of a checkpoint.")
    if str(sidecar["step"]) != path.name:
        raise Damaged(f"{_sidecar(path)} is of step {sidecar['step']}: it was renamed.")
    return sidecar


def record_at(folder: Path, step: int) -> str:
    """What `save` was told of the record; '' of a step that has no checkpoint."""
    return str(sealed(folder / str(step))["record"]) if step in steps(folder) else ""


def changes_of(folder: Path, inputs: str, before: int | None = None) -> list[dict[str, Any]]:
    """The settings that were changed on the way to a part, each `{"step", "key", "old", "new"}`.

    Args:
      folder: where `save` wrote.
      inputs: what the part is made from now; only an `Inputs` knows what that was.
      before: look at checkpoints of earlier steps only.
    """
    for step in reversed(steps(folder)):
        if not isinstance(inputs, Inputs) or (before is not None and step >= before):
            continue
        with contextlib.suppress(UserError):  # a damaged one: look at the one before
            sidecar = sealed(folder / str(step))
            since = inputs.differences(sidecar) or []
            return [*sidecar["changes"], *({"step": step, **change._asdict()} for change in since)]
    return []


def _check_inputs(path: Path, sidecar: dict[str, Any], inputs: str) -> None:
    """Refuses a checkpoint of other inputs, unless all in which they differ is allowed to."""
    if sidecar["inputs"] == inputs:
        return
    changed = inputs.differences(sidecar) if isinstance(inputs, Inputs) else None
    refused = inputs.allowed.refused(changed or []) if isinstance(inputs, Inputs) else []
    if changed is None or refused:
        differ = f"; they differ in {changes.listed(refused)}" if refused else ""
        advice = changes.remedy(refused, "Give a part with other settings another place.")
        raise UserError(f"checkpoint {path} was made from another config, teacher or graph{differ}. {advice}")


def _files(path: Path) -> dict[str, str]:
    """SHA-256 of every file below a checkpoint's folder, by relative path; but for the one that comes last.

    A link, which may lead to something without an end, is not read: orbax makes none.
    """
    found = {entry.relative_to(path).as_posix(): entry for entry in places.files_below(path) if entry != path / SEALED}
    return {name: "a link" if places.is_link(entry) else digest.of_file(entry) for name, entry in found.items()}


def _tidy(folder: Path) -> None:
    """Removes all but the newest `KEEP`, and the folder that a kill left of an older one."""
    kept = steps(folder)[-KEEP:]
    for old in {entry.stem for entry in folder.iterdir()}:
        if old.isdigit() and int(old) not in kept:
            _remove(folder / old)


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _remove(path: Path) -> None:
    """What makes it count first, the sidecar last of that: interrupted, it is sound, or no longer counts."""
    (path / SEALED).unlink(missing_ok=True)
    _sidecar(path).unlink(missing_ok=True)
    places.remove_tree(path)


def _checkpointer() -> ocp.StandardCheckpointer:
    """One that works in this process alone: of several, the first writes, and each reads for itself."""
    if processes.count() == 1:
        return ocp.StandardCheckpointer()
    own = processes.rank()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}"
    )
    return ocp.StandardCheckpointer(multiprocessing_options=alone)


def _of_others(told: logging.LogRecord) -> bool:
    """Not of what orbax has begun and left: that is told when it is cleared away, which may be as the program ends."""
    return "orbax" not in told.getMessage()


@contextlib.contextmanager
def _quiet() -> Any:
    """orbax logs and warns of what a reader cannot act on; what goes wrong is raised, too, and told in one message."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
