"""Outputs of a frozen network on a set of samples, at one fixed batch shape."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from jkd import sharding
from jkd.data import Source, normalize

BATCH = 512


class Predictor:
    """A compiled forward pass in evaluation mode.

    The batch shape is fixed and the last batch padded, so that a sample's outputs do not depend on how many are asked
    for, and nothing compiles twice.
    """

    def __init__(self, apply: Callable[..., Any], mean: tuple[float, ...], std: tuple[float, ...], mesh: Mesh) -> None:
        def forward(variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
            outputs, taps = apply(variables, normalize(images, mean, std))
            return outputs, taps["embedding"]

        self.mesh, self.batch = mesh, -(-BATCH // mesh.devices.size) * mesh.devices.size
        everywhere, split = sharding.replicated(mesh), sharding.over_samples(mesh)
        self._forward = jax.jit(forward, in_shardings=(everywhere, split), out_shardings=(everywhere, everywhere))

    def __call__(
        self, variables: Any, source: Source, index: Int[np.ndarray, " n"]
    ) -> tuple[Float[np.ndarray, "n c"], Float[np.ndarray, "n d"]]:
        """Logits and embeddings, float32, of the samples `index` of `source`."""
        outputs, features = [], []
        rows, split = sharding.rows(self.mesh, self.batch), sharding.over_samples(self.mesh)
        variables = sharding.place(variables, self.mesh)
        for start in range(0, len(index), self.batch):
            some = index[start : start + self.batch]
            images = source.images(np.resize(some, self.batch)[rows])  # pads by repeating
            output, feature = self._forward(variables, sharding.place_rows(images, split))
            outputs.append(np.asarray(output)[: len(some)])
            features.append(np.asarray(feature)[: len(some)])
        return np.concatenate(outputs), np.concatenate(features)
