import json
import shutil
from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from jkd import digest, evaluate, files
from jkd.errors import UserError
from jkd.report.collect import collect
from jkd.report.summary import pairs_of, reference_of, summarize

STUDENTS = ("cross_entropy", "kd", "random_edges", "knowledge_graph")


def _result(run: Any, *place: object) -> dict[str, Any]:
    return files.read_json(run.workdir.joinpath("replicates", *map(str, place), "result.json"))


def test_over_replicates_means_and_intervals_are_those_of_the_replicates_means_over_seeds(
    make_run: Callable,
) -> None:
    run = make_run(replicates=3, seeds=(0, 1))
    summary = summarize(collect(run.workdir), run.graph, run.dataset.test.labels)
    for metric in ("accuracy", "kl"):
        per_replicate = [
            np.mean([_result(run, replicate, "students", "kd", seed)["metrics"][metric] for seed in (0, 1)])
            for replicate in range(3)
        ]
        expected = evaluate.interval(per_replicate)._asdict()
        assert summary["students"]["kd"]["metrics"][metric] == pytest.approx(expected)


def test_over_seeds_there_is_one_value_a_seed_and_the_teacher_has_no_interval(make_run: Callable) -> None:
    run = make_run(replicates=1, seeds=(0, 1, 2))
    summary = summarize(collect(run.workdir), run.graph, run.dataset.test.labels)
    values = [_result(run, 0, "students", "kd", seed)["metrics"]["nll"] for seed in range(3)]
    assert summary["students"]["kd"]["metrics"]["nll"] == pytest.approx(evaluate.interval(values)._asdict())
    assert summary["teacher"]["metrics"]["nll"]["n"] == 1 and summary["teacher"]["metrics"]["nll"]["low"] is None
    teacher = _result(run, 0, "teacher")["metrics"]["nll"]
    assert summary["paired"]["kd"]["teacher"]["nll"]["mean"] == pytest.approx(np.mean(values) - teacher)
    assert summary["paired"]["kd"]["teacher"]["nll"]["n"] == 3


def test_every_ordered_pair_has_its_difference_and_the_reverse_is_its_negative(written: tuple) -> None:
    _, summary = written
    for a, b in permutations(("teacher", *STUDENTS), 2):
        for metric in summary["paired"][a][b]:
            there, back = summary["paired"][a][b][metric], summary["paired"][b][a][metric]
            assert there["n"] == back["n"]
            if there["n"]:
                assert there["mean"] == pytest.approx(-back["mean"])
            if there["n"] > 1:
                assert there["low"] == pytest.approx(-back["high"])


def test_what_was_not_measured_is_null_with_n_zero(written: tuple) -> None:
    _, summary = written
    empty = {"mean": None, "sd": None, "n": 0, "low": None, "high": None}
    assert summary["teacher"]["metrics"]["agreement"] == empty
    assert summary["paired"]["kd"]["teacher"]["kl"] == {"mean": None, "low": None, "high": None, "n": 0}


def test_digests_receipt_labels_and_graph_are_those_of_the_files(written: tuple) -> None:
    run, summary = written
    assert summary["students"]["kd"]["digests"] == {
        f"{replicate}/0": _result(run, replicate, "students", "kd", 0)["params"] for replicate in range(3)
    }
    assert summary["receipt"]["teacher"]["bytes"] == 120_000 and set(summary["receipt"]) == {
        "teacher",
        *STUDENTS,
    }
    assert summary["labels"] == {"train": 20, "choose": 0}
    assert summary["graph"]["sha256"] == run.graph.digest and summary["graph"]["nodes"] == 60 + 6 + 2
    assert summary["graph"]["diagnosis"]["gate_open"] is True
    assert summary["primary"] == {"metric": "accuracy", "direction": "max"}


def test_labels_are_the_most_that_any_student_saw(make_run: Callable) -> None:
    run = make_run(replicates=1)
    path = run.workdir / "replicates/0/students/kd/0/result.json"
    files.write_signed(path, files.read_json(path) | {"labels": {"train": 20, "choose": 40}})
    summary = summarize(collect(run.workdir), run.graph, run.dataset.test.labels)
    assert summary["labels"] == {"train": 20, "choose": 40}
    assert summary["students"]["random_edges"]["labels"] == {"train": 20, "choose": 0}


def test_an_unfinished_run_pairs_what_is_there_and_lists_what_is_not(make_run: Callable) -> None:
    run = make_run(replicates=3)
    shutil.rmtree(run.workdir / "replicates/2/students/kd")
    shutil.rmtree(run.workdir / "replicates/1/teacher")
    results = collect(run.workdir)
    assert results.missing == ("the teacher of replicate 1", "kd of replicate/seed 2/0")
    summary = summarize(results, None, run.dataset.test.labels)
    assert summary["paired"]["knowledge_graph"]["kd"]["accuracy"]["n"] == 2
    assert summary["graph"] == {"nodes": None, "edges": None, "sha256": None, "diagnosis": None}
    json.dumps(summary, allow_nan=False)


def test_the_reference_is_the_named_student_then_kd_then_the_first(written: tuple) -> None:
    _, summary = written
    config = summary["config"]
    assert reference_of(summary) == "kd"
    named = config | {"report": config["report"] | {"reference": "random_edges"}}
    assert reference_of({"config": named}) == "random_edges"
    assert reference_of({"config": config | {"students": {"b": {}, "a": {}}}}) == "b"
    assert reference_of({"config": config | {"students": {}}}) is None


@pytest.mark.parametrize(
    ("replicates", "seeds", "expected"),
    [(1, [0], None), (3, [0], "replicates"), (1, [0, 1], "seeds"), (2, [0, 1], "seeds")],
)
def test_pairs_are_of_seeds_where_there_are_some_then_of_replicates(replicates, seeds, expected) -> None:
    assert pairs_of({"config": {"replicates": replicates, "seeds": seeds}}) == expected


def test_predictions_of_other_test_inputs_are_refused_by_name(make_run: Callable) -> None:
    run = make_run(replicates=1)
    path = run.workdir / "replicates/0/students/kd/0/predictions.safetensors"
    fewer = {"logits": files.read_arrays(path)["logits"][:-1]}
    files.write_arrays(path, fewer)
    with pytest.raises(UserError, match=r"predictions\.safetensors is damaged"):
        summarize(collect(run.workdir), run.graph, run.dataset.test.labels)
    result = path.with_name("result.json")
    files.write_signed(result, files.read_json(result) | {"predictions": digest.of_tree(fewer)})
    with pytest.raises(UserError, match=r"kd/0/predictions\.safetensors: expected 120 test inputs, got 119"):
        summarize(collect(run.workdir), run.graph, run.dataset.test.labels)
