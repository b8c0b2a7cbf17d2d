import shutil
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from jkd import digest, evaluate, files
from jkd.report.collect import Part, Results, collect
from jkd.report.variance import MEASURES, Spread, spreads
from jkd.tasks import CLASSIFICATION

NOTHING = {"mean": None, "low": None, "high": None}


def _found(run: Any, name: str) -> tuple[Results, dict[str, Spread | None]]:
    results = collect(run.workdir)
    return results, spreads(results, results.students[name], run.dataset.test.labels, CLASSIFICATION)


def _answers(part: Part) -> np.ndarray:
    return part.predictions()["logits"].argmax(-1)


def _differs(results: Results, name: str, a: tuple[int, int], b: tuple[int, int]) -> float:
    parts = results.students[name]
    return float(np.mean(_answers(parts[a]) != _answers(parts[b])))


def test_of_one_replicate_every_pair_of_seeds_is_compared(make_run: Callable) -> None:
    results, found = _found(make_run(replicates=1, seeds=(0, 1, 2)), "kd")
    entry = found["seeds"].as_dict()
    for measure in MEASURES:
        for over in ("over_inputs", "over_runs"):
            assert entry[over][measure]["mean"] == pytest.approx(entry[measure]["mean"])
            low, high = entry[over][measure]["low"], entry[over][measure]["high"]
            assert low - 1e-12 <= entry[measure]["mean"] <= high + 1e-12
    assert entry["over_inputs"]["churn"]["low"] < entry["over_inputs"]["churn"]["high"] and entry["resamples"] == 2000
    expected = [_differs(results, "kd", (0, a), (0, b)) for a, b in combinations(range(3), 2)]
    assert found["replicates"] is None and entry["pairs"] == 3
    assert entry["churn"]["mean"] == pytest.approx(np.mean(expected)) and entry["churn"]["n"] == 3
    assert list(found["seeds"].values["churn"]) == [0, 1, 2]
    assert entry["churn"]["low"] < entry["churn"]["mean"] < entry["churn"]["high"]
    assert entry["neighbours"] is None


def test_of_several_replicates_seeds_are_compared_within_each_and_replicates_at_each_seed(make_run: Callable) -> None:
    results, found = _found(make_run(replicates=3, seeds=(0, 1)), "kd")
    within = [_differs(results, "kd", (replicate, 0), (replicate, 1)) for replicate in range(3)]
    seeds, replicates = found["seeds"].as_dict(), found["replicates"].as_dict()
    for measure in MEASURES:
        for entry in (seeds, replicates):
            assert entry["over_inputs"][measure]["mean"] == pytest.approx(entry[measure]["mean"])
        assert seeds["over_runs"][measure] == NOTHING  # two seeds are one pair
        assert replicates["over_runs"][measure]["mean"] == pytest.approx(replicates[measure]["mean"])
    assert seeds["churn"] == pytest.approx(evaluate.interval(within)._asdict()) and seeds["pairs"] == 3
    across = [_differs(results, "kd", (a, s), (b, s)) for s in (0, 1) for a, b in combinations(range(3), 2)]
    assert replicates["churn"]["mean"] == pytest.approx(np.mean(across)) and replicates["pairs"] == 6
    assert replicates["churn"]["n"] == 3


@pytest.mark.parametrize(("replicates", "seeds"), [(1, (0, 1, 2)), (3, (0,)), (2, (0, 1))])
def test_the_parts_add_up_whatever_the_pairs(make_run: Callable, replicates: int, seeds: tuple[int, ...]) -> None:
    _, found = _found(make_run(replicates=replicates, seeds=seeds), "cross_entropy")
    for spread in filter(None, found.values()):
        entry = {measure: spread.as_dict()[measure]["mean"] for measure in MEASURES}
        assert entry["good_churn"] + entry["bad_churn"] + entry["both_wrong_churn"] == pytest.approx(entry["churn"])
        assert entry["agreement"] == pytest.approx(1 - entry["churn"])
        if replicates == 1 or spread is found["replicates"]:
            assert entry["normalised_churn"] == pytest.approx(entry["churn"] / entry["expected_churn"])


def test_neighbours_are_compared_between_seeds_and_beside_random_ones(make_run: Callable) -> None:
    run = make_run(replicates=2, seeds=(0, 1))
    _, found = _found(run, "knowledge_graph")
    five, ten = found["seeds"].as_dict()["neighbours"]
    assert (five["k"], ten["k"]) == (5, 10)
    for entry in (five, ten):
        assert entry["random"] == pytest.approx(evaluate.random_jaccard(60, entry["k"]))
        assert entry["random"] < entry["jaccard"]["mean"] < 1 and entry["jaccard"]["n"] == 2
        assert entry["over_inputs"]["mean"] == pytest.approx(entry["jaccard"]["mean"])
        assert entry["over_inputs"]["low"] < entry["jaccard"]["mean"] < entry["over_inputs"]["high"]
        assert entry["over_runs"] == NOTHING


def test_neighbours_of_three_seeds_have_an_interval_over_them(make_run: Callable) -> None:
    _, found = _found(make_run(replicates=1, seeds=(0, 1, 2)), "knowledge_graph")
    for entry in found["seeds"].as_dict()["neighbours"]:
        assert entry["over_runs"]["low"] < entry["jaccard"]["mean"] < entry["over_runs"]["high"]


def test_neighbours_are_never_compared_across_replicates(make_run: Callable) -> None:
    _, found = _found(make_run(replicates=3), "knowledge_graph")
    assert found["seeds"] is None and found["replicates"].as_dict()["neighbours"] is None


def test_neighbours_in_unlike_graphs_are_not_compared(make_run: Callable) -> None:
    run = make_run(replicates=1, seeds=(0, 1))
    path = run.workdir / "replicates/0/students/knowledge_graph/0/result.json"
    files.write_signed(path, files.read_json(path) | {"made_of": {"graph": "a" * 64}})
    assert _found(run, "knowledge_graph")[1]["seeds"].as_dict()["neighbours"] is None


def test_equal_runs_do_not_differ_and_look_up_the_same_neighbours(make_run: Callable) -> None:
    run = make_run(replicates=1, seeds=(0, 1))
    folder = run.workdir / "replicates/0/students/knowledge_graph"
    shutil.copytree(folder / "0", folder / "1", dirs_exist_ok=True)
    entry = _found(run, "knowledge_graph")[1]["seeds"].as_dict()
    assert entry["churn"]["mean"] == entry["normalised_churn"]["mean"] == 0
    assert entry["js"]["mean"] == pytest.approx(0, abs=1e-12)
    assert [some["jaccard"]["mean"] for some in entry["neighbours"]] == [1, 1]


def test_where_no_churn_is_expected_normalised_churn_is_null(make_run: Callable) -> None:
    run = make_run(replicates=1, seeds=(0, 1))
    for seed in (0, 1):
        folder = run.workdir / f"replicates/0/students/kd/{seed}"
        right = {"logits": np.eye(6, dtype=np.float32)[run.dataset.test.labels]}
        files.write_arrays(folder / "predictions.safetensors", right)
        result = files.read_signed(folder / "result.json")
        files.write_signed(folder / "result.json", result | {"predictions": digest.of_tree(right)})
    entry = _found(run, "kd")[1]["seeds"].as_dict()
    assert entry["expected_churn"]["mean"] == 0 and entry["over_inputs"]["normalised_churn"] == NOTHING
    assert entry["normalised_churn"] == {"mean": None, "sd": None, "n": 0, "low": None, "high": None}


def test_a_replicate_that_lacks_a_seed_is_left_out_of_the_pairs_of_replicates(make_run: Callable) -> None:
    run = make_run(replicates=3, seeds=(0, 1))
    shutil.rmtree(run.workdir / "replicates/1/students/kd/1")
    results, found = _found(run, "kd")
    assert found["replicates"].pairs == 2 and found["seeds"].pairs == 2
    assert list(found["seeds"].values["churn"]) == [0, 2]
    expected = np.mean([_differs(results, "kd", (0, seed), (2, seed)) for seed in (0, 1)])
    assert found["replicates"].as_dict()["churn"]["mean"] == pytest.approx(expected)


def test_a_lone_run_has_no_pairs(make_run: Callable) -> None:
    assert _found(make_run(replicates=1), "kd")[1] == {"seeds": None, "replicates": None}
