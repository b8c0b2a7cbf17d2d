import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.evaluate import (
    churn,
    churn_by_sample,
    expected_churn,
    expected_over_pairs,
    interval,
    jaccard,
    jaccard_by_sample,
    jensen_shannon,
    jensen_shannon_by_sample,
    over_pairs,
    over_resampled_pairs,
    pseudo_values,
    random_jaccard,
    ratio_of,
)

quick = settings(derandomize=True, deadline=None, max_examples=40)


@st.composite
def runs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Logits `[R, N, C]` and labels `[N]`; few distinct values, so that runs agree, differ and tie."""
    shape = draw(st.integers(2, 4)), draw(st.integers(1, 12)), draw(st.integers(2, 5))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    return rng.integers(-2, 3, shape) * draw(st.sampled_from([0.5, 1.0, 300.0])), rng.integers(0, shape[2], shape[1])


@quick
@given(runs())
def test_good_bad_and_both_wrong_add_up_to_churn_and_differ_by_the_accuracies(drawn: tuple) -> None:
    logits, labels = drawn
    answers = logits.argmax(-1)
    found = churn(answers, labels)
    np.testing.assert_allclose(found.good + found.bad + found.both_wrong, found.churn, atol=1e-12)
    accuracy = (answers == labels).mean(1)
    for a, b in combinations(range(len(answers)), 2):
        assert found.churn[a, b] == found.churn[b, a] == (answers[a] != answers[b]).mean()
        assert found.good[a, b] - found.bad[a, b] == pytest.approx(accuracy[b] - accuracy[a])


@quick
@given(runs())
def test_js_is_symmetric_within_its_range_and_ignores_a_constant(drawn: tuple) -> None:
    logits, _ = drawn
    found = jensen_shannon(logits)
    assert (found == found.T).all() and found.min() >= 0 and found.max() <= math.log(2) + 1e-12
    np.testing.assert_allclose(jensen_shannon(logits[::-1])[::-1, ::-1], found, atol=1e-12)
    np.testing.assert_allclose(jensen_shannon(logits + 7.0), found, atol=1e-9)


@quick
@given(runs())
def test_identical_runs_do_not_differ(drawn: tuple) -> None:
    logits, labels = np.repeat(drawn[0][:1], 3, axis=0), drawn[1]
    assert over_pairs(churn(logits.argmax(-1), labels).churn) == 0
    assert over_pairs(jensen_shannon(logits)) == pytest.approx(0, abs=1e-12)
    neighbours = np.argsort(logits, axis=-1, kind="stable")[:, :, :2]
    assert over_pairs(jaccard(neighbours)) == 1


@quick
@given(runs())
def test_by_sample_a_measure_of_a_sample_is_that_of_a_set_of_it_alone(drawn: tuple) -> None:
    logits, labels = drawn
    answers, neighbours = logits.argmax(-1), np.argsort(logits, axis=-1, kind="stable")[:, :, :2]
    upper = np.triu_indices(len(logits), 1)
    of_churn = churn_by_sample(answers, labels)
    of_js, of_jaccard = jensen_shannon_by_sample(logits), jaccard_by_sample(neighbours)
    for at in range(len(labels)):
        alone = slice(at, at + 1)
        for part, whole in zip(of_churn, churn(answers[:, alone], labels[alone]), strict=True):
            assert (part[:, at] == whole[upper]).all()
        np.testing.assert_allclose(of_js[:, at], jensen_shannon(logits[:, alone])[upper], atol=1e-12)
        np.testing.assert_allclose(of_jaccard[:, at], jaccard(neighbours[:, alone])[upper])


@quick
@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 5))
def test_over_pairs_of_many_at_once(seed: int, count: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    accuracy = rng.random((3, count))
    expected = [over_pairs(expected_churn(row, classes)) for row in accuracy]
    np.testing.assert_allclose(expected_over_pairs(accuracy, classes), expected, atol=1e-12)
    matrix = expected_churn(accuracy[0], classes) + rng.random() * np.eye(count)
    times = np.vstack([np.ones(count), np.full(count, 2), np.eye(count)[0] + np.eye(count)[1]])
    whole = over_pairs(matrix)
    np.testing.assert_allclose(over_resampled_pairs(matrix, times), [whole, whole, matrix[0, 1]], atol=1e-12)


def test_js_by_hand_in_nats() -> None:
    with np.errstate(divide="ignore"):
        logits = np.log([[[1.0, 0.0]], [[0.0, 1.0]], [[0.5, 0.5]]])
    found = jensen_shannon(logits)
    assert found[0, 1] == pytest.approx(math.log(2))  # nothing in common
    middle = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert found[0, 2] == pytest.approx(middle - math.log(2) / 2)


def test_js_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = np.random.default_rng(0).normal(size=(3, 40, 5))
    whole = jensen_shannon(logits)
    monkeypatch.setattr("jkd.evaluate.pairs.BLOCK", 3 * 5 * 7)
    np.testing.assert_allclose(jensen_shannon(logits), whole, rtol=1e-12)


def test_the_mean_churn_equals_golden(shared) -> None:
    golden = np.load(shared / "golden" / "graph" / "digits.npz", allow_pickle=False)
    answers = golden["seed_predictions"]
    found = churn(answers, np.zeros(answers.shape[1], int)).churn
    assert over_pairs(found) == pytest.approx(float(golden["churn"]), rel=1e-5)


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("accuracy", [(0.9, 0.9), (0.7, 0.4), (0.1, 0.95)])
def test_independent_runs_have_a_normalised_churn_of_one(classes: int, accuracy: tuple[float, float]) -> None:
    rng = np.random.default_rng(classes)
    size = 40_000
    labels = rng.integers(0, classes, size)
    wrong = (labels + rng.integers(1, classes, (2, size))) % classes
    answers = np.where(rng.random((2, size)) < np.array(accuracy)[:, None], labels, wrong)
    expected = expected_churn((answers == labels).mean(1), classes)
    found = churn(answers, labels).churn
    (normalised,) = ratio_of(pseudo_values(found), pseudo_values(expected))
    assert normalised == pytest.approx(1, abs=0.03)


def test_expected_churn_by_hand() -> None:
    assert expected_churn(np.array([0.8, 0.6]), 2)[0, 1] == pytest.approx(0.8 * 0.4 + 0.2 * 0.6)
    assert expected_churn(np.array([0.0, 0.0]), 5)[0, 1] == pytest.approx(3 / 4)
    assert expected_churn(np.array([1.0, 0.3]), 5)[0, 1] == pytest.approx(0.7)


@pytest.mark.parametrize(("accuracy", "classes"), [((1.0, 1.0), 10), ((0.0, 0.0), 2), ((1.0, 1.0), 1)])
def test_where_no_churn_is_expected_normalised_churn_is_undefined(accuracy: tuple, classes: int) -> None:
    expected = pseudo_values(expected_churn(np.array(accuracy), classes))
    assert expected == [0] and ratio_of([0.0], expected) == []


def test_jaccard_by_hand_ignores_the_order_of_the_neighbours() -> None:
    a, b = np.array([[0, 1, 2], [3, 4, 5]]), np.array([[2, 0, 1], [3, 6, 7]])
    assert jaccard(np.stack([a, b]))[0, 1] == pytest.approx((1 + 1 / 5) / 2)


@pytest.mark.parametrize(("nodes", "k"), [(10, 3), (40, 10)])
def test_random_neighbours_overlap_as_the_formula_says(nodes: int, k: int) -> None:
    rng = np.random.default_rng(k)
    drawn = rng.permuted(np.tile(np.arange(nodes), (2, 4000, 1)), axis=2)[:, :, :k]
    assert over_pairs(jaccard(drawn)) == pytest.approx(random_jaccard(nodes, k), abs=0.01)
    assert random_jaccard(k, k) == pytest.approx(1)
    assert random_jaccard(1_000_000, k) == pytest.approx(k * k / 1e6 / (2 * k - 1), rel=0.01)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_mean_of_the_pseudo_values_is_the_mean_over_pairs(count: int) -> None:
    rng = np.random.default_rng(count)
    found = churn(rng.integers(0, 3, (count, 50)), rng.integers(0, 3, 50)).churn
    values = pseudo_values(found)
    assert np.mean(values) == pytest.approx(over_pairs(found))
    assert len(values) == (1 if count == 2 else count)
    if count > 2:  # the jackknife's standard error
        without = [over_pairs(np.delete(np.delete(found, run, 0), run, 1)) for run in range(count)]
        error = math.sqrt((count - 1) / count * sum((one - np.mean(without)) ** 2 for one in without))
        assert interval(values).sd / math.sqrt(count) == pytest.approx(error)


def test_the_pseudo_values_of_a_ratio_have_it_as_their_mean() -> None:
    above, below = [1.0, 2.0, 4.5], [2.0, 3.0, 5.0]
    values = ratio_of(above, below)
    assert np.mean(values) == pytest.approx(7.5 / 10)
    assert ratio_of([2.0, 4.0], [1.0, 2.0]) == pytest.approx([2.0, 2.0])  # one in proportion has no spread


def test_a_lone_run_has_no_pairs() -> None:
    found = churn(np.zeros((1, 3), int), np.zeros(3, int)).churn
    assert over_pairs(found) is None and pseudo_values(found) == []


def test_what_has_no_value_is_refused() -> None:
    with pytest.raises((ValueError, TypeError)):  # where jaxtyping looks on, it is first
        churn(np.zeros((2, 3), int), np.zeros(4, int))
    with pytest.raises(ValueError, match="N >= 1"):
        churn(np.zeros((2, 0), int), np.zeros(0, int))
    with pytest.raises(ValueError, match="1 <= k <= nodes"):
        random_jaccard(3, 4)
