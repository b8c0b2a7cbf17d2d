"""The seam between a problem and the engine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int


class Anchors(NamedTuple):
    """What the graph knows of a batch: A anchors, each a node of the graph. Classification has A = B.

    Attributes:
      node: the anchor's node in the graph, int32 `[A]`.
      mask: 1 where the anchor is real, 0 where it pads, float32 `[A]`.
      feature: embedding, `[A, D]`.
      logits: class logits, `[A, C]`.
    """

    node: Int[Array, " a"]
    mask: Float[Array, " a"]
    feature: Float[Array, "a d"]
    logits: Float[Array, "a c"]


@dataclass(frozen=True)
class Task:
    """A problem.

    Attributes:
      name: as in `config.task`.
      primary: the metric a run is judged by, and whether `max` or `min` is better.
      anchors: `(batch, outputs, taps) -> Anchors`.
      nodes: `(batch) -> int32 [A]`: the anchors' nodes in the graph, of the batch alone.
      targets: `(source, indices [N], labels [N]) -> arrays [N, ...]`: what else a batch holds, read on the host.
      given: `(batch, classes) -> arrays [B, ...]`: what the objective is given of the labels, inside jit.
      metrics: `(outputs, labels, teacher outputs or None) -> {metric: value}`, on the whole test set in NumPy.
    """

    name: str
    primary: tuple[str, str]
    anchors: Callable[[Mapping[str, Array], Any, Mapping[str, Array]], Anchors]
    nodes: Callable[[Mapping[str, Array]], Int[Array, " a"]]
    targets: Callable[[Any, np.ndarray, np.ndarray], dict[str, np.ndarray]]
    given: Callable[[Mapping[str, Array], int], dict[str, Array]]
    metrics: Callable[[np.ndarray, np.ndarray, np.ndarray | None], dict[str, float | None]]
