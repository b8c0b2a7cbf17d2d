from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.errors import UserError
from jkd.layer_map import layer_map


@pytest.mark.parametrize(
    ("name", "student", "teacher", "expected"),
    [
        # the published ones, counted from 0: TinyBERT 4 of 12 and 6 of 12, PKD 6 of 12
        ("uniform", 4, 12, [2, 5, 8, 11]),
        ("uniform", 6, 12, [1, 3, 5, 7, 9, 11]),
        ("skip", 6, 12, [1, 3, 5, 7, 9]),
        ("last", 6, 12, [6, 7, 8, 9, 10, 11]),
        ("uniform", 2, 5, [1, 4]),
        ("skip", 3, 7, [1, 3]),
        ("last", 1, 6, [5]),
        ("uniform", 3, 3, [0, 1, 2]),
    ],
)
def test_the_published_maps(name: str, student: int, teacher: int, expected: list[int]):
    assert layer_map(name, student, teacher) == tuple(enumerate(expected))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(name=st.sampled_from(["uniform", "skip", "last"]), student=st.integers(2, 40), more=st.integers(0, 40))
def test_maps_rise_and_stay_inside(name: str, student: int, more: int):
    teacher = student + more
    pairs = layer_map(name, student, teacher)
    assert [pair[0] for pair in pairs] == list(range(student - (name == "skip")))
    layers = [pair[1] for pair in pairs]
    assert layers == sorted(set(layers)) and layers[0] >= 0 and layers[-1] < teacher
    assert name == "skip" or layers[-1] == teacher - 1


def test_given_pairs_are_sorted_by_the_student_s_layer_and_a_deeper_student_may_have_them():
    assert layer_map("given", 6, 2, [[5, 1], (0, 0), (0, 1)]) == ((0, 0), (0, 1), (5, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("unifrom", 2, 4), "expected one of uniform, skip, last, given, got 'unifrom'. Did you mean 'uniform'?"),
        (("uniform", 0, 4), "expected a student of at least 1 layer, got 0"),
        (("last", 2, True), "expected a teacher of at least 1 layer, got True"),
        (("last", 6, 4), "expects a teacher of at least 6 layers, as the student has, got 4"),
        (("skip", 1, 4), "at least 2 layers"),
        (("last", 2, 4, [(0, 0)]), "pairs of layers are given, but the map is 'last'"),
        (("given", 2, 4), r"pairs (student layer 0 to 1, teacher layer 0 to 3), got ()"),
        (("given", 2, 4, [(2, 0)]), "got (2, 0): there is no such layer"),
        (("given", 2, 4, [(0, -1)]), "got (0, -1): there is no such layer"),
        (("given", 2, 4, [(0, 1.5)]), "got (0, 1.5)"),
        (("given", 2, 4, [(0, 1, 2)]), "got (0, 1, 2)"),
        (("given", 2, 4, "01"), "got '01'"),
        (("given", 2, 4, [(0, 1), [0, 1]]), "got (0, 1) twice"),
    ],
)
def test_a_map_that_cannot_be_is_refused_with_what_was_expected(arguments: Any, message: str):
    with pytest.raises(UserError) as error:
        layer_map(*arguments, where="students.it.layers")
    assert str(error.value).startswith("students.it.layers: ") and message in str(error.value)
