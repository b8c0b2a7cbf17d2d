import numpy as np
import pytest

from jkd.evaluate import brier, ece, fit_temperature, nll


@pytest.fixture(scope="module")
def golden(shared):
    return np.load(shared / "golden" / "graph" / "digits.npz", allow_pickle=False)


def test_ece_equals_golden(golden):
    logits, labels = np.log(golden["beliefs"]), golden["labels"]
    assert ece(logits, labels, bins=10) == pytest.approx(float(golden["ece10"]), rel=1e-5)
    assert ece(logits, labels, bins=15) == pytest.approx(float(golden["ece15"]), rel=1e-5)


def test_ece_by_hand():
    confidence, right = [0.61, 0.69, 0.95], [True, False, True]
    logits = np.log([[p, 1 - p] for p in confidence])
    labels = np.array([0 if hit else 1 for hit in right])
    expected = (abs((1 - 0.61) + (0 - 0.69)) + abs(1 - 0.95)) / 3  # two samples in (0.6, 0.7], one in (0.9, 1]
    assert ece(logits, labels, bins=10) == pytest.approx(expected)


def test_ece_bins_are_closed_on_the_right():
    logits = np.array([[0.0, 0.0], [0.0, 0.0], [np.log(3), 0.0]])  # confidence 0.5, 0.5, 0.75
    labels = np.array([0, 0, 1])
    together = abs((0.5 + 0.5) + (0 - 0.75)) / 3
    apart = (0.5 + 0.5 + 0.75) / 3
    assert ece(logits, labels, bins=2) == pytest.approx(apart)  # 0.5 lies in (0, 0.5]
    assert ece(logits, labels, bins=1) == pytest.approx(together)


def test_brier_is_0_when_sure_and_right_and_2_when_sure_and_wrong():
    sure = np.array([[200.0, 0.0, 0.0]])
    assert brier(sure, np.array([0])) == pytest.approx(0)
    assert brier(sure, np.array([1])) == pytest.approx(2)
    assert brier(np.zeros((1, 4)), np.array([1])) == pytest.approx(0.75)


def test_fitted_temperature_equals_golden(golden):
    hidden = ~golden["labelled"]
    logits, labels = np.log(golden["joined"])[hidden], golden["labels"][hidden]
    assert nll(logits, labels) == pytest.approx(float(golden["nll_unlabelled"]), rel=1e-5)
    temperature, fitted = fit_temperature(logits, labels)
    assert fitted == pytest.approx(float(golden["nll_fitted"]), rel=1e-5)
    # the stored temperature was found on a coarser scale: its NLL is the same to 4e-7 and not below ours
    assert temperature == pytest.approx(float(golden["temperature_fitted"]), rel=1e-3)
    assert fitted <= float(golden["nll_fitted"])


def test_fitted_temperature_undoes_a_scale_and_is_a_minimum():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 4)), rng.integers(0, 4, 200)
    logits[np.arange(200), labels] += 1
    temperature, fitted = fit_temperature(logits, labels)
    assert fit_temperature(logits * 7, labels)[0] == pytest.approx(7 * temperature)
    assert fitted < min(nll(logits / (temperature * factor), labels) for factor in (0.99, 1.01))


def test_fitted_temperature_stops_at_the_ends():
    sure = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert fit_temperature(sure, np.array([0, 1]))[0] == pytest.approx(1e-3)  # all right: as sharp as may be
    assert fit_temperature(sure, np.array([1, 0]))[0] == pytest.approx(1e3)  # all wrong: as flat as may be


def test_fitted_temperature_takes_log_probabilities_with_a_class_ruled_out():
    beliefs = np.array([[0.6, 0.4, 0.0], [0.3, 0.7, 0.0], [0.55, 0.45, 0.0], [0.2, 0.3, 0.5]])
    with np.errstate(divide="ignore"):
        logits = np.log(beliefs)
    temperature, fitted = fit_temperature(logits, np.array([0, 1, 1, 2]))
    assert np.isfinite(temperature) and np.isfinite(fitted)
    near = fit_temperature(np.log(np.maximum(beliefs, 1e-300)), np.array([0, 1, 1, 2]))
    assert (temperature, fitted) == pytest.approx(near)
