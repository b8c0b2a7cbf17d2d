"""The report of a run: summary.json, figures, and one self-contained page, from its workdir alone."""

import json
from typing import Any

from jkd import files, places
from jkd.graph.knowledge_graph import KnowledgeGraph
from jkd.places import Path
from jkd.report import evidence, sections
from jkd.report.collect import collect
from jkd.report.page import page
from jkd.report.summary import summarize
from jkd.report.tables import table

__all__ = ["table", "write_report"]


def write_report(workdir: Path, dataset: Any, graph: KnowledgeGraph | None) -> dict[str, Any]:
    """Writes `report/` of a workdir: index.html, summary.json, cards.json and the figures as PNG.

    Parts that are not finished are left out and listed. The same files give the same bytes.

    Args:
      workdir: of the run.
      dataset: the run's `jkd.data.DataSet`, for the pictures, labels and ids on the cards.
      graph: the first replicate's knowledge graph, or None where there is none yet.

    Returns:
      The content of summary.json.

    Raises:
      UserError: the workdir has no manifest, or one of its files is broken.
    """
    workdir = places.path_of(workdir)
    results = collect(workdir)
    summary = summarize(results, graph, dataset.test.labels)
    cards = evidence.gather(results, summary, dataset, graph)
    plots = sections.plots(results, summary, graph)
    folder = workdir / "report"
    for old in folder.glob("*.png"):
        if old.stem not in plots:  # of an earlier report, when there was something to draw
            old.unlink()
    for name, plot in plots.items():
        files.write_bytes(folder / f"{name}.png", plot.light)
    files.write_json(folder / "cards.json", cards.as_json())
    text = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False)  # students stay in their order
    files.write_bytes(folder / "summary.json", f"{text}\n".encode())
    files.write_bytes(folder / "index.html", page(results, summary, plots, cards, dataset, graph).encode())
    return summary
