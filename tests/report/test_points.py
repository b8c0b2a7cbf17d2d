import shutil
from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from jkd import evaluate
from jkd.report.collect import collect
from jkd.report.summary import summarize

NOTHING = {"mean": None, "low": None, "high": None}


def _summary(run: Any) -> dict[str, Any]:
    return summarize(collect(run.workdir), run.graph, run.dataset.test.labels)


@pytest.mark.parametrize(("replicates", "seeds"), [(3, (0,)), (1, (0, 1)), (2, (0, 1))])
def test_means_are_those_of_the_intervals_over_runs(make_run: Callable, replicates: int, seeds: tuple) -> None:
    summary = _summary(make_run(replicates=replicates, seeds=seeds))
    everyone = {"teacher": summary["teacher"], **summary["students"]}
    for name, entry in everyone.items():
        found = summary["points"]["accuracy"][name]
        assert found["mean"] == pytest.approx(entry["metrics"]["accuracy"]["mean"])
        assert found["low"] < found["mean"] < found["high"]
    for a, b in permutations(everyone, 2):
        there, back = summary["points"]["paired"][a][b], summary["points"]["paired"][b][a]
        assert there["mean"] == pytest.approx(summary["paired"][a][b]["accuracy"]["mean"])
        assert (there["low"], there["high"]) == (-back["high"], -back["low"])


def test_the_interval_is_the_bootstrap_of_the_share_of_runs_that_are_right(make_run: Callable) -> None:
    run = make_run(replicates=3)
    parts, labels = collect(run.workdir).students, run.dataset.test.labels
    right = {
        name: np.mean([part.predictions()["logits"].argmax(-1) == labels for part in parts[name].values()], axis=0)
        for name in parts
    }
    points = _summary(run)["points"]
    columns = np.column_stack([right["kd"], right["kd"] - right["cross_entropy"]])
    alone, paired = (span._asdict() for span in evaluate.bootstrap(columns))
    assert points["accuracy"]["kd"] == pytest.approx(alone)
    assert points["paired"]["kd"]["cross_entropy"] == pytest.approx(paired)
    assert points["n"] == 120 and points["resamples"] == 10_000


def test_differences_are_over_the_units_that_both_have(make_run: Callable) -> None:
    run = make_run(replicates=3)
    shutil.rmtree(run.workdir / "replicates/0/students/kd")
    shutil.rmtree(run.workdir / "replicates/1/teacher")
    summary = _summary(run)
    for a, b in permutations(("teacher", "kd", "cross_entropy"), 2):
        expected = summary["paired"][a][b]["accuracy"]["mean"]
        assert summary["points"]["paired"][a][b]["mean"] == pytest.approx(expected)


def test_what_is_not_there_is_null(make_run: Callable) -> None:
    run = make_run(replicates=1)
    shutil.rmtree(run.workdir / "replicates/0/students/kd")
    points = _summary(run)["points"]
    assert points["accuracy"]["kd"] == NOTHING and points["paired"]["kd"]["teacher"] == NOTHING
    assert points["accuracy"]["random_edges"]["low"] is not None
    shutil.rmtree(run.workdir / "replicates")
    assert set(map(str, _summary(run)["points"]["accuracy"].values())) == {str(NOTHING)}
