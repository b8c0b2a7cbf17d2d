"""What a student takes from the graph: its edges (real ones or a control's), its choices, its joined beliefs.

`student` is a config's `students.NAME.graph` group, or a dict with its keys: `edges` (real, random,
class_random, none), `view`, `strength`, `mix` (values or `auto`), `gate`, `inject`, `sharpen`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from jkd.errors import UserError
from jkd.graph import controls
from jkd.graph.diagnosis import MIXES, STRENGTHS, Diagnosis, diagnose
from jkd.graph.knowledge_graph import KnowledgeGraph
from jkd.graph.material import Material
from jkd.graph.nearest import Edges
from jkd.graph.relation import join_beliefs, q0, sharpen
from jkd.graph.sample import believed_class

AUTO = "auto"


@dataclass(frozen=True)
class Choice:
    """A student's settings with every `auto` filled in.

    Attributes:
      view: a view or `mean`; `none` for a student without edges.
      strength: a of the belief join.
      mix: m of the target; 0 where the gate is shut, which is the teacher's own belief.
      gate_open: whether edges are used.
      diagnosis: the scores it rests on, of these edges; None where nothing was chosen.
    """

    view: str
    strength: float
    mix: float
    gate_open: bool
    diagnosis: Diagnosis | None = None


def choose(graph: KnowledgeGraph, student: Mapping[str, Any], *, seed: int, replicate: int) -> Choice:
    """Fills in every `auto` by the graph's own trials, with the edges that the student will have.

    A control's edges are drawn for the trials exactly as for the graph, so it is tuned as hard as the real
    thing.

    Args:
      graph: with material, where anything is `auto`.
      student: see the module.
      seed: with `replicate`, of a control's draw.
    """
    if student["edges"] == "none":
        return Choice("none", 0.0, 0.0, False)
    open_ends = AUTO in (student["view"], student["strength"], student["mix"])
    if graph.material is None:
        if open_ends:
            raise UserError("graph: 'auto' is picked by the diagnosis, but this graph has none. Give values.")
        return Choice(student["view"], float(student["strength"]), float(student["mix"]), True)
    if not open_ends and not student["gate"]:
        return Choice(student["view"], float(student["strength"]), float(student["mix"]), True)
    scores = _scores(graph, student, seed, replicate)
    best = scores.best
    is_open = scores.gate_open or not student["gate"]
    return Choice(best.view, best.strength, best.mix if is_open else 0.0, is_open, scores)


def edges_of(graph: KnowledgeGraph, kind: str, view: str, *, seed: int, replicate: int) -> Edges:
    """The edges of a student, `[1, N, K]`, or `[V, N, K]` for `mean`.

    Args:
      kind: `real`, `random` or `class_random`.
      view: a view, or `mean`.
      seed: with `replicate`, of a control's draw.
    """
    names = graph.views if view == "mean" else (view,)
    believed = believed_class(graph.beliefs, graph.labels)
    tables = [
        _control(kind, graph.edges(name), believed, seed, replicate, graph.views.index(name), 0) for name in names
    ]
    return Edges(*(np.concatenate(part) for part in zip(*tables, strict=True)))


def attended_edges(graph: KnowledgeGraph, kind: str, *, seed: int, replicate: int) -> Edges:
    """What the feature join of a student attends over, `[V + R, N, K]`: all views' edges, then all relations'.

    A control's relations are drawn like its views. Tables narrower than the widest are filled up with no edge.
    """
    similar = edges_of(graph, kind, "mean", seed=seed, replicate=replicate)
    believed = believed_class(graph.beliefs, graph.labels)
    tables = [Edges(*pair) for pair in zip(*similar, strict=True)]
    for index, table in enumerate(graph.relations.values(), len(graph.views)):
        tables.append(_control(kind, table, believed, seed, replicate, index, 0))
    widest = max(table.ids.shape[1] for table in tables)
    wide = [[(0, 0), (0, widest - table.ids.shape[1])] for table in tables]
    return Edges(
        np.stack([np.pad(table.ids, pad, constant_values=-1) for table, pad in zip(tables, wide, strict=True)]),
        np.stack([np.pad(table.weights, pad) for table, pad in zip(tables, wide, strict=True)]),
    )


def joined(
    graph: KnowledgeGraph, student: Mapping[str, Any], choice: Choice, *, seed: int, replicate: int
) -> Float32[np.ndarray, "N C"]:
    """The joined beliefs of a student; the teacher's own where it has no edges or the gate is shut."""
    if student["edges"] == "none" or not choice.gate_open:
        return graph.beliefs
    edges = edges_of(graph, student["edges"], choice.view, seed=seed, replicate=replicate)
    start = q0(graph.beliefs, graph.labels, bool(student["inject"]))
    temperature, rounds = graph.settings["temperature"], graph.settings["rounds"]
    q = join_beliefs(start, edges.ids, edges.weights, temperature, choice.strength, rounds)
    return np.asarray(sharpen(q, student["sharpen"]), np.float32)


def _scores(graph: KnowledgeGraph, student: Mapping[str, Any], seed: int, replicate: int) -> Diagnosis:
    plain = student["edges"] == "real" and student["inject"] and student["sharpen"] == 1
    if plain and graph.diagnosis and {student[key] for key in ("view", "strength", "mix")} == {AUTO}:
        return graph.diagnosis  # the same question was asked when the graph was built
    material = graph.material
    assert material is not None
    tables = {
        view: _trial_controls(student["edges"], table, material, seed, replicate, graph.views.index(view))
        for view, table in material.edges.items()
    }
    return diagnose(
        material,
        tables,
        temperature=graph.settings["temperature"],
        rounds=graph.settings["rounds"],
        inject=bool(student["inject"]),
        sharpen=float(student["sharpen"]),
        views=None if student["view"] == AUTO else (student["view"],),
        strengths=STRENGTHS if student["strength"] == AUTO else (student["strength"],),
        mixes=MIXES if student["mix"] == AUTO else (student["mix"],),
    )


def _trial_controls(kind: str, table: Edges, material: Material, seed: int, replicate: int, index: int) -> Edges:
    """A control's tables `[F, M, K]` for the trials. What is believed of a node never uses the label a trial hides."""
    if kind != "class_random":
        return _control(kind, table, np.zeros(0, np.int32), seed, replicate, index, material.pool)
    made = []
    for trial, beliefs in enumerate(material.beliefs):
        seen = believed_class(beliefs, np.where(material.trial_of == trial, -1, material.labels))
        shared = trial % len(table.ids)
        own = Edges(table.ids[shared], table.weights[shared])
        made.append(_control(kind, own, seen, seed, replicate, index, material.pool))
    return Edges(*(np.stack(part) for part in zip(*made, strict=True)))


def _control(kind: str, edges: Edges, classes: np.ndarray, seed: int, replicate: int, index: int, pool: int) -> Edges:
    if kind == "random":
        return controls.random_edges(edges, seed, replicate, index, pool)
    if kind == "class_random":
        return controls.class_random(edges, classes, seed, replicate, index, pool)
    return edges
