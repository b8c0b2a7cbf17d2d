"""The graph in words: what `jkd graph show` prints."""

from jkd.graph.diagnosis import Diagnosis, Row
from jkd.graph.export import escaped
from jkd.graph.knowledge_graph import KnowledgeGraph

CONFUSIONS = 5  # pairs listed
HEADS = ("strength", "mix", "accuracy", "NLL", "fitted", "T", "homophily")


def describe(graph: KnowledgeGraph) -> str:
    """Counts, homophily, diagnosis and the most confused classes; plain text without control characters."""
    counts = graph.counts
    nodes = ", ".join(f"{number} {kind}" for kind, number in counts["nodes"].items())
    lines = [f"graph {graph.digest[:16]}: {nodes}", "edges:"]
    lines += [f"  {escaped(kind):<24}{number:>9}" for kind, number in counts["edges"].items()]
    lonely = int((graph.neighbours < 0).all(axis=(0, 2)).sum())
    if lonely:
        lines.append(f"  {lonely} samples have no neighbour; they keep the teacher's belief")
    if graph.diagnosis is None:
        lines.append("diagnosis: none (no label was held back)")
    else:
        lines += _diagnosis(graph.diagnosis)
    return "\n".join(lines + _confusions(graph))


def best_of_each(diagnosis: Diagnosis) -> list[Row]:
    """The row without edges, and each view's best."""
    best: dict[str, Row] = {}
    for row in diagnosis.rows:
        if row.view not in best or row.nll_fitted < best[row.view].nll_fitted:
            best[row.view] = row
    return list(best.values())


def _diagnosis(diagnosis: Diagnosis) -> list[str]:
    spent = f"{diagnosis.labels_used} of them spent on this alone" if diagnosis.labels_used else "none spent"
    lines = [
        f"diagnosis by {diagnosis.by}, {diagnosis.scored} labels scored, {spent}:",
        f"  {'view':<16}" + "".join(f"{head:>10}" for head in HEADS),
    ]
    for row in best_of_each(diagnosis):
        alike = diagnosis.homophily.get(row.view)
        cells = (row.strength, row.mix, row.accuracy, row.nll, row.nll_fitted, row.temperature, alike)
        shown = "".join(f"{'-' if cell is None else f'{cell:.3f}':>10}" for cell in cells)
        lines.append(f"  {escaped(row.view):<16}{shown}")
    best = diagnosis.best
    if diagnosis.gate_open:
        verdict = f"edges help: view {escaped(best.view)}, strength {best.strength:g}, mix {best.mix:g}"
    else:
        verdict = "edges do not help here: the gate keeps them off"
    return [*lines, f"  {verdict}"]


def _confusions(graph: KnowledgeGraph) -> list[str]:
    width = len(graph.classes)
    order = (-graph.confused_with).reshape(-1).argsort(kind="stable")[:CONFUSIONS]
    pairs = [(index // width, index % width) for index in order.tolist() if graph.confused_with.flat[index] > 0]
    if not pairs:
        return []
    names = [escaped(name) for name in graph.classes]
    return ["most confused classes (mean belief):"] + [
        f"  {names[said]} -> {names[other]}  {graph.confused_with[said, other]:.3f}" for said, other in pairs
    ]
