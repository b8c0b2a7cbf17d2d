import html
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from jkd import files
from jkd.report import write_report
from jkd.report.classes import class_graph

HOSTILE = ("<script>alert(1)</script>", "red\x1b[31m", '"><img src=x>', "日本語", "$x_1$ & co", "a" * 60)
VOID = {"meta", "link", "img", "source", "br", "rect"}


class Balance(HTMLParser):
    """Checks that elements close in the order in which they were opened; collects what a page could load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.add(tag)
        assert not any(name == "style" or name.startswith("on") for name, _ in attrs)
        self.addresses += [value for name, value in attrs if name in ("src", "srcset", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _parse(page: str) -> Balance:
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    return parser


def _report(run) -> str:
    write_report(run.workdir, run.dataset, run.graph)
    return (run.workdir / "report" / "index.html").read_text(encoding="utf-8")


def _files(workdir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((workdir / "report").iterdir())}


def test_the_page_needs_nothing_but_itself(written: tuple) -> None:
    run, _ = written
    page = (run.workdir / "report" / "index.html").read_text(encoding="utf-8")
    parsed = _parse(page)
    assert all(re.match(r"data:|#", address) for address in parsed.addresses)
    assert "script" not in parsed.tags
    assert "default-src 'none'; img-src data:; style-src 'sha256-" in page


def test_the_page_has_every_section_twelve_cards_and_both_colour_schemes(written: tuple) -> None:
    run, summary = written
    page = (run.workdir / "report" / "index.html").read_text(encoding="utf-8")
    for title in (
        "Results",
        "Differences",
        "How far replicates differ",
        "Learning curves",
        "Size",
        "The knowledge graph",
        "The class graph",
    ):
        assert f"<h2>{title}</h2>" in page
    assert page.count('<article class="card">') == 12
    assert page.count('<ul class="neighbours">') == 12
    assert "prefers-color-scheme: dark" in page and "@media print" in page
    assert run.graph.digest in page and summary["students"]["kd"]["digests"]["0/0"] in page
    assert "students.kd.objective.kd.temperature = 1.0" in page.replace("&#x27;", "'")
    assert str(run.workdir) not in page


def test_the_same_files_give_the_same_bytes(written: tuple) -> None:
    run, summary = written
    before = _files(run.workdir)
    assert {"index.html", "summary.json", "cards.json", "curves.png", "bytes.png", "classes.png", "repeats.png"} <= set(
        before
    )
    assert write_report(run.workdir, run.dataset, run.graph) == summary
    assert _files(run.workdir) == before
    assert files.read_json(run.workdir / "report" / "summary.json") == summary


@pytest.mark.fault(30)
def test_names_from_data_are_escaped_and_their_control_characters_visible(make_run: Callable) -> None:
    run = make_run(replicates=2, classes=HOSTILE, name="<i>run</i>\x1b[2J")
    page = _report(run)
    parsed = _parse(page)
    assert "script" not in parsed.tags and "i" not in parsed.tags and "\x1b" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "red␛[31m" in page


def test_an_unfinished_run_without_a_graph_has_a_report_that_says_so(make_run: Callable) -> None:
    run = make_run(replicates=1)
    shutil.rmtree(run.workdir / "replicates/0/students/knowledge_graph")
    run.graph = None
    page = _report(run)
    _parse(page)
    assert "Not finished: knowledge_graph of replicate/seed 0/0." in page
    assert "There is one seed, so no interval says what another one would change." in page
    assert "the cards show no neighbours" in page


def test_a_run_of_which_nothing_is_finished_has_a_report(make_run: Callable) -> None:
    run = make_run(replicates=1)
    shutil.rmtree(run.workdir / "replicates")
    run.graph = None
    page = _report(run)
    _parse(page)
    assert "No student is finished yet." in page


def test_a_closed_gate_is_among_the_doubts(make_run: Callable) -> None:
    run = make_run(replicates=1)
    path = run.workdir / "replicates/0/students/knowledge_graph/0/result.json"
    files.write_signed(path, files.read_json(path) | {"choices": {"gate_open": False}})
    assert "knowledge_graph: the diagnosis closed the gate in 1 replicate of 1" in _report(run)


def test_cards_say_where_the_neighbours_do_not_explain_the_prediction(written: tuple) -> None:
    run, _ = written
    page = (run.workdir / "report" / "index.html").read_text(encoding="utf-8")
    found = files.read_json(run.workdir / "report" / "cards.json")
    disagreeing = sum(not card["agrees"] for card in found["cards"])
    assert disagreeing >= 2 and page.count("they do not explain this") == disagreeing
    assert f"{100 * found['surrogate']['agreement']:.1f} %" in page
    assert found["cards"][0]["id"].startswith("test/")


def test_the_class_graph_has_all_edge_types_and_is_cut_to_the_most_confused(written: tuple) -> None:
    run, _ = written
    kinds = {kind for _, _, kind in class_graph(run.graph).edges(data="kind")}
    assert kinds == {"confused_with", "is_a"}
    rng = np.random.default_rng(0)
    weights = rng.random((100, 100)).astype(np.float32) * (1 - np.eye(100, dtype=np.float32))
    names = tuple(f"class {index}" for index in range(100))
    beliefs = np.full((len(run.graph), 100), 0.01, np.float32)
    no_concepts = np.zeros((0, 2), np.int32)
    many = replace(run.graph, classes=names, beliefs=beliefs, confused_with=weights, is_a=no_concepts, material=None)
    assert len(class_graph(many)) == 36


@pytest.mark.parametrize("replicates", [1, 2])
def test_reports_of_few_units_can_be_written(make_run: Callable, replicates: int) -> None:
    _parse(_report(make_run(replicates=replicates, seeds=(0, 1))))


def test_a_config_that_asks_for_no_cards_has_no_section_of_them(make_run: Callable) -> None:
    run = make_run(replicates=1)
    manifest = files.read_json(run.workdir / "manifest.json")
    manifest["config"]["report"]["cards"] = 0
    files.write_json(run.workdir / "manifest.json", manifest)
    assert "Prediction cards" not in _report(run)


def test_between_seeds_the_page_compares_neighbours_and_shows_pairs_of_replicates_apart(make_run: Callable) -> None:
    run = make_run(replicates=2, seeds=(0, 1))
    page = _report(run)
    section = page[page.index('<section id="repeats">') :].split("</section>")[0]
    assert "<h2>How far seeds differ</h2>" in section
    assert "pairs of seeds of one replicate" in section and "pairs of replicates, which differ in their pool" in section
    entry = files.read_json(run.workdir / "report" / "summary.json")["variance"]["knowledge_graph"]["seeds"]
    for some in entry["neighbours"]:
        assert f"{100 * some['jaccard']['mean']:.1f} ({100 * some['random']:.1f})" in section


def test_how_far_runs_differ_has_bootstrap_intervals_over_inputs_and_over_seeds(make_run: Callable) -> None:
    run = make_run(replicates=1, seeds=(0, 1, 2))
    page = _report(run)
    words = html.unescape(re.sub(r"<[^>]+>", " ", page[page.index('<section id="repeats">') :]))
    words = " ".join(words.split())
    assert "percentiles of 2,000 resamples" in words and "Seeds: the seeds of each replicate drawn" in words
    entry = files.read_json(run.workdir / "report" / "summary.json")["variance"]["knowledge_graph"]["seeds"]
    for over, word in (("over_inputs", "inputs"), ("over_runs", "seeds")):
        shares = [entry[over][measure] for measure in ("churn", "good_churn", "bad_churn", "agreement")]
        ends = [f"[{100 * some['low']:.1f}, {100 * some['high']:.1f}]" for some in shares]
        ends += [
            f"[{entry[over][some]['low']:.3f}, {entry[over][some]['high']:.3f}]" for some in ("normalised_churn", "js")
        ]
        ends += [f"[{100 * some[over]['low']:.1f}, {100 * some[over]['high']:.1f}]" for some in entry["neighbours"]]
        assert f"knowledge_graph {word} {' '.join(ends)}" in words


def test_a_lone_run_has_intervals_over_test_inputs_and_no_pairs(make_run: Callable) -> None:
    run = make_run(replicates=1)
    page = _report(run)
    assert "There are no two runs to compare yet." in page and "10,000 resamples of the 120 test inputs" in page
    assert not (run.workdir / "report" / "repeats.png").exists()
