"""What a step is given: which run it belongs to, the graph's arrays, and a batch as both networks see it."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Key


class Run(NamedTuple):
    """Which run this is; traced, so that one compiled program serves every seed and replicate."""

    seed: Array
    replicate: Array


class Knowledge(NamedTuple):
    """The graph as training reads it, one row a node. Fields that no term asks for are `None`.

    Attributes:
      joined: joined beliefs, float32 `[N, C]`.
      features: teacher embeddings, float32 `[N, D]`.
      neighbours: int32 `[V, N, K]`, -1 where there is none.
      weights: similarity, float32 `[V, N, K]`.
      mix: share of the joined beliefs in the target, float32 `[]`.
      smoothing: share of the uniform distribution in a smoothed target, float32 `[]`.
    """

    joined: Array | None = None
    features: Array | None = None
    neighbours: Array | None = None
    weights: Array | None = None
    mix: Array | None = None
    smoothing: Array | None = None


class Prepared(NamedTuple):
    """A batch as both networks see it: inputs, per-sample dropout keys, and what the objective is given."""

    batch: dict[str, Array]
    dropout: Key[Array, " b"]
    given: dict[str, Array]


def neighbourhood(knowledge: Knowledge, node: Array) -> dict[str, Array]:
    """What the feature join reads for the nodes `[A]`: neighbours' features, edge weights, and which edges exist."""
    assert knowledge.neighbours is not None and knowledge.features is not None and knowledge.weights is not None
    ids = jnp.moveaxis(knowledge.neighbours[:, node], 0, 1)  # [B, V, K]
    return {
        "neighbours": ids,
        "neighbour_features": knowledge.features[jnp.maximum(ids, 0)],
        "neighbour_weights": jnp.moveaxis(knowledge.weights[:, node], 0, 1),
        "neighbour_mask": ids >= 0,
    }
