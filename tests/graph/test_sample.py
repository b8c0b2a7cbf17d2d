"""sample: under a budget, uniformly, by class, or to cover the graph."""

import numpy as np
import pytest

from jkd.errors import UserError
from jkd.graph.nearest import Edges, neighbours
from jkd.graph.sample import believed_class, coverage, facility_location, sampling

CLASSES = np.repeat(np.arange(3), [5, 20, 75])


def edges(seed: int = 0, nodes: int = 60) -> Edges:
    return neighbours(np.random.default_rng(seed).standard_normal((nodes, 4)).astype(np.float32), 5, 64)


def dense(table: Edges) -> np.ndarray:
    """Symmetrised by the larger of both directions, 1 on the diagonal."""
    nodes = len(table.ids)
    matrix = np.zeros((nodes, nodes))
    matrix[np.arange(nodes)[:, None], table.ids] = table.weights
    matrix = np.maximum(np.maximum(matrix, matrix.T), 0)
    np.fill_diagonal(matrix, 1)
    return matrix


def greedy(matrix: np.ndarray, budget: int) -> np.ndarray:
    covered, picks = np.zeros(len(matrix)), []
    for _ in range(budget):
        gains = np.maximum(matrix - covered, 0).sum(1)
        gains[picks] = -1
        picks.append(int(gains.argmax()))
        covered = np.maximum(covered, matrix[picks[-1]])
    return np.asarray(picks)


def test_facility_location_reaches_the_golden_objective(golden: dict) -> None:
    table = Edges(golden["neighbours"], golden["similarity"].astype(np.float32))
    wanted = coverage(table, golden["facility_location"])
    assert coverage(table, facility_location(table, 30)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_lazy_greedy_equals_greedy_that_looks_at_everything(seed: int) -> None:
    table = edges(seed)
    picks = facility_location(table, 20)
    matrix = dense(table)
    assert coverage(table, picks) == pytest.approx(matrix[picks].max(0).sum(), rel=1e-6)
    assert coverage(table, picks) == pytest.approx(coverage(table, greedy(matrix, 20)), rel=1e-6)


def test_facility_location_over_two_views_is_over_the_mean_of_their_similarities() -> None:
    views = [edges(0), edges(1)]
    both = Edges(*(np.stack(part) for part in zip(*views, strict=True)))
    matrix = (dense(views[0]) + dense(views[1])) / 2
    assert coverage(both, facility_location(both, 10)) == pytest.approx(matrix[greedy(matrix, 10)].max(0).sum())


def test_facility_location_covers_better_than_uniform_and_can_pick_all() -> None:
    table = edges()
    uniform = sampling("uniform", 10, classes_of=np.zeros(60, int))
    assert coverage(table, facility_location(table, 10)) > coverage(table, uniform)
    assert sorted(facility_location(table, 60).tolist()) == list(range(60))


@pytest.mark.parametrize("by", ["uniform", "class_balanced", "facility_location"])
def test_keeps_exactly_the_budget_sorted_without_doubles(by: str) -> None:
    table = edges(nodes=100)
    kept = sampling(by, 17, classes_of=CLASSES, edges=table, seed=1, replicate=2)
    assert kept.dtype == np.int32 and len(kept) == 17
    assert (np.diff(kept) > 0).all()
    np.testing.assert_array_equal(kept, sampling(by, 17, classes_of=CLASSES, edges=table, seed=1, replicate=2))
    np.testing.assert_array_equal(sampling(by, 0, classes_of=CLASSES, edges=table), np.arange(100))
    np.testing.assert_array_equal(sampling(by, 500, classes_of=CLASSES, edges=table), np.arange(100))


def test_class_balanced_is_as_even_as_the_classes_allow() -> None:
    kept = sampling("class_balanced", 30, classes_of=CLASSES)
    counts = np.bincount(CLASSES[kept])
    assert counts[0] == 5 and sorted(counts[1:]) == [12, 13]


def test_another_replicate_draws_other_nodes() -> None:
    first, second = (sampling("uniform", 30, classes_of=CLASSES, replicate=r) for r in (0, 1))
    assert set(first) != set(second)


def test_refuses_an_unknown_rule_and_missing_edges() -> None:
    with pytest.raises(UserError, match="'best' is not one of"):
        sampling("best", 5, classes_of=CLASSES)
    with pytest.raises(UserError, match="facility_location needs edges"):
        sampling("facility_location", 5, classes_of=CLASSES)


def test_believed_class_is_the_label_where_known() -> None:
    beliefs = np.asarray([[0.9, 0.1], [0.9, 0.1]], np.float32)
    np.testing.assert_array_equal(believed_class(beliefs, np.asarray([1, -1])), [1, 0])
