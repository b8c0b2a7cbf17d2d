"""The class graph drawn: what the teacher confuses with what, and what is a what."""

import math
from typing import Any

import networkx
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from jkd.graph.knowledge_graph import KnowledgeGraph
from jkd.report.plots import WIDTH, Theme, canvas, drawable

MOST = 36  # classes drawn; of more, those in the strongest confusions
STRONGEST = 2  # confusions drawn per class, on average
FLAT = 16  # up to so many classes names are written flat: a 6 on its head is a 9
LETTER = 0.065  # inches that a letter of a name takes


def class_graph(graph: KnowledgeGraph) -> networkx.DiGraph:
    """Classes and concepts as a networkx graph: `confused_with` edges, strongest first, and `is_a` edges.

    Nodes are (`class`, index) and (`concept`, index) with their `name`; edges have a `kind` and a `weight`.
    """
    weights = np.asarray(graph.confused_with, np.float64)
    count = len(graph.classes)
    order = np.argsort(-weights, axis=None, kind="stable")
    shown: list[int] = list(range(count)) if count <= MOST else []
    for flat in order if count > MOST else ():
        for index in divmod(int(flat), count):
            if index not in shown and len(shown) < MOST:
                shown.append(index)
        if len(shown) == MOST:
            break
    made = networkx.DiGraph()
    made.add_nodes_from((("class", index), {"name": graph.classes[index]}) for index in sorted(shown))
    kept = 0
    for flat in order:
        source, target = divmod(int(flat), count)
        if kept >= STRONGEST * len(shown) or weights[source, target] <= 0:
            break
        if source in shown and target in shown:
            weight = float(weights[source, target])
            made.add_edge(("class", source), ("class", target), kind="confused_with", weight=weight)
            kept += 1
    _add_concepts(made, graph)
    return made


def _add_concepts(made: networkx.DiGraph, graph: KnowledgeGraph) -> None:
    count = len(graph.classes)

    def node(index: int) -> tuple[str, int]:
        return ("class", index) if index < count else ("concept", index - count)

    pairs = [(node(int(child)), node(int(parent))) for child, parent in graph.is_a]
    for _ in range(len(pairs)):  # a concept is drawn when something below it is
        before = len(made)
        for child, parent in pairs:
            if child in made and parent not in made:
                made.add_node(parent, name=graph.concepts[parent[1]])
        if len(made) == before:
            break
    made.add_edges_from((child, parent, {"kind": "is_a", "weight": 1.0}) for child, parent in pairs if child in made)


def draw(graph: KnowledgeGraph, theme: Theme) -> Figure | None:
    """Classes on a circle, the confused beside each other; concepts inside; thicker is more confused."""
    made = class_graph(graph)
    if not any(kind == "confused_with" for _, _, kind in made.edges(data="kind")) and not len(graph.is_a):
        return None
    places = _places(made)
    figure, (axis,) = canvas(WIDTH, WIDTH)
    axis.set_axis_off()
    axis.set_aspect("equal")
    strongest = float(graph.confused_with.max()) or 1.0
    for source, target, data in made.edges(data=True):
        axis.add_patch(_edge(places[source], places[target], data["kind"], data["weight"] / strongest, theme))
    crowded = sum(kind == "class" for kind, _ in made) > FLAT
    for node, name in made.nodes(data="name"):
        _node(axis, node, drawable(name, node[1]), places[node], crowded, theme)
    # room for the longest name outside the circle
    room = LETTER * max(len(_short(drawable(name, node[1]))) for node, name in made.nodes(data="name"))
    limit = 1.14 / (1 - 2 * room / WIDTH)
    axis.set_xlim(-limit, limit)
    axis.set_ylim(-limit, limit)
    return figure


def _edge(start: Any, end: Any, kind: str, share: float, theme: Theme) -> FancyArrowPatch:
    confused = kind == "confused_with"
    return FancyArrowPatch(
        start,
        end,
        connectionstyle="arc3,rad=0.18" if confused else "arc3,rad=0",
        arrowstyle="-|>",
        mutation_scale=7,
        shrinkA=7,
        shrinkB=7,
        linewidth=0.4 + 2.6 * share**2 if confused else 0.9,
        linestyle="-" if confused else (0, (3, 2)),
        color=theme.accent if confused else theme.faint,
        alpha=0.15 + 0.75 * share if confused else 1.0,
    )


def _node(axis: Any, node: tuple[str, int], name: str, place: tuple[float, float], crowded: bool, theme: Theme) -> None:
    x, y = place
    if node[0] == "concept":
        axis.plot([x], [y], "s", color=theme.cycle[0], markersize=6)
        axis.annotate(name, (x, y), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=7, style="italic")
        return
    axis.plot([x], [y], "o", color=theme.ink, markersize=6)
    flat = {"ha": "center" if abs(x) < 0.2 else "left" if x > 0 else "right", "va": "center"}
    axis.text(1.1 * x, 1.1 * y, _short(name), fontsize=8, **(_outward(x, y) if crowded else flat))


def _outward(x: float, y: float) -> dict[str, Any]:
    """Text along the radius, never upside down."""
    angle = math.degrees(math.atan2(y, x))
    flipped = abs(angle) > 90
    rotation = angle + 180 if flipped else angle
    return {
        "ha": "right" if flipped else "left",
        "va": "center",
        "rotation": rotation,
        "rotation_mode": "anchor",
    }


def _places(made: networkx.DiGraph) -> dict[Any, tuple[float, float]]:
    """Classes round the circle, by concept, then confusion; concepts amid what is below them."""
    classes = _around(made)
    step = 2 * math.pi / max(1, len(classes))
    places = {node: (math.cos(step * i), math.sin(step * i)) for i, node in enumerate(classes)}
    concepts = [node for node in made if node[0] == "concept"]
    for depth in range(len(concepts)):
        for node in concepts:
            children = (child for child, _, kind in made.in_edges(node, data="kind") if kind == "is_a")
            below = [child for child in children if child in places]
            if node not in places and below:
                x, y = (sum(places[child][axis] for child in below) / len(below) for axis in (0, 1))
                radius, angle = max(math.hypot(x, y), 1e-9), math.atan2(y, x)
                length = 0.62 / (1 + 0.6 * (depth > 0)) if radius > 0.05 else 0.0
                places[node] = (length * math.cos(angle), length * math.sin(angle))
    for index, node in enumerate(node for node in concepts if node not in places):
        places[node] = (0.1 * index, 0.0)
    return places


def _around(made: networkx.DiGraph) -> list[Any]:
    """A greedy walk: the one left that it is most confused with, its own concept first."""
    left = [node for node in made if node[0] == "class"]
    concept = {node: _concept(made, node) for node in left}

    def tie(a: Any, b: Any) -> float:
        both = (made.get_edge_data(a, b), made.get_edge_data(b, a))
        return math.fsum(data["weight"] for data in both if data and data["kind"] == "confused_with")

    walk = [left.pop(0)] if left else []
    while left:
        here = walk[-1]
        nearest = max(left, key=lambda node: (concept[node] == concept[here], tie(here, node), -left.index(node)))
        left.remove(nearest)
        walk.append(nearest)
    return walk


def _concept(made: networkx.DiGraph, node: Any) -> int:
    """The first concept that a class is in; -1 without one."""
    above = (parent[1] for _, parent, kind in made.out_edges(node, data="kind") if kind == "is_a")
    return min(above, default=-1)


def _short(name: str) -> str:
    return name if len(name) <= 18 else name[:17] + "…"
