import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jkd.data.annotations import MOST_BOXES, Found, annotation, class_numbers, cleaned, judge
from jkd.errors import UserError

NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=32)
BOXES = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=20)


def _cleaned(boxes, relative=False, **more):
    found = Found()
    given = annotation(boxes, [0] * len(boxes), relative=relative, **more)
    return cleaned(given, (40, 60), 2, "a.jpg", found), found


@pytest.mark.fault(15)
@given(BOXES, st.booleans())
def test_whatever_comes_what_stays_is_inside_and_has_an_area(boxes, relative):
    made, found = _cleaned(boxes, relative)
    assert np.isfinite(made.boxes).all()
    assert (made.boxes >= 0).all() and (made.boxes[:, [0, 2]] <= 60).all() and (made.boxes[:, [1, 3]] <= 40).all()
    assert ((made.boxes[:, 2:] - made.boxes[:, :2]) >= 1).all()
    assert found.boxes == len(boxes) == len(made.classes) + found.small + found.broken


@pytest.mark.fault(15)
def test_each_rule_is_counted():
    boxes = [
        [5, 5, 10, 10],  # as it should be
        [-3, 5, 10, 50],  # over the border
        [-0.005, 0, 10, 10],  # rounded
        [5, 5, 5, 9],  # no width
        [70, 5, 90, 9],  # outside: broken
        [-9, 5, -2, 9],  # likewise
        [5, 41, 9, 50],  # likewise
        [9, 5, 4, 9],  # ends before it begins
        [float("nan"), 5, 4, 9],
        [0, 0, float("inf"), 9],
    ]
    made, found = _cleaned(boxes)
    assert found.counts() == dict(boxes=10, clipped=1, small=1, broken=6, crowd=0, difficult=0)
    np.testing.assert_allclose(made.boxes, [[5, 5, 10, 10], [0, 5, 10, 40], [0, 0, 10, 10]])


def test_shares_become_pixels_and_a_known_area_stays():
    made, _ = _cleaned([[0.5, 0.25, 1.0, 0.5], [0, 0, 1, 1]], relative=True, area=[7.0, float("nan")])
    np.testing.assert_allclose(made.boxes, [[30, 10, 60, 20], [0, 0, 60, 40]])
    np.testing.assert_allclose(made.area, [7, 2400])


@pytest.mark.fault(15)
@pytest.mark.parametrize("number", [-1, 2])
def test_an_unknown_class_is_refused_by_name(number):
    given = annotation([[0, 0, 9, 9]], [number], names=["zebra"])
    with pytest.raises(UserError, match=r"a\.jpg: object 0 is of the unknown class 'zebra'"):
        cleaned(given, (40, 60), 2, "a.jpg", Found())


@pytest.mark.fault(15)
def test_too_many_boxes_of_one_image_are_refused():
    with pytest.raises(UserError, match="10001 boxes, over 10000"):
        _cleaned(np.tile([0.0, 0, 9, 9], (MOST_BOXES + 1, 1)))


@pytest.mark.fault(15)
def test_broken_boxes_are_refused_or_skipped_up_to_the_limit():
    _, found = _cleaned([[9, 5, 4, 9], *[[0, 0, 9, 9]] * 9])
    with pytest.raises(UserError, match=r"1 of 10 boxes .* a\.jpg, object 0: \[9.0, 5.0, 4.0, 9.0\].*skip"):
        judge(found, "train", "refuse", 1.0)
    judge(found, "train", "skip", 0.1)
    with pytest.raises(UserError, match="lets 0 be skipped"):
        judge(found, "train", "skip", 0.05)


@pytest.mark.fault(15)
@pytest.mark.parametrize("names", [[], ["a", "a"]])
def test_class_names_must_be_some_and_distinct(names):
    with pytest.raises(UserError, match="distinct class names"):
        class_numbers(names, "set")
