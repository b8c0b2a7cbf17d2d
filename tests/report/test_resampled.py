import time
from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pytest

from jkd import evaluate
from jkd.report import resampled
from jkd.report.resampled import Group, Name, over_inputs, over_runs
from jkd.tasks import CLASSIFICATION

MEASURES = ("churn", "good_churn", "bad_churn", "agreement", "js", "normalised_churn")
CLASSES, K = 4, 3


def _logits(rng: np.random.Generator, labels: np.ndarray, runs: int) -> np.ndarray:
    """Runs of unlike skill that find the same samples hard, `[R, N, C]`."""
    skill, hard = rng.normal(1.2, 0.5, (runs, 1, 1)), rng.normal(0, 1, (1, len(labels), 1))
    return (skill - hard) * np.eye(CLASSES)[labels] + rng.normal(size=(runs, len(labels), CLASSES))


def _group(logits: np.ndarray, labels: np.ndarray, nearest: np.ndarray | None = None) -> Group:
    """What is made of the logits `[R, N, C]` of one replicate, and of the nodes `[R, N, K]` that its seeds look up."""
    found = CLASSIFICATION.differences([{"logits": run} for run in logits], labels)
    pairs: dict[Name, np.ndarray] = dict(found.pairs.items())
    inputs: dict[Name, np.ndarray] = dict(found.samples.items())
    if nearest is not None:
        pairs[K], inputs[K] = evaluate.jaccard(nearest), evaluate.jaccard_by_sample(nearest).mean(axis=0)
    return Group(pairs, inputs, found.right[None], found.classes)


def _nearest(rng: np.random.Generator, runs: int, size: int) -> np.ndarray:
    return rng.permuted(np.tile(np.arange(7), (runs, size, 1)), axis=2)[:, :, :K]


def _by_hand(logits: np.ndarray, labels: np.ndarray, nearest: np.ndarray, pairs: list[tuple[int, int]]) -> dict:
    """Every measure as a mean over the pairs given, one after another."""
    answers = logits.argmax(-1)
    churn, accuracy = evaluate.churn(answers, labels), (answers == labels).mean(axis=1)
    matrices = {
        "churn": churn.churn,
        "good_churn": churn.good,
        "bad_churn": churn.bad,
        "agreement": 1 - churn.churn,
        "js": evaluate.jensen_shannon(logits),
        "expected_churn": evaluate.expected_churn(accuracy, CLASSES),
        K: evaluate.jaccard(nearest),
    }
    means = {name: np.mean([matrix[pair] for pair in pairs]) for name, matrix in matrices.items()}
    return means | {"normalised_churn": means["churn"] / means["expected_churn"]}


def _checked(found: dict, expected: list[dict]) -> Iterator[tuple]:
    for name in (*MEASURES, "expected_churn", K):
        low, high = np.quantile([some[name] for some in expected[1:]], [0.025, 0.975])
        yield tuple(found[name]), (pytest.approx(expected[0][name]), pytest.approx(low), pytest.approx(high))


def test_over_inputs_every_figure_is_worked_out_anew_of_the_inputs_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampled, "RESAMPLES", 15)
    rng, labels = np.random.default_rng(0), np.arange(40) % CLASSES
    logits, nearest = _logits(rng, labels, 4), _nearest(rng, 4, 40)
    times = np.rint(evaluate.resampled_means(np.eye(40), 15) * 40).astype(int)
    drawn = [np.arange(40), *(np.repeat(np.arange(40), some) for some in times)]
    pairs = list(combinations(range(4), 2))
    expected = [_by_hand(logits[:, index], labels[index], nearest[:, index], pairs) for index in drawn]
    for found, wanted in _checked(over_inputs([_group(logits, labels, nearest)]), expected):
        assert found == wanted


def test_over_runs_a_run_drawn_twice_is_no_pair_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampled, "RESAMPLES", 15)
    rng, labels = np.random.default_rng(1), np.arange(40) % CLASSES
    logits, nearest = _logits(rng, labels, 4), _nearest(rng, 4, 40)
    times = evaluate.resampled_runs(4, 0, 15).astype(int)
    drawn = [np.arange(4), *(np.repeat(np.arange(4), some) for some in times)]
    pairs = [[(a, b) for a, b in combinations(some, 2) if a != b] for some in drawn]
    expected = [_by_hand(logits, labels, nearest, some) for some in pairs]
    for found, wanted in _checked(over_runs([_group(logits, labels, nearest)]), expected):
        assert found == wanted


@pytest.mark.parametrize("over", [over_inputs, over_runs])
def test_of_several_replicates_a_figure_is_the_mean_of_theirs_and_its_interval_is_narrower(over) -> None:
    rng, labels = np.random.default_rng(2), np.arange(200) % CLASSES
    groups = [_group(_logits(rng, labels, 4), labels, _nearest(rng, 4, 200)) for _ in range(4)]
    together, alone = over(groups), [over([group]) for group in groups]
    for name in (*MEASURES, K):
        assert together[name].mean == pytest.approx(np.mean([some[name].mean for some in alone]))
        assert together[name].low < together[name].mean < together[name].high
        widths = [some[name].high - some[name].low for some in alone]
        assert together[name].high - together[name].low < 0.8 * np.mean(widths)


def test_over_test_inputs_the_figure_of_a_whole_population_is_in_nine_intervals_of_ten_or_more() -> None:
    rng, whole, size = np.random.default_rng(3), 20_000, 200
    labels = rng.integers(0, CLASSES, whole)
    logits, nearest = _logits(rng, labels, 3), _nearest(rng, 3, whole)
    truth = _by_hand(logits, labels, nearest, list(combinations(range(3), 2)))
    held: dict[Name, list[bool]] = {name: [] for name in (*MEASURES, K)}
    for _ in range(150):
        index = rng.choice(whole, size, replace=False)
        found = over_inputs([_group(logits[:, index], labels[index], nearest[:, index])])
        for name, some in held.items():
            some.append(found[name].low <= truth[name] <= found[name].high)
    for name, some in held.items():
        assert 0.89 <= np.mean(some) <= 0.995, (name, np.mean(some))


@pytest.mark.parametrize(("runs", "least", "most"), [(3, 0.3, 0.75), (20, 0.83, 0.99)])
def test_over_seeds_the_intervals_hold_what_other_seeds_have_as_often_as_is_said(
    runs: int, least: float, most: float
) -> None:
    """The bootstrap's hold it too seldom with few seeds; Student-t's, beside it, hold it with any."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, CLASSES, 150)
    hard, wrong = rng.normal(0, 1.5, 150), (labels + 1) % CLASSES

    def answers(count: int) -> np.ndarray:
        right = rng.random((count, 150)) < 1 / (1 + np.exp(hard - rng.normal(1.0, 0.4, (count, 1))))
        return np.where(right, labels, wrong)

    def matrix(count: int) -> np.ndarray:
        return evaluate.churn(answers(count), labels).churn

    truth, held = evaluate.over_pairs(matrix(300)), []
    for _ in range(150):
        churn = matrix(runs)
        found = over_runs([Group({"churn": churn}, {}, None, 0)])["churn"]
        student = evaluate.interval(evaluate.pseudo_values(churn))
        held.append((found.low <= truth <= found.high, student.low <= truth <= student.high))
    bootstrapped, students = np.mean(held, axis=0)
    assert least <= bootstrapped <= most and students >= 0.9, (bootstrapped, students)


def test_runs_that_differ_alike_have_an_interval_of_no_width_whichever_are_drawn() -> None:
    found = over_runs([Group({"churn": 0.3 * (1 - np.eye(3)), "agreement": np.full((3, 3), 0.7)}, {}, None, 0)])
    assert tuple(found["churn"]) == pytest.approx((0.3, 0.3, 0.3))
    assert tuple(found["agreement"]) == pytest.approx((0.7, 0.7, 0.7))


def test_two_runs_have_intervals_over_inputs_alone_and_what_is_no_mean_over_inputs_has_them_over_runs_alone() -> None:
    rng, labels = np.random.default_rng(5), np.arange(30) % CLASSES
    two, three = _group(_logits(rng, labels, 2), labels), _group(_logits(rng, labels, 3), labels)
    assert over_runs([two]) == over_runs([three, two]) == over_runs([]) == {} and set(MEASURES) <= set(
        over_inputs([two])
    )
    boxes = Group({"churn": rng.random((3, 3))}, {}, None, 0)
    assert over_inputs([boxes]) == {} and set(over_runs([boxes])) == {"churn"}


def test_one_test_input_and_runs_that_are_always_right_are_no_obstacle() -> None:
    rng, label = np.random.default_rng(6), np.zeros(1, int)
    one = over_inputs([_group(rng.normal(size=(3, 1, CLASSES)), label)])
    assert one["churn"].low == one["churn"].mean == one["churn"].high
    labels = np.arange(8) % CLASSES
    for found in (over(_same) for over in (over_inputs, over_runs) for _same in [[_group(_right(labels), labels)]]):
        assert tuple(found["churn"]) == tuple(found["expected_churn"]) == (0, 0, 0)
        assert "normalised_churn" not in found


def _right(labels: np.ndarray) -> np.ndarray:
    return np.stack([9.0 * np.eye(CLASSES)[labels]] * 3)


def test_ten_seeds_of_ten_thousand_test_inputs_take_seconds() -> None:
    rng, labels = np.random.default_rng(7), np.arange(10_000) % CLASSES
    group = _group(_logits(rng, labels, 10), labels)
    started = time.process_time()
    over_inputs([group]), over_runs([group])
    assert time.process_time() - started < 10  # 0.8 s on an idle core
