import math

import numpy as np
import pytest

from jkd.evaluate import accuracy, log_softmax, nll

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
