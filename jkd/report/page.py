"""index.html: one file that needs nothing else, no script and no network."""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jkd.graph.knowledge_graph import KnowledgeGraph
from jkd.report import evidence, markup, repeats, sections, tables, text
from jkd.report.collect import Results
from jkd.report.plots import Plot


def page(
    results: Results,
    summary: Mapping[str, Any],
    plots: Mapping[str, Plot],
    cards: evidence.Cards,
    dataset: Any,
    graph: KnowledgeGraph | None,
) -> str:
    """The whole page."""
    data = results.manifest["data"]
    doubts = sections.doubts(results, summary, graph, cards.doubt)
    parts = [
        ("results", "Results", sections.results_table(summary, results)),
        ("by-class", "Class by class", sections.by_class(summary)),
        ("differences", "Differences", sections.differences(summary, plots.get("differences"))),
        ("repeats", repeats.title(summary), repeats.section(summary, plots.get("repeats"))),
        ("curves", "Learning curves", _curves(plots.get("curves"))),
        ("size", "Size", sections.sizes(summary, plots.get("bytes"))),
        ("graph", "The knowledge graph", sections.graph_facts(summary, graph, plots.get("diagnosis"))),
        ("classes", "The class graph", _classes(plots.get("classes"), graph)),
        ("cards", "Prediction cards", evidence.section(cards, dataset, list(data["classes"]))),
        ("doubts", "What is missing or doubtful", _list(doubts)),
        ("provenance", "Provenance", sections.provenance(results, summary)),
    ]
    body = "".join(f'<section id="{name}"><h2>{title}</h2>{html}</section>' for name, title, html in parts if html)
    links = "".join(f'<a href="#{name}">{title}</a> ' for name, title, html in parts if html)
    title = text.escape(results.config["name"])
    runs = f"{text.plural(results.replicates, 'replicate')} × {text.plural(len(results.seeds), 'seed')}"
    students = text.plural(len(results.students), "student")
    unfinished = ' <a class="warn" href="#doubts">Some parts are not finished.</a>' if results.missing else ""
    return _document(
        title,
        f"<header><h1>{title}</h1>"
        f'<p class="byline">{text.escape(data["name"])}, {students}, {runs}</p>'
        f'<p class="finding">{_unbroken(text.escape(tables.finding(summary)))}{unfinished}</p>'
        f"<nav>{links}</nav></header>{body}<footer>Written by jkd from the files of the run; "
        "<code>summary.json</code> beside this page has every "
        f"figure.</footer>",
    )


def _document(title: str, body: str) -> str:
    style = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><link rel="icon" href="data:,">'
        f"<title>{title}</title><style>{style}</style></head>\n<body><main>{body}</main></body></html>\n"
    )


def _curves(plot: Plot | None) -> str:
    caption = (
        "Median over the runs, with their range. Students have different objectives, so their losses are "
        "not to be compared with each other. Dashed: the teacher."
    )
    return markup.figure(plot, caption)


def _classes(plot: Plot | None, graph: KnowledgeGraph | None) -> str:
    caption = (
        "Curved arrows, <code>confused_with</code>: the teacher’s mean belief in the second class where it "
        "predicts the first; thicker is more, the strongest are drawn."
    )
    if graph is not None and len(graph.is_a):
        caption += " Dashed lines to squares: <code>is_a</code>."
    return markup.figure(plot, caption)


def _unbroken(sentence: str) -> str:
    """Keeps numbers and their units on one line."""
    return sentence.replace(" %", "\u00a0%").replace("n = ", "n\u00a0=\u00a0")


def _list(lines: list[str]) -> str:
    if not lines:
        return "<p>Every part of the run is finished, and nothing was found to warn of.</p>"
    return f'<ul class="doubts">{"".join(f"<li>{text.escape(line)}</li>" for line in lines)}</ul>'
