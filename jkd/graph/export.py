"""The graph for other tools: networkx, GraphML, node-link JSON.

Node ids are `sample:ID` (or `object:ID#PLACE`), `class:NAME`, `concept:NAME`. XML has no way to write most control
characters, and those that turn the direction of writing can disguise a name, so in exported names these and the
backslash are written as escapes (`\\n`, `\\x1b`, `\\u202e`, `\\\\`), which keeps different names different.
"""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import networkx as nx
import numpy as np

from jkd import files, places
from jkd.errors import UserError, visible
from jkd.graph.knowledge_graph import KnowledgeGraph
from jkd.places import Path


def to_networkx(graph: KnowledgeGraph, names: Sequence[str] | Callable[[int], str] | None = None) -> nx.MultiDiGraph:
    """The whole graph, every node and edge with its `type`.

    Args:
      graph: the graph.
      names: the id of a sample by its index in the training source, or a sequence of them in node order;
        default: the index itself.
    """
    made: nx.MultiDiGraph = nx.MultiDiGraph(sha256=graph.digest)
    samples = [f"{graph.kind}:{escaped(name)}" for name in _names(graph, names)]
    above = [f"class:{escaped(name)}" for name in graph.classes]
    above += [f"concept:{escaped(name)}" for name in graph.concepts]
    for node, index, label in zip(samples, graph.sample.tolist(), graph.labels.tolist(), strict=True):
        made.add_node(node, type=graph.kind, index=index, label=escaped(graph.classes[label]) if label >= 0 else "")
    for node in above:
        made.add_node(node, type=node.partition(":")[0])
    for view, ids, weights in zip(graph.views, graph.neighbours, graph.weights, strict=True):
        made.add_edges_from(_edges(samples, samples, ids, weights, type="similar_to", view=escaped(view)))
    for name, table in graph.relations.items():
        made.add_edges_from(_edges(samples, samples, *table, type=escaped(name)))
    made.add_edges_from(_edges(samples, above, *graph.predicted_as, type="predicted_as"))
    labelled = graph.labels[:, None]
    made.add_edges_from(_edges(samples, above, labelled, np.ones(labelled.shape), type="instance_of"))
    order = np.argsort(-graph.confused_with, axis=1, kind="stable")
    ranked = np.take_along_axis(graph.confused_with, order, 1)
    made.add_edges_from(_edges(above, above, np.where(ranked > 0, order, -1), ranked, type="confused_with"))
    for child, parent in graph.is_a.tolist():
        made.add_edge(above[child], above[parent], type="is_a", weight=1.0, rank=0)
    return made


def to_graphml(graph: KnowledgeGraph, names: Sequence[str] | Callable[[int], str] | None = None) -> bytes:
    """GraphML, UTF-8."""
    buffer = io.BytesIO()
    nx.write_graphml_xml(to_networkx(graph, names), buffer)
    return buffer.getvalue()


def to_json(graph: KnowledgeGraph, names: Sequence[str] | Callable[[int], str] | None = None) -> bytes:
    """Node-link JSON, as `networkx.node_link_graph(data, edges="edges")` reads it."""
    data = nx.node_link_data(to_networkx(graph, names), edges="edges")
    return (json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n").encode()


def export(graph: KnowledgeGraph, path: str | Path, names: Sequence[str] | Callable[[int], str] | None = None) -> None:
    """Writes a `.graphml` or `.json` file, atomically."""
    writers = {".graphml": to_graphml, ".json": to_json}
    path = places.path_of(path)
    if path.suffix not in writers:
        raise UserError(f"export: expected a file ending in .graphml or .json, got '{path.name}'.")
    files.write_bytes(path, writers[path.suffix](graph, names))


def escaped(name: str) -> str:
    """A name that every format can hold; different names stay different."""
    return visible(name.replace("\\", "\\\\"))


def _names(graph: KnowledgeGraph, names: Sequence[str] | Callable[[int], str] | None) -> list[str]:
    if names is None:
        names = str
    found = [names(index) for index in graph.sample.tolist()] if callable(names) else [str(name) for name in names]
    if callable(names) and graph.boxes is not None:  # objects: their place in the sample
        first = np.searchsorted(graph.sample, graph.sample)
        found = [f"{name}#{at}" for name, at in zip(found, np.arange(len(graph)) - first, strict=True)]
    if len(set(found)) != len(graph):
        raise UserError(f"export: expected {len(graph)} different sample ids, got {len(set(found))}.")
    return found


def _edges(
    sources: Sequence[str], targets: Sequence[str], ids: np.ndarray, weights: np.ndarray, **kind: str
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for source, row, values in zip(sources, ids.tolist(), weights.tolist(), strict=False):
        for rank, (target, weight) in enumerate(zip(row, values, strict=True)):
            if target >= 0:
                yield source, targets[target], {**kind, "weight": weight, "rank": rank}
