"""A network's variables as one safetensors file whose names are paths, `params/hidden0/kernel`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jkd import digest, files, places
from jkd.places import Path
from jkd.pretrained.tensors import read_tree


def save_variables(path: str | Path, variables: dict[str, Any]) -> None:
    """Writes `{"params": ..., "batch_stats": ...}`, floats as float32. Empty collections leave no trace."""
    files.write_arrays(places.path_of(path), flat_float32(variables))


def load_variables(path: str | Path) -> dict[str, Any]:
    """Reads what `save_variables` wrote, as nested dicts of jax arrays.

    Raises:
      UserError: when the file is missing, damaged, or holds NaN or infinity.
    """
    return jax.tree.map(jnp.asarray, read_tree(path))


def flat_float32(variables: dict[str, Any]) -> dict[str, np.ndarray]:
    """Path -> array, floating types as float32, others as they are."""

    def plain(leaf: Any) -> np.ndarray:
        array = np.asarray(leaf)
        return array.astype(np.float32) if jnp.issubdtype(array.dtype, jnp.floating) else array

    return {path: plain(leaf) for path, leaf in digest.flatten(variables).items()}
