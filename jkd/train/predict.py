"""Outputs of a frozen network on a set of samples, at fixed batch shapes."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from jkd import sharding
from jkd.data import Inputs, Source


class Predictor:
    """A compiled forward pass in evaluation mode.

    Every sample runs at the static shape that it needs itself, in batches of one fixed size, the last one padded: its
    outputs do not depend on what else is asked for, and nothing compiles twice.
    """

    def __init__(self, apply: Callable[..., Any], inputs: Inputs, mesh: Mesh) -> None:
        def forward(variables: Any, raw: jax.Array) -> tuple[jax.Array, jax.Array]:
            outputs, taps = apply(variables, inputs.fed(raw))
            return outputs, taps["embedding"]

        self.mesh, self.inputs = mesh, inputs
        self.batch = -(-inputs.together // mesh.devices.size) * mesh.devices.size
        everywhere, split = sharding.replicated(mesh), sharding.over_samples(mesh)
        self._forward = jax.jit(forward, in_shardings=(everywhere, split), out_shardings=(everywhere, everywhere))

    def __call__(
        self, variables: Any, source: Source, index: Int[np.ndarray, " n"]
    ) -> tuple[Float[np.ndarray, "n c"], Float[np.ndarray, "n d"]]:
        """Logits and embeddings, float32, of the samples `index` of `source`."""
        outputs, features, where = [], [], []
        rows, split = sharding.rows(self.mesh, self.batch), sharding.over_samples(self.mesh)
        variables = sharding.place(variables, self.mesh)
        sizes = self.inputs.sizes(source, index)
        for size in np.unique(sizes):
            group = np.flatnonzero(sizes == size)
            for start in range(0, len(group), self.batch):
                some = group[start : start + self.batch]
                padded = index[np.resize(some, self.batch)[rows]]  # by repeating
                raw = self.inputs.read(source, padded, int(size))
                output, feature = self._forward(variables, sharding.place_rows(raw, split))
                outputs.append(np.asarray(output)[: len(some)])
                features.append(np.asarray(feature)[: len(some)])
                where.append(some)
        back = np.argsort(np.concatenate(where), kind="stable")
        return np.concatenate(outputs)[back], np.concatenate(features)[back]
