"""Teacher outputs and views in, a validated knowledge graph out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jkd.errors import UserError
from jkd.graph import material as trials
from jkd.graph.diagnosis import diagnose
from jkd.graph.knowledge_graph import KnowledgeGraph, confusion, top_classes
from jkd.graph.material import Folds, HoldOut, View
from jkd.graph.nearest import Edges
from jkd.graph.taxonomy import Taxonomy
from jkd.graph.validate import check

KEPT = (
    "views",
    "k",
    "temperature",
    "rounds",
    "predicted_as",
    "diagnosis",
    "folds",
)  # settings that shape a graph


def build_graph(
    *,
    sample: Int[np.ndarray, " N"],
    features: Float[np.ndarray, "N D"],
    beliefs: Float[np.ndarray, "N C"],
    labels: Int[np.ndarray, " N"],
    classes: Sequence[str],
    views: Mapping[str, View],
    settings: Mapping[str, Any],
    taxonomy: Taxonomy | None = None,
    provenance: Mapping[str, Any] | None = None,
    held_back: Folds | HoldOut | None = None,
    boxes: Float[np.ndarray, "N 4"] | None = None,
    relations: Mapping[str, Edges] | None = None,
) -> KnowledgeGraph:
    """Builds the graph of N samples, with its diagnosis where labels were held back.

    Args:
      sample: index of each sample in the training source.
      features: the teacher's embeddings.
      beliefs: the teacher's softmax at T = 1.
      labels: -1 where hidden.
      classes: names.
      views: features or edges of every view of `settings["views"]` but `teacher`.
      settings: the config's `graph` group, or a dict with its keys views, k, temperature, rounds,
        predicted_as, block.
      taxonomy: concepts above the classes.
      provenance: JSON-ready; what the graph was made from (digests of teacher, data, split).
      held_back: fold teachers, or a hold-out; None = no diagnosis.
      boxes: where nodes are objects.
      relations: further edges, by type.

    Raises:
      UserError: listing everything in the inputs that a graph cannot hold.
    """
    names = tuple(settings["views"])
    k, block = int(settings["k"]), int(settings["block"])
    by_view = {name: features if name == "teacher" else _given(views, name) for name in names}
    edges = {name: trials.view_edges(view, k, block) for name, view in by_view.items()}
    beliefs, labels = beliefs.astype(np.float32), _int32("labels", labels)
    taxonomy = taxonomy or Taxonomy()
    graph = KnowledgeGraph(
        classes=tuple(classes),
        concepts=taxonomy.concepts,
        views=names,
        sample=_int32("sample", sample),
        features=features.astype(np.float32),
        beliefs=beliefs,
        labels=labels,
        similar_to=Edges(*(np.stack(part) for part in zip(*edges.values(), strict=True))),
        predicted_as=top_classes(beliefs, int(settings["predicted_as"])),
        confused_with=confusion(beliefs),
        is_a=taxonomy.is_a,
        settings={key: _plain(settings[key]) for key in KEPT if key in settings},
        provenance=dict(provenance or {}),
        boxes=None if boxes is None else boxes.astype(np.float32),
        relations=dict(relations or {}),
    )
    if held_back is not None:
        if isinstance(held_back, Folds):
            material = trials.from_folds(held_back, labels, edges, k, block)
        else:
            material = trials.from_holdout(held_back, beliefs, labels, edges, by_view, k, block)
        check(replace(graph, material=material))
        scores = diagnose(material, temperature=settings["temperature"], rounds=settings["rounds"])
        graph = replace(graph, material=material, diagnosis=scores)
    check(graph)
    return graph


def _given(views: Mapping[str, View], name: str) -> View:
    if name not in views:
        raise UserError(f"graph.views: '{name}' was asked for, but only {', '.join(views) or 'none'} came.")
    return views[name]


def _int32(name: str, numbers: np.ndarray) -> np.ndarray:
    narrow = numbers.astype(np.int32)
    if (narrow != numbers).any():
        raise UserError(f"{name}: {numbers[narrow != numbers][0]} does not fit in 32 bits. Use smaller ids.")
    return narrow


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value
