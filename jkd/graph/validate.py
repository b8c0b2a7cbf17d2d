"""What a graph must be before anything is trained on it."""

from collections.abc import Iterator

import numpy as np

from jkd.errors import UserError
from jkd.graph.knowledge_graph import KnowledgeGraph
from jkd.graph.nearest import Edges
from jkd.graph.taxonomy import on_a_cycle

SHOWN = 20  # findings a message lists


def check(graph: KnowledgeGraph) -> None:
    """Raises a `UserError` that lists what is wrong with a graph, up to 20 findings, where anything is."""
    found = list(findings(graph))
    if found:
        more = f"\n  and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise UserError("this is not a valid knowledge graph:\n  " + "\n  ".join(found[:SHOWN]) + more)


def findings(graph: KnowledgeGraph) -> Iterator[str]:
    """Everything wrong with a graph, a sentence each; nothing for a good one."""
    basics = [*_names(graph), *_shapes(graph)]
    yield from basics
    if basics:
        return  # the checks below would trip over them
    nodes, classes = len(graph), len(graph.classes)
    steps = np.diff(graph.sample)
    if nodes and (graph.sample.min() < 0 or (steps < 0 if graph.boxes is not None else steps <= 0).any()):
        yield "sample: indices must rise and not be negative"
    yield from _finite("features", graph.features)
    yield from _beliefs("beliefs", graph.beliefs)
    yield from _labels("labels", graph.labels, classes)
    for v, view in enumerate(graph.views):
        table = Edges(graph.neighbours[v], graph.weights[v])
        yield from _table(f"similar_to/{view}", table, nodes, own=True)
    for name, table in graph.relations.items():
        yield from _table(name, table, nodes, own=True)
    if graph.boxes is not None:
        yield from _finite("boxes", graph.boxes)
        if not (graph.boxes[:, 2:] > graph.boxes[:, :2]).all():
            yield "boxes: one has no area"
    yield from _table("predicted_as", graph.predicted_as, classes, own=False)
    yield from _finite("confused_with", graph.confused_with)
    if np.diag(graph.confused_with).any():
        yield "confused_with: the diagonal must be 0"
    yield from _taxonomy(graph)
    yield from _material(graph)
    yield from _diagnosis(graph)


def _shapes(graph: KnowledgeGraph) -> Iterator[str]:
    n, c, v = len(graph.sample), len(graph.classes), len(graph.views)
    d, k, m = graph.features.shape[-1], graph.neighbours.shape[-1], graph.predicted_as.ids.shape[-1]
    expected: dict[str, tuple[type, tuple[int, ...]]] = {
        "sample": (np.int32, (n,)),
        "features": (np.float32, (n, d)),
        "beliefs": (np.float32, (n, c)),
        "labels": (np.int32, (n,)),
        "neighbours": (np.int32, (v, n, k)),
        "weights": (np.float32, (v, n, k)),
        "predicted_as.ids": (np.int32, (n, m)),
        "predicted_as.weights": (np.float32, (n, m)),
        "confused_with": (np.float32, (c, c)),
        "is_a": (np.int32, (len(graph.is_a), 2)),
    }
    if graph.boxes is not None:
        expected["boxes"] = (np.float32, (n, 4))
    for name, table in graph.relations.items():
        expected[f"{name}.ids"] = (np.int32, (n, table.ids.shape[-1]))
        expected[f"{name}.weights"] = (np.float32, (n, table.ids.shape[-1]))
    if graph.material:
        trials, rows = graph.material.beliefs.shape[0], len(graph.material.labels)
        expected["material.beliefs"] = (np.float32, (trials, rows, c))
        expected["material.labels"] = (np.int32, (rows,))
        expected["material.trial_of"] = (np.int32, (rows,))
        for index, table in enumerate(graph.material.edges.values()):
            expected[f"material.neighbours.{index}"] = (np.int32, (len(table.ids), rows, k))
            expected[f"material.weights.{index}"] = (np.float32, (len(table.ids), rows, k))
            if len(table.ids) not in (1, trials):
                yield f"material: {len(table.ids)} tables of a view for {trials} trials"
    arrays = graph.arrays()
    for name, (dtype, shape) in expected.items():
        array = arrays[name]
        if array.dtype != dtype or array.shape != shape:
            wanted = f"{np.dtype(dtype).name}{list(shape)}"
            yield f"{name}: expected {wanted}, got {array.dtype.name}{list(array.shape)}"


def _finite(name: str, array: np.ndarray) -> Iterator[str]:
    finite = np.isfinite(array).reshape(len(array), -1).all(1)
    if not finite.all():
        yield f"{name}: {int((~finite).sum())} rows are not finite, the first is {int(finite.argmin())}"


def _beliefs(name: str, beliefs: np.ndarray) -> Iterator[str]:
    """Rows of probabilities that sum to 1."""
    with np.errstate(invalid="ignore"):
        good = (np.abs(beliefs.sum(1, dtype=np.float64) - 1) < 1e-3) & (beliefs >= 0).all(1)
    if not good.all():
        bad = int(good.argmin())
        yield f"{name}: {int((~good).sum())} rows are not probabilities that sum to 1, the first is {bad}"


def _labels(name: str, labels: np.ndarray, classes: int) -> Iterator[str]:
    bad = np.flatnonzero((labels < -1) | (labels >= classes))
    if len(bad):
        yield f"{name}: node {bad[0]} has label {labels[bad[0]]}; expected -1 (hidden) to {classes - 1}"


def _table(name: str, table: Edges, targets: int, own: bool) -> Iterator[str]:
    """A padded neighbour table: ids in range, no self loop, none twice, weights finite and sorted."""
    ids, weights = table
    checks = {
        f"an id is outside -1 to {targets - 1}": (ids < -1) | (ids >= targets),
        "an edge leads to itself": (ids == np.arange(len(ids))[:, None]) & own,
        "a weight is not finite": ~np.isfinite(weights),
        "a weight stands where there is no edge": (ids < 0) & (weights != 0),
    }
    rows = {what: bad.any(1) for what, bad in checks.items()}
    in_order = np.sort(ids, axis=1)
    rows["an edge comes up twice"] = ((in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] >= 0)).any(1)
    present = ids >= 0
    rows["an edge stands after a gap"] = (present[:, 1:] & ~present[:, :-1]).any(1)
    with np.errstate(invalid="ignore"):
        falls = (weights[:, 1:] > weights[:, :-1]) | ((weights[:, 1:] == weights[:, :-1]) & (ids[:, 1:] < ids[:, :-1]))
    rows["edges are not sorted by (weight falling, id rising)"] = (falls & present[:, 1:] & present[:, :-1]).any(1)
    for what, bad in rows.items():
        if bad.any():
            yield f"{name}: {what} in {int(bad.sum())} rows, the first is {int(bad.argmax())}"


def _taxonomy(graph: KnowledgeGraph) -> Iterator[str]:
    classes, everything = len(graph.classes), len(graph.classes) + len(graph.concepts)
    child, parent = graph.is_a.T
    if ((child < 0) | (child >= everything) | (parent < classes) | (parent >= everything)).any():
        yield f"is_a: an edge leads to a class, or outside {classes} classes, {len(graph.concepts)} concepts"
        return
    if len(np.unique(graph.is_a, axis=0)) < len(graph.is_a):
        yield "is_a: an edge comes up twice"
    if (node := on_a_cycle(graph.is_a)) is not None:
        yield f"is_a: there is a cycle through '{[*graph.classes, *graph.concepts][node]}'"


def _names(graph: KnowledgeGraph) -> Iterator[str]:
    for what, names in (("classes", graph.classes), ("concepts", graph.concepts), ("views", graph.views)):
        if not all(isinstance(name, str) for name in names):
            yield f"{what}: a name is no text"
        elif len(set(names)) < len(names):
            yield f"{what}: a name comes up twice"


def _diagnosis(graph: KnowledgeGraph) -> Iterator[str]:
    """Numbers wherever they should be, in the settings and in the diagnosis, and of views that are there."""
    for key, least in (("temperature", 1e-9), ("rounds", 0)):
        value = graph.settings.get(key, 1)
        if not _number(value) or value < least:
            yield f"settings: {key} is {value!r}"
    found = graph.diagnosis
    if found is None:
        return
    views = {"none", "mean", *graph.views}
    if len(found.rows) < 2 or found.rows[0].view != "none" or not all(row.view in views for row in found.rows):
        yield f"diagnosis: expected rows of none, then of {', '.join(graph.views)} or mean"
    scores = [value for row in found.rows for key, value in vars(row).items() if key != "view"]
    scores += [value for value in found.homophily.values() if value is not None]
    if not all(_number(value) for value in (*scores, found.scored, found.labels_used)):
        yield "diagnosis: a score is not a finite number"
    if not set(found.homophily) <= views:
        yield "diagnosis: homophily of a view that is not there"


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _material(graph: KnowledgeGraph) -> Iterator[str]:
    material = graph.material
    if material is None:
        return
    trials, classes = len(material.beliefs), len(graph.classes)
    for trial, beliefs in enumerate(material.beliefs):
        yield from _beliefs(f"material.beliefs of trial {trial}", beliefs)
    yield from _labels("material.labels", material.labels, classes)
    if ((material.trial_of < -1) | (material.trial_of >= trials)).any():
        yield f"material.trial_of: expected -1 to {trials - 1}"
    elif not ((material.trial_of >= 0) & (material.labels >= 0)).any():
        yield "material: no label is held back, so nothing can be scored"
    if material.pool != len(graph):
        yield f"material: it is about {material.pool} nodes, the graph about {len(graph)}"
    for view, table in material.edges.items():
        for trial in range(len(table.ids)):
            one = Edges(table.ids[trial], table.weights[trial])
            yield from _table(f"material edges of {view}, trial {trial}", one, material.pool, own=True)
