"""The seam between a problem and the engine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32

from jkd.graph.nearest import Edges

Arrays = Mapping[str, Any]  # by name; of NumPy on the host, traced inside jit
Found = dict[str, np.ndarray]  # what a network says of N samples, by name, `[N, ...]`


class Anchors(NamedTuple):
    """What the graph knows of a batch: A anchors, each a node of the graph. Classification has A = B.

    A task gives `[B, ...]`, or `[B, M, ...]` where a sample has up to M anchors; the objective sees them `flat`.

    Attributes:
      node: the anchor's node in the graph, int32 `[A]`.
      mask: 1 where the anchor is real, 0 where it pads, float32 `[A]`.
      feature: embedding, `[A, D]`.
      logits: class logits, `[A, C]`.
    """

    node: Int[Array, " *a"]
    mask: Float[Array, " *a"]
    feature: Float[Array, "*a d"]
    logits: Float[Array, "*a c"]

    @property
    def flat(self) -> "Anchors":
        """With one leading axis for all anchors."""
        rows = [array.reshape(self.node.size, array.shape[-1]) for array in (self.feature, self.logits)]
        return Anchors(self.node.reshape(-1), self.mask.reshape(-1), *rows)


class Nodes(NamedTuple):
    """What a graph is about: each node a sample, or one object of a sample.

    Attributes:
      sample: index in the source, rising, int32 `[N]`.
      labels: class, -1 where hidden, int32 `[N]`.
      boxes: of an object, xyxy in pixels of the network's input, float32 `[N, 4]`; None where nodes are samples.
      classes: of an object: its label, or what a teacher says it is, int32 `[N]`; None where nodes are samples.
    """

    sample: Int32[np.ndarray, " n"]
    labels: Int32[np.ndarray, " n"]
    boxes: Float32[np.ndarray, "n 4"] | None = None
    classes: Int32[np.ndarray, " n"] | None = None


class Differences(NamedTuple):
    """How far each two of R runs differ, R >= 2, over N samples.

    Attributes:
      pairs: by measure, `[R, R]`.
      samples: by measure, mean over pairs, `[N]`; none where measures are no means over samples.
      right: which run is right on which sample, bool `[R, N]`; None where an answer is more than a class.
      classes: how many there are.
    """

    pairs: dict[str, np.ndarray]
    samples: dict[str, np.ndarray]
    right: np.ndarray | None = None
    classes: int = 0


@dataclass(frozen=True)
class Task:
    """A problem, as seen by one network. `jkd.tasks.make_task` makes it.

    Attributes:
      name: as in `config.task`.
      kinds: of the data sets it is about (`Source.kind`).
      primary: the metric a run is judged by, and whether `max` or `min` is better.
      columns: metrics that tables show, with their names there.
      further: metrics that the report's table shows where `report.metrics` asks, with their names there.
      caption: what the metrics of the report's table are, in whole sentences.
      figures: those of them that stand in the table of a terminal, where they have their own names.
      supervised: the objective term that a network learns labels by.
      stored: which arrays of `predict` are kept as a part's predictions.
      views: names of the graph's views that are made of samples.
      believed_views: those of them that depend on the teacher's beliefs or on labels, too.
      anchors: `(batch, outputs, taps) -> Anchors`.
      nodes: `(batch) -> int32 [B] or [B, M]`: the anchors' nodes in the graph, of the batch alone.
      targets: `(source, indices [N], labels [N], nodes or None) -> arrays [N, ...]`: what else a batch holds, read on
        the host.
      example: `(count) -> arrays`: of the names and types that `targets` gives, for tracing.
      given: `(batch, classes) -> arrays`: what the objective is given of the labels, inside jit.
      predict: `(batch, outputs, taps) -> arrays [B, ...]`: a network's answer to samples, inside jit.
      describe: `(batch, outputs, taps) -> logits, features`, `[B, ...]` or `[B, M, ...]`, of a batch's nodes.
      rows: `(described arrays [N, ...], sources' indices [N], nodes) -> the same, one row a node`.
      metrics: `(predictions, source, indices, labels, the teacher's predictions or None) -> {metric: value}`, in NumPy.
      differences: `(predictions of several runs, labels) -> Differences`: how far each two of them differ.
      answers: `(predictions) -> [N]`, the class of each sample; None where an answer is more than a class.
      told: `(predictions, source, indices) -> [M], M answers`: the place among the indices of the sample that each
        answer is about, rising, and `class` (its number), `score` and what else there is to say, JSON-ready.
      found: `(predictions) -> Nodes`: the parts of answers that are explained one by one, `sample` counting from 0;
        None where an answer is explained as a whole.
      nodes_of: `(source, indices, labels, look) -> Nodes`; `look(indices)` gives the teacher's predictions.
      view: `(name, source, nodes, beliefs, k, inside or None) -> features or edges`: those of nodes outside the graph
        lead to, or are normalised as, those `inside`, which are `(nodes, beliefs)`.
      relations: `(nodes, beliefs, classes, k) -> further edges between nodes, by type`.
      ids: `(source, nodes) -> their ids`.
      always: whether anchors are worked out where no term asks for them, too.
      described: static arguments of objective terms, by name.
    """

    name: str
    kinds: tuple[str, ...]
    primary: tuple[str, str]
    columns: Mapping[str, str]
    further: Mapping[str, str]
    caption: str
    figures: tuple[str, ...]
    supervised: str
    stored: tuple[str, ...]
    views: tuple[str, ...]
    anchors: Callable[[Arrays, Any, Arrays], Anchors]
    nodes: Callable[[Arrays], Int[Array, " *a"]]
    targets: Callable[..., dict[str, np.ndarray]]
    example: Callable[[int], dict[str, np.ndarray]]
    given: Callable[[Arrays, int], dict[str, Array]]
    predict: Callable[[Arrays, Any, Arrays], dict[str, Array]]
    describe: Callable[[Arrays, Any, Arrays], dict[str, Array]]
    rows: Callable[[Found, np.ndarray, Nodes], Found]
    metrics: Callable[[Found, Any, np.ndarray, np.ndarray, Found | None], dict[str, float | None]]
    differences: Callable[[Sequence[Found], np.ndarray], Differences]
    answers: Callable[[Found], np.ndarray] | None
    told: Callable[[Found, Any, np.ndarray], tuple[np.ndarray, list[dict[str, Any]]]]
    found: Callable[[Found], Nodes] | None
    nodes_of: Callable[[Any, np.ndarray, np.ndarray, Callable[[np.ndarray], Found]], Nodes]
    view: Callable[[str, Any, Nodes, np.ndarray, int, tuple[Nodes, np.ndarray] | None], np.ndarray | Edges]
    relations: Callable[[Nodes, np.ndarray, int, int], dict[str, Edges]]
    ids: Callable[[Any, Nodes], list[str]]
    believed_views: tuple[str, ...] = ()
    always: bool = True
    described: Mapping[str, Any] = field(default_factory=dict)
