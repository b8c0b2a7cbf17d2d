"""What a student takes from the graph, as the arrays that its step reads."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int32
from ml_collections import ConfigDict

from jkd import config as configs
from jkd.config import AUTO
from jkd.data import Split
from jkd.graph.choose import attended_edges, choose, edges_of, joined
from jkd.graph.diagnosis import choose_smoothing
from jkd.graph.knowledge_graph import KnowledgeGraph
from jkd.graph.nearest import Edges
from jkd.graph.sample import believed_class, sampling
from jkd.objective import Objective
from jkd.tasks import Nodes
from jkd.train.given import Knowledge


@dataclass(frozen=True)
class Share:
    """A student's share of the graph.

    Attributes:
      knowledge: the arrays that the step reads.
      samples: positions in the pool of those it trains on, ascending, int32 `[M]`: the pool or its labelled part,
        within the budget.
      choices: view, strength, mix, smoothing and gate, for `result.json`.
      labels_used: labelled samples that the choices saw and training does not, however many nodes each holds.
    """

    knowledge: Knowledge
    samples: Int32[np.ndarray, " M"]
    choices: dict[str, Any]
    labels_used: int


def share_of(
    graph: KnowledgeGraph, network: ConfigDict, goal: Objective, seed: int, replicate: int, split: Split | None = None
) -> Share:
    """Makes a student's choices and its arrays: a pure function of its arguments."""
    draw, settings = {"seed": seed, "replicate": replicate}, configs.as_dict(network.graph)
    choices: dict[str, Any] = {}
    used, smoothing = 0, None
    if any(term.options.get("smoothing") == AUTO for term in goal.terms):
        assert graph.material is not None  # the config refuses `auto` without a diagnosis
        smoothing, _ = choose_smoothing(graph.material)
        choices["smoothing"], used = smoothing, graph.material.labels_used
    choice = choose(graph, settings, **draw)
    edges = None
    if network.graph.edges != "none":
        choices |= {
            "edges": network.graph.edges,
            "view": choice.view,
            "strength": choice.strength,
            "mix": choice.mix,
        }
        choices["gate_open"] = choice.gate_open
        used = max(used, choice.diagnosis.labels_used if choice.diagnosis else 0)
        edges = edges_of(graph, network.graph.edges, choice.view, **draw)
    knowledge = Knowledge(
        joined=jnp.asarray(joined(graph, settings, choice, **draw)) if "joined" in goal.needs else None,
        mix=jnp.float32(choice.mix) if "mix" in goal.needs else None,
        smoothing=None if smoothing is None else jnp.float32(smoothing),
        **(_neighbourhoods(graph, network.graph.edges, draw) if goal.projects else {}),
    )
    rule = network.sampling
    if graph.boxes is not None:  # nodes are objects, and there are samples without any
        assert split is not None
        whole = np.arange(len(split.pool), dtype=np.int32)
        held = int((split.val_labels >= 0).sum()) if used else 0  # so far objects were counted
        return Share(knowledge, whole if rule.of == "pool" else split.labelled, choices, held)
    inside = np.arange(len(graph)) if rule.of == "pool" else np.flatnonzero(graph.labels >= 0)
    believed = believed_class(graph.beliefs, graph.labels)[inside]
    kept = sampling(rule.by, rule.budget, classes_of=believed, edges=edges, **draw)
    return Share(knowledge, inside[kept].astype(np.int32), choices, used)


def nodes_in(graph: KnowledgeGraph) -> Nodes | None:
    """The nodes of a graph of objects, which a batch's targets are about; None where nodes are samples."""
    if graph.boxes is None:
        return None
    return Nodes(graph.sample, graph.labels, graph.boxes, believed_class(graph.beliefs, graph.labels).astype(np.int32))


def _neighbourhoods(graph: KnowledgeGraph, kind: str, draw: dict[str, int]) -> dict[str, Any]:
    """What the feature join reads: edges of every type, whichever the beliefs were joined over."""
    edges = attended_edges(graph, "real" if kind == "none" else kind, **draw)
    if kind == "none":
        edges = Edges(np.full_like(edges.ids, -1), np.zeros_like(edges.weights))
    return {
        "features": jnp.asarray(graph.features),
        "neighbours": jnp.asarray(edges.ids),
        "weights": jnp.asarray(edges.weights),
    }
