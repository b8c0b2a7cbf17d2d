"""The knowledge graph: typed nodes and edges as arrays, frozen, with a digest over all that they are.

Nodes: `sample` (its index in the training source) or, where samples hold objects, `object` (the same, and its box);
`class`, `concept`. Edges, directed and weighted, each row
sorted by rank: `similar_to` (sample to sample, one set per view), `predicted_as` (sample to class, the
teacher's most probable), `instance_of` (sample to class, the label), `confused_with` (class to class), `is_a`
(class or concept to concept); between objects of one sample what the task gives as `relations`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from jkd import digest
from jkd.errors import UserError, did_you_mean
from jkd.graph.diagnosis import Diagnosis
from jkd.graph.material import Material
from jkd.graph.nearest import Edges

SCHEMA = 1


@dataclass(frozen=True, eq=False)
class KnowledgeGraph:
    """What the teacher and the data know of N samples of the training set. Two are equal by `digest`.

    Attributes:
      classes: names, C of them.
      concepts: names of super-classes, from a taxonomy; may be empty.
      views: names, V of them.
      sample: index in the training source of each node, rising (of objects: not falling), int32 `[N]`.
      features: the teacher's embeddings, float32 `[N, D]`.
      beliefs: the teacher's softmax at T = 1, float32 `[N, C]`.
      labels: int32 `[N]`, -1 where hidden. `instance_of` edges are the others.
      similar_to: neighbour tables `[V, N, K]`, ids into the nodes.
      predicted_as: the teacher's top classes with their probabilities, `[N, M]`, ids into the classes.
      confused_with: mean belief of class d over the nodes predicted as c, 0 on the diagonal, float32 `[C,
        C]`.
      is_a: (child, parent) rows, int32 `[E, 2]`; class c counts as c, concept j as C + j.
      settings: what it was built with (views, k, temperature, rounds, ...).
      provenance: what it was built from (digests of teacher, data, split, ...).
      diagnosis: whether its edges help, or None where no labels were held back.
      material: what that diagnosis was made from, so that a student's control is tuned by the same trials.
      boxes: where nodes are objects, xyxy in pixels of the network's input, float32 `[N, 4]`; else None.
      relations: further edges between nodes, by type, tables `[N, K]`.
    """

    classes: tuple[str, ...]
    concepts: tuple[str, ...]
    views: tuple[str, ...]
    sample: Int32[np.ndarray, " N"]
    features: Float32[np.ndarray, "N D"]
    beliefs: Float32[np.ndarray, "N C"]
    labels: Int32[np.ndarray, " N"]
    similar_to: Edges
    predicted_as: Edges
    confused_with: Float32[np.ndarray, "C C"]
    is_a: Int32[np.ndarray, "E 2"]
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]
    diagnosis: Diagnosis | None = None
    material: Material | None = None
    boxes: Float32[np.ndarray, "N 4"] | None = None
    relations: Mapping[str, Edges] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sample)

    @property
    def kind(self) -> str:
        """What its nodes are: `sample` or `object`."""
        return "sample" if self.boxes is None else "object"

    @property
    def neighbours(self) -> Int32[np.ndarray, "V N K"]:
        return self.similar_to.ids

    @property
    def weights(self) -> Float32[np.ndarray, "V N K"]:
        return self.similar_to.weights

    def edges(self, view: str) -> Edges:
        """`similar_to` of one view, `[1, N, K]`, or of all for `mean`, `[V, N, K]`."""
        if view == "mean":
            return self.similar_to
        if view not in self.views:
            raise UserError(f"the graph has no view '{view}'.{did_you_mean(view, [*self.views, 'mean'])}")
        index = self.views.index(view)
        return Edges(self.neighbours[index : index + 1], self.weights[index : index + 1])

    @property
    def edge_types(self) -> tuple[str, ...]:
        """What the feature join attends over: `similar_to` by view, then the relations."""
        return (*self.views, *self.relations)

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array by name, as it is stored."""
        named = {
            "sample": self.sample,
            "features": self.features,
            "beliefs": self.beliefs,
            "labels": self.labels,
            "neighbours": self.similar_to.ids,
            "weights": self.similar_to.weights,
            "predicted_as.ids": self.predicted_as.ids,
            "predicted_as.weights": self.predicted_as.weights,
            "confused_with": self.confused_with,
            "is_a": self.is_a,
        }
        if self.boxes is not None:
            named["boxes"] = self.boxes
        for name, table in self.relations.items():
            named |= {f"{name}.ids": table.ids, f"{name}.weights": table.weights}
        return named | (self.material.arrays() if self.material else {})

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Everything but the arrays, and a SHA-256, dtype and shape of each of those: JSON-ready."""
        material = self.material and {
            "by": self.material.by,
            "pool": self.material.pool,
            "views": list(self.material.edges),
        }
        further = {"relations": list(self.relations)} if self.relations else {}
        return further | {
            "schema": SCHEMA,
            "classes": list(self.classes),
            "concepts": list(self.concepts),
            "views": list(self.views),
            "settings": dict(self.settings),
            "provenance": dict(self.provenance),
            "counts": self.counts,
            "diagnosis": self.diagnosis and self.diagnosis.as_dict(),
            "material": material,
            "arrays": {
                name: {
                    "sha256": digest.of_array(array),
                    "dtype": array.dtype.name,
                    "shape": list(array.shape),
                }
                for name, array in self.arrays().items()
            },
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 over `manifest`, and through it over every bit of every array."""
        return digest.of_json(self.manifest)

    @property
    def counts(self) -> dict[str, Any]:
        """`{"nodes": {type: n}, "edges": {type: n}}`, `similar_to` view by view."""
        related = {name: int((table.ids >= 0).sum()) for name, table in self.relations.items()}
        similar = {f"similar_to/{view}": int((self.neighbours[v] >= 0).sum()) for v, view in enumerate(self.views)}
        return {
            "nodes": {self.kind: len(self), "class": len(self.classes), "concept": len(self.concepts)},
            "edges": similar
            | related
            | {
                "predicted_as": int((self.predicted_as.ids >= 0).sum()),
                "instance_of": int((self.labels >= 0).sum()),
                "confused_with": int((self.confused_with > 0).sum()),
                "is_a": len(self.is_a),
            },
        }


def top_classes(beliefs: Float32[np.ndarray, "N C"], most: int) -> Edges:
    """`predicted_as`: the `most` most probable classes of each row, ties to the lower class."""
    ids = np.argsort(-beliefs, axis=1, kind="stable")[:, :most].astype(np.int32)
    return Edges(ids, np.take_along_axis(beliefs, ids, 1).astype(np.float32))


def confusion(beliefs: Float32[np.ndarray, "N C"]) -> Float32[np.ndarray, "C C"]:
    """`confused_with[c, d]`: mean belief of d over the rows predicted as c, 0 on the diagonal."""
    predicted = beliefs.argmax(1)
    total = np.zeros((beliefs.shape[1],) * 2)
    np.add.at(total, predicted, beliefs.astype(np.float64))
    total /= np.maximum(np.bincount(predicted, minlength=len(total)), 1)[:, None]
    np.fill_diagonal(total, 0)
    return total.astype(np.float32)
