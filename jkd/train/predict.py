"""Outputs of a frozen network on a set of samples, at fixed batch shapes."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from jkd import sharding
from jkd.data import Inputs, Source


class Predictor:
    """A compiled forward pass in evaluation mode.

    Every sample runs at the static shape that it needs itself, in batches of one fixed size, the last one padded: its
    outputs do not depend on what else is asked for, and nothing compiles twice.

    Args:
      apply: `(variables, input) -> (outputs, taps)`.
      inputs: how samples become its input.
      mesh: the devices.
      read: `(batch, outputs, taps) -> arrays [B, ...]` by name, what is wanted of them; see `jkd.tasks.Task`.
    """

    def __init__(
        self, apply: Callable[..., Any], inputs: Inputs, mesh: Mesh, read: Callable[..., dict[str, jax.Array]]
    ) -> None:
        def forward(variables: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
            return read(batch, *apply(variables, inputs.fed(batch["input"])))

        self.mesh, self.inputs = mesh, inputs
        self.batch = -(-inputs.together // mesh.devices.size) * mesh.devices.size
        everywhere, split = sharding.replicated(mesh), sharding.over_samples(mesh)
        self._forward = jax.jit(forward, in_shardings=(everywhere, split), out_shardings=everywhere)

    def __call__(
        self,
        variables: Any,
        source: Source,
        index: Int[np.ndarray, " n"],
        beside: dict[str, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """What `read` gives of the samples `index` of `source`, by name, `[N, ...]`.

        Args:
          variables: of the network.
          source: of the samples.
          index: into it.
          beside: further arrays `[N, ...]` of a batch that `read` asks for.
        """
        parts: dict[str, list[np.ndarray]] = {}
        where = []
        rows, split = sharding.rows(self.mesh, self.batch), sharding.over_samples(self.mesh)
        variables = sharding.place(variables, self.mesh)
        sizes = self.inputs.sizes(source, index)
        for size in np.unique(sizes):
            group = np.flatnonzero(sizes == size)
            for start in range(0, len(group), self.batch):
                some = group[start : start + self.batch]
                padded = np.resize(some, self.batch)[rows]  # by repeating
                batch = {"input": self.inputs.read(source, index[padded], int(size))}
                batch |= {name: array[padded] for name, array in (beside or {}).items()}
                made = self._forward(variables, {name: sharding.place_rows(it, split) for name, it in batch.items()})
                for name, array in made.items():
                    parts.setdefault(name, []).append(np.asarray(array)[: len(some)])
                where.append(some)
        back = np.argsort(np.concatenate(where), kind="stable")
        return {name: np.concatenate(some)[back] for name, some in parts.items()}
