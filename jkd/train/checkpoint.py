"""Checkpoints: orbax writes them, a SHA-256 per leaf says whether what is read back is what was written.

orbax commits atomically and survives a kill, but restores silently from a file with a flipped bit and casts types
without a word. So each committed checkpoint `STEP/` gets a sidecar `STEP.json` with the digest of every leaf; without
it a checkpoint does not count, and one whose leaves disagree with it is never used.
"""

import contextlib
import logging
import warnings
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import serialization

from jkd import changes, digest, files, places
from jkd.changes import Inputs
from jkd.errors import UserError
from jkd.places import Path
from jkd.train.state import TrainState

KEEP = 2


def save(folder: Path, state: TrainState, inputs: str) -> None:
    """Writes `state` as `folder/STEP`, then its sidecar, then removes all but the newest `KEEP`.

    Raises:
      UserError: when the disk is full or read-only; earlier checkpoints are left as they were.
    """
    tree = jax.tree.map(np.asarray, serialization.to_state_dict(state))
    step = int(tree["step"])
    target = places.absolute(folder) / str(step)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob("*.orbax-checkpoint-tmp*"):  # left by a kill while orbax was writing
            places.remove_tree(stale)
        if target.exists():  # left by a kill between the two writes, or found to be damaged
            _remove(target)
        with _quiet(), ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(target, tree)
            checkpointer.wait_until_finished()
        sidecar = {"inputs": inputs, "leaves": digest.of_leaves(tree), "step": step}
        if isinstance(inputs, Inputs):
            sidecar |= {"made_of": inputs.made_of, "changes": changes_of(folder, inputs, before=step)}
        files.write_json(_sidecar(target), sidecar)
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError):
            places.remove_tree(target)
        full = "No space left on device" in str(error)  # tensorstore buries it in a page of paths
        reason = "no space left on device" if full else str(error)
        raise UserError(f"cannot save the checkpoint {target}: {reason}. Free space or check permissions.") from None
    for old in steps(folder)[:-KEEP]:
        _remove(folder / str(old))


def steps(folder: Path) -> list[int]:
    """The steps of the committed checkpoints, ascending."""
    found = [path.stem for path in folder.glob("*.json") if path.stem.isdigit()]
    return sorted(int(stem) for stem in found if (folder / stem).is_dir())


def restore(folder: Path, like: TrainState, inputs: str) -> TrainState | None:
    """The newest sound checkpoint, or None when there is none at all.

    A damaged one is named in a warning and the one before it is tried.

    Args:
      folder: where `save` wrote.
      like: a state of the expected structure, shapes and types.
      inputs: digest of what the part is made from; a checkpoint of other inputs is refused, unless it is an `Inputs`
        that allows all in which they differ.

    Raises:
      UserError: when there are checkpoints and none is sound: training never restarts silently from step 0.
    """
    problems = []
    for step in reversed(steps(folder)):
        try:
            state = _read(folder / str(step), like, inputs)
        except UserError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            warnings.warn(f"{problem} Going on from step {step}.", stacklevel=2)
        return state
    if problems:
        raise UserError(
            f"no sound checkpoint in {folder}: {' '.join(problems)} Delete the folder to start this part again."
        )
    return None


def _read(path: Path, like: TrainState, inputs: str) -> TrainState:
    sidecar = files.read_json(_sidecar(path))
    if not isinstance(sidecar, dict) or not isinstance(sidecar.get("leaves"), dict):
        raise UserError(f"{_sidecar(path)} does not hold leaf digests.")
    if sidecar.get("inputs") != inputs:
        _check_inputs(path, sidecar, inputs)
    expected = jax.tree.map(np.asarray, serialization.to_state_dict(like))
    try:
        with _quiet(), ocp.StandardCheckpointer() as checkpointer:
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
        raise UserError(f"checkpoint {path} is damaged: {', '.join(damaged[:5])} differ from their SHA-256.")
    return serialization.from_state_dict(like, restored)


def changes_of(folder: Path, inputs: Inputs, before: int | None = None) -> list[dict[str, Any]]:
    """The settings that were changed on the way to a part, each `{"step", "key", "old", "new"}`.

    Args:
      folder: where `save` wrote.
      inputs: what the part is made from now.
      before: look at checkpoints of earlier steps only.
    """
    for step in reversed(steps(folder)):
        if before is not None and step >= before:
            continue
        with contextlib.suppress(UserError):  # a damaged one: look at the one before
            sidecar = files.read_json(_sidecar(folder / str(step)))
            since = inputs.differences(sidecar) or []
            return [*sidecar.get("changes", []), *({"step": step, **change._asdict()} for change in since)]
    return []


def _check_inputs(path: Path, sidecar: dict[str, Any], inputs: str) -> None:
    """Refuses a checkpoint of other inputs, unless all in which they differ is allowed to."""
    changed = inputs.differences(sidecar) if isinstance(inputs, Inputs) else None
    refused = inputs.allowed.refused(changed or []) if isinstance(inputs, Inputs) else []
    if changed is None or refused:
        differ = f"; they differ in {changes.listed(refused)}" if refused else ""
        advice = changes.remedy(refused, "Give a part with other settings another place.")
        raise UserError(f"checkpoint {path} was made from another config, teacher or graph{differ}. {advice}")


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _remove(path: Path) -> None:
    """The sidecar first: without it the checkpoint no longer counts, whenever the removal is interrupted."""
    _sidecar(path).unlink(missing_ok=True)
    places.remove_tree(path)


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
