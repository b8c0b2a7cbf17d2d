"""Differences by name, and which of them a user may allow."""

import pytest

from jkd import config as configs
from jkd.changes import Allowed, Change, Inputs, between, remedy


def test_differences_are_leaves_under_the_names_that_the_user_knows():
    old, new = (
        {"network": {"width": 1, "train": {"batch": 2}}, "gone": 0},
        {"network": {"width": 1, "train": {"batch": 3}}},
    )
    assert between(old, new, {"network.": "students.kd."}) == [
        Change("gone", 0, "absent"),
        Change("students.kd.train.batch", 2, 3),
    ]


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("students.kd.train.batch", "students.kd.train.batch"),
        ("students.kd.train.batch", "students.kd.train"),
        ("students.kd.train.batch", "student.train.batch"),
        ("students.kd.train.batch", "student.train"),
        ("environment.versions.jax", "environment"),
        ("students.kd.train.batch", "student"),
    ],
)
def test_a_key_is_allowed_by_itself_its_groups_and_student(key: str, allowed: str):
    assert key in Allowed((allowed,))


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("students.kd.train.batch", "students.kd.train.bat"),
        ("students.kd.train.batch", "student.train.batches"),
        ("students.kd_twin.train.batch", "students.kd"),
        ("students.kd.width", "students.kd.width"),
        ("teacher.dtype", "teacher"),
        ("data.pool", "data"),
        ("digest of the teacher", "digest of the teacher"),
        ("seed", "seed"),
    ],
)
def test_a_key_is_not_allowed_by_its_likeness_and_some_never(key: str, allowed: str):
    assert key not in Allowed((allowed,))


def test_what_a_network_is_can_never_change():
    """Of a teacher that is there, another value would make another function of the same variables."""
    trained = {"train", "objective", "graph", "sampling", "dropout", "init", "init_layers"}
    default = configs.default()
    for where, network in (
        ("teacher", default.teacher),
        ("student", default.student),
        ("students.kd", default.student),
    ):
        for key in network:
            inner = f"{where}.{key}"
            assert (inner in Allowed((inner,))) == (key in trained), inner


def test_a_remedy_names_flags_only_where_they_would_help():
    one, never = Change("graph.k", 8, 4), Change("data.pool", 1, 2)
    assert remedy([one], "Do not.").endswith("give --allow-change=graph.k.")
    assert remedy([one, never], "Do not.") == "Do not." == remedy([], "Do not.")


def test_inputs_are_their_digest_and_know_what_it_is_of():
    inputs = Inputs.of({"seed": 0, "b": 1}, Allowed(), {})
    assert inputs == Inputs.of({"b": 1, "seed": 0}, Allowed(("b",)), {}) and len(inputs) == 64
    assert inputs.differences({"inputs": str(inputs)}) == []
    assert inputs.differences({"inputs": "x", "made_of": {"seed": 0, "b": 2}}) == [Change("b", 2, 1)]
    assert inputs.differences({"inputs": "x"}) is None


def test_what_comes_into_an_empty_group_is_one_change():
    assert between({"variables": {}, "a": {}}, {"variables": {"X": 1}, "a": {}}) == [Change("variables.X", "absent", 1)]
    assert between({"variables": {"X": 1}}, {"variables": {}}) == [Change("variables.X", 1, "absent")]
    assert between({"a": {}}, {"a": 1}) == [Change("a", {}, 1)]


@pytest.mark.parametrize("key", ["files./d/net.cfg", "folder"])
def test_no_flag_is_advised_for_files_that_make_another_network(key: str):
    assert remedy([Change(key, "a", "b")], "Another place.") == "Another place."
