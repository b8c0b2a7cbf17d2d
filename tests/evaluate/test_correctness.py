import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jkd.evaluate import accuracy, f1, log_softmax, matthews, nll

LOGITS = np.log([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4], [0.1, 0.8, 0.1]])
LABELS = np.array([0, 1, 1])


def test_accuracy_counts_the_largest_logit_and_the_first_of_equals():
    assert accuracy(LOGITS, LABELS) == pytest.approx(2 / 3)
    assert accuracy(np.zeros((2, 3)), np.array([0, 1])) == 0.5


def test_nll_is_the_mean_log_probability_of_the_label():
    assert nll(LOGITS, LABELS) == pytest.approx(-(math.log(0.7) + math.log(0.3) + math.log(0.8)) / 3)


def test_nll_ignores_a_constant_added_to_a_row_and_survives_large_logits():
    shifted = LOGITS + np.array([[1e5], [-1e5], [3.0]])
    assert nll(shifted, LABELS) == pytest.approx(nll(LOGITS, LABELS))
    assert nll(np.array([[1e4, -1e4]]), np.array([0])) == 0


def test_log_softmax_rows_sum_to_one_in_float64():
    rows = log_softmax(LOGITS.astype(np.float32))
    assert rows.dtype == np.float64
    np.testing.assert_allclose(np.exp(rows).sum(1), 1, atol=1e-15)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), "N >= 1"),
        (np.zeros((2, 3)), np.array([0, 3]), "do not fit 3 classes"),
        (np.zeros((2, 3)), np.array([-1, 0]), "do not fit 3 classes"),
        (np.array([[0.0, np.nan]]), np.array([0]), "1 of 1 rows of logits hold NaN"),
    ],
)
def test_what_has_no_value_is_refused(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        accuracy(logits, labels)


def test_unlike_lengths_are_refused():
    with pytest.raises((ValueError, TypeError)):  # where jaxtyping looks on, it is first
        nll(np.zeros((2, 3)), np.zeros(3, int))


def _logits(answers: list[int], classes: int) -> np.ndarray:
    return np.eye(classes)[answers]


def test_f1_and_matthews_of_a_table_worked_out_by_hand():
    labels, answers = np.array([0, 0, 0, 1, 1]), [0, 0, 1, 1, 0]
    logits = _logits(answers, 2)
    assert f1(logits, labels, "binary") == pytest.approx(2 * 1 / (2 * 1 + 1 + 1))
    assert f1(logits, labels) == pytest.approx((2 * 2 / (2 * 2 + 1 + 1) + 0.5) / 2)
    assert matthews(logits, labels) == pytest.approx((2 * 1 - 1 * 1) / np.sqrt(3 * 3 * 2 * 2))


@given(st.integers(0, 2**31), st.integers(2, 6))
def test_f1_and_matthews_are_those_of_a_relabelled_problem_and_1_where_all_is_right(seed: int, classes: int):
    rng = np.random.default_rng(seed)
    labels, logits = rng.integers(0, classes, 40), rng.normal(size=(40, classes))
    order = rng.permutation(classes)
    renamed = np.argsort(order)[labels]
    assert f1(logits[:, order], renamed) == pytest.approx(f1(logits, labels))
    assert matthews(logits[:, order], renamed) == pytest.approx(matthews(logits, labels))
    assert -1 <= matthews(logits, labels) <= 1 and 0 <= f1(logits, labels) <= 1
    right = _logits(labels.tolist(), classes)
    assert f1(right, labels) == 1 and (matthews(right, labels) == pytest.approx(1) or len(set(labels)) == 1)


def test_matthews_is_0_where_all_answers_are_one_and_a_binary_f1_is_of_two_classes():
    assert matthews(_logits([1, 1, 1], 2), np.array([0, 1, 1])) == 0
    with pytest.raises(ValueError, match="2 classes, not of 3"):
        f1(_logits([1, 1, 1], 3), np.array([0, 1, 1]), "binary")
