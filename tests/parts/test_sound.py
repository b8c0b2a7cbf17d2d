"""A teacher that cannot teach is refused by the row that shows it."""

from typing import Any

import numpy as np
import pytest

from jkd.errors import UserError
from jkd.parts.sound import refuse_unsound

pytestmark = pytest.mark.fault(11)
CLASSES = ("cat", "dog\x1b[31m", "bus")


def _logits(changes: Any = None) -> np.ndarray:
    logits = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    for (row, column), value in (changes or {}).items():
        logits[row, column] = value
    return logits


def _refuse(logits: np.ndarray, features: np.ndarray | None = None, loaded: bool = True) -> None:
    refuse_unsound(logits, features, lambda row: f"train/{row:03d}.png", CLASSES, loaded)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("loaded", [True, False])
def test_logits_that_are_not_finite_name_row_sample_and_class(value: float, loaded: bool):
    with pytest.raises(UserError) as caught:
        _refuse(_logits({(7, 1): value, (9, 0): value}), loaded=loaded)
    said = str(caught.value)
    assert f"2 of 20 samples; the first is row 7 (train/007.png), with {value} at class 'dog\\x1b[31m'." in said


def test_an_embedding_that_is_not_finite_names_row_and_unit():
    features = np.ones((20, 5), np.float32)
    features[3, 4] = np.nan
    with pytest.raises(UserError, match=r"embedding are not finite for 1 of 20 .*row 3 \(train/003.png\), .*unit 4"):
        _refuse(_logits(), features)


@pytest.mark.parametrize("loaded", [True, False])
def test_a_constant_teacher_has_nothing_to_say(loaded: bool):
    with pytest.raises(UserError, match=r"the same of all 20 samples, from row 0 \(train/000.png\) on"):
        _refuse(np.tile(_logits()[:1], (20, 1)), loaded=loaded)
    _refuse(np.tile(_logits()[:1], (20, 1)) + np.float32(1e-3) * _logits(), loaded=loaded)
    _refuse(_logits()[:1], loaded=loaded)  # of one sample nothing can be told


def test_a_loaded_teacher_that_rules_a_class_out_is_refused():
    masked = _logits()
    masked[:, 2] = -1e9
    with pytest.raises(UserError, match=r"probability of exactly 0 to bus for all 20 .*row 0 \(train/000.png\) on"):
        _refuse(masked)
    _refuse(masked, loaded=False)
    _refuse(_logits({(5, 2): -1e9}))  # sure once
    with pytest.raises(UserError, match=r"row 5 \(train/005.png\), with -inf at class 'bus'"):
        _refuse(_logits({(5, 2): -np.inf}))
