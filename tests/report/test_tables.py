import copy
from collections.abc import Callable
from typing import Any

import pytest

from jkd.report import write_report
from jkd.report.tables import best_student, entries, finding, table


def _with(summary: dict[str, Any], mean: float, low: float | None, high: float | None) -> dict[str, Any]:
    """The summary with another difference of the best student to the reference."""
    changed = copy.deepcopy(summary)
    changed["paired"]["knowledge_graph"]["kd"]["accuracy"] = {"mean": mean, "low": low, "high": high, "n": 3}
    return changed


def test_rows_go_from_the_teacher_and_the_worst_student_to_the_best(written: tuple) -> None:
    _, summary = written
    names = list(entries(summary))
    means = [summary["students"][name]["metrics"]["accuracy"]["mean"] for name in names[1:]]
    assert names[0] == "teacher" and means == sorted(means)
    lines = table(summary).splitlines()
    assert [line.split()[0] for line in lines[1:6]] == names
    assert len({len(line) for line in lines[:6]}) == 1


def test_the_table_says_over_what_how_many_labels_and_against_whom(written: tuple) -> None:
    _, summary = written
    text = table(summary)
    assert "interval over replicates" in text
    assert "labels used: 20 to train, 0 more to choose settings" in text
    assert "accuracy minus that of kd, paired" in text


def test_the_table_names_students_whose_labels_differ_or_who_are_unfinished(written: tuple) -> None:
    _, summary = written
    changed = copy.deepcopy(summary)
    changed["labels"]["choose"] = 40
    changed["students"]["kd"]["labels"]["choose"] = 40
    del changed["students"]["random_edges"]["digests"]["0/0"]
    text = table(changed)
    assert "random_edges: 20 to train, 0 more to choose" in text
    assert "unfinished: random_edges, 2 of 3 runs" in text


@pytest.mark.parametrize(
    ("difference", "says"),
    [
        ((0.03, 0.01, 0.05), "a difference of +3.0 points (paired 95 % interval +1.0 to +5.0, n = 3)."),
        ((0.03, -0.01, 0.07), "an interval that includes 0, so neither is shown to be better."),
        ((0.03, None, None), "without an interval"),
    ],
)
def test_the_finding_says_what_the_interval_allows(written: tuple, difference: tuple, says: str) -> None:
    _, summary = written
    assert best_student(summary) == "knowledge_graph"
    assert says in finding(_with(summary, *difference))


def test_the_finding_says_when_nobody_beats_the_reference(written: tuple) -> None:
    _, summary = written
    changed = copy.deepcopy(summary)
    changed["students"]["kd"]["metrics"]["accuracy"]["mean"] = 0.999
    assert finding(changed).startswith("No student does better than kd (99.9 % accuracy)")


def test_a_run_without_finished_students_has_a_table_and_a_finding(written: tuple) -> None:
    _, summary = written
    empty = copy.deepcopy(summary) | {"students": {}, "paired": {}}
    empty["config"]["students"] = {}
    assert finding(empty) == "No student is finished yet."
    assert table(empty).splitlines()[1].startswith("teacher")


def test_below_the_table_stands_how_far_replicates_differ_and_that_they_are_replicates(written: tuple) -> None:
    _, summary = written
    block = table(summary).split("how far two replicates (pool, labels and teacher, too) differ")[1]
    block, intervals = (part.splitlines() for part in block.split("\n\n95 % intervals"))
    assert block[1].split() == ["churn", "good", "bad", "both", "wrong", "normalised", "JS", "pairs"]
    assert [line.split()[0] for line in block[2:]] == list(entries(summary))
    churn = summary["variance"]["kd"]["replicates"]["churn"]["mean"]
    assert summary["students"]["kd"]["metrics"]["replicate_churn"]["mean"] == churn
    assert f"{100 * churn:.1f}" in next(line for line in block if line.split()[:1] == ["kd"])
    assert intervals[1].split() == ["over", "churn", "good", "bad", "agreement", "normalised", "JS"]
    rows = intervals[2:]
    assert [line.split()[:2] for line in rows[::2]] == [[name, "inputs"] for name in entries(summary)]
    assert {line.split()[0] for line in rows[1::2]} == {"replicates"}
    entry = summary["variance"]["kd"]["replicates"]
    place = 2 * list(entries(summary)).index("kd")
    for over, cells in (("over_inputs", rows[place].split()[2:]), ("over_runs", rows[place + 1].split()[1:])):
        assert cells[0] == f"{100 * entry[over]['churn']['low']:.1f}..{100 * entry[over]['churn']['high']:.1f}"
        assert cells[5] == f"{entry[over]['js']['low']:.3f}..{entry[over]['js']['high']:.3f}"


def test_between_seeds_the_block_has_the_neighbours_and_a_dash_where_there_are_none(make_run: Callable) -> None:
    run = make_run(replicates=1, seeds=(0, 1))
    text = table(write_report(run.workdir, run.dataset, run.graph))
    block, intervals = text.split("how far two seeds of a replicate differ")[1].split("\n\n95 % intervals")
    assert "  inputs  " in intervals and "  seeds  " not in intervals  # two seeds have none over seeds
    assert intervals.splitlines()[1].split()[-4:] == ["5", "nearest", "10", "nearest"]
    block = block.splitlines()
    assert "5 nearest  10 nearest" in block[1] and "Jaccard" in block[-1]
    assert next(line for line in block if line.split()[:1] == ["kd"]).split()[-3:] == ["–", "–", "1"]


def test_a_lone_run_has_no_such_block(make_run: Callable) -> None:
    run = make_run(replicates=1)
    assert "how far" not in table(write_report(run.workdir, run.dataset, run.graph))
