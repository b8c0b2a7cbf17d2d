"""What a step that is not finite was: found in its metrics or its state, described, kept beside the checkpoints.

A step whose loss or gradient is NaN or infinite ends the run at that step, with the state of the last checkpoint as it
was. `nonfinite.json` in the part's folder then says which samples were in the batch, which terms and which leaf of the
state were the first to break.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import serialization

from jkd import digest, files
from jkd.errors import UserError, some
from jkd.train.state import TrainState

FILE = "nonfinite.json"
WATCHED = ("loss", "gradient_norm")  # metrics that end a run; other metrics are only reported


def first_broken(metrics: Mapping[str, Any]) -> int | None:
    """Index of the first step in a chunk's metrics `[S]` whose loss or gradient is not finite; None for none."""
    broken = [np.flatnonzero(~np.isfinite(np.asarray(metrics[key]))) for key in WATCHED if key in metrics]
    first = [int(found[0]) for found in broken if len(found)]
    return min(first) if first else None


def first_leaf(state: TrainState) -> str | None:
    """Path of the first leaf of a state, parameters first, that is not finite; None where all are."""
    tree = serialization.to_state_dict(state)
    for part in ("params", "batch_stats", "objective", "opt_state", "ema"):
        for name, leaf in digest.flatten(tree[part], part).items():
            array = np.asarray(leaf)
            if not np.issubdtype(array.dtype, np.integer) and not np.isfinite(array.astype(np.float32)).all():
                return name
    return None


def describe(
    state: TrainState,
    chunk: Mapping[str, Any],
    metrics: Mapping[str, Any],
    name: Callable[[int], str] | None = None,
) -> dict[str, Any] | None:
    """What broke in a chunk of steps, JSON-ready; None where nothing did.

    Args:
      state: after the chunk.
      chunk: at least `step` `[S]` (the number of steps done before each) and `id` `[S, B]`.
      metrics: of its steps, each `[S]`; only the first `count` of them where a chunk is short.
      name: a sample's id by its index in the training source; by default the indices alone are kept.

    Returns:
      `step` (the one that broke, counted from 1), `what` and `value` of the first watched metric that is not finite
      (the leaf, where only the state is not), `terms` that are not finite at that step, `leaf` of the state that is
      not, `ids` of the batch and, with `name`, their `names`.
    """
    index, leaf = first_broken(metrics), first_leaf(state)
    if index is None and leaf is None:
        return None
    steps = len(np.asarray(metrics[WATCHED[0]]))
    at = steps - 1 if index is None else index
    values = {key: float(np.asarray(value)[at]) for key, value in metrics.items()}
    terms = [key for key, value in values.items() if not np.isfinite(value)]
    what = next((key for key in WATCHED if key in terms), leaf)
    ids = [int(sample) for sample in np.asarray(chunk["id"])[at]]
    return {
        "step": int(np.asarray(chunk["step"])[at]) + 1,
        "what": what,
        "value": str(values[what]) if what in values else "not finite",
        "terms": terms,
        "metrics": {key: value if np.isfinite(value) else str(value) for key, value in values.items()},
        "leaf": leaf,
        "ids": ids,
    } | ({"names": [name(sample) for sample in ids]} if name else {})


def refusal(description: Mapping[str, Any], folder: Path | None) -> UserError:
    """The error to raise for what `describe` found; `nonfinite.json` is written on the way where there is a folder."""
    kept = ""
    if folder is not None:
        files.write_json(folder / FILE, dict(description))
        kept = f" The batch is listed in {folder / FILE}."
    others = [term for term in description["terms"] if term not in (*WATCHED, description["what"])]
    return UserError(
        f"{description['what']} is {description['value']} at step {description['step']}"
        f"{f' of {folder}' if folder else ''}"
        + (f", first in {some(others)}" if others else "")
        + (f"; the first leaf that is not finite is {description['leaf']}" if description["leaf"] else "")
        + f". Lower the learning rate or set optimizer.clip; earlier checkpoints are kept.{kept}"
    )
