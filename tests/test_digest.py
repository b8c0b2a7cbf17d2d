"""Digests: equal things agree, any change shows."""

import numpy as np
import pytest

from jkd import digest


def test_a_boundary_cannot_be_moved():
    assert digest.of_bytes(b"ab", b"c") != digest.of_bytes(b"a", b"bc")


@pytest.mark.parametrize(
    "other",
    [
        np.arange(6, dtype=np.int64),
        np.arange(6, dtype=np.int32).reshape(2, 3),
        np.arange(1, 7, dtype=np.int32),
    ],
)
def test_dtype_shape_and_bits_all_count(other: np.ndarray):
    assert digest.of_array(np.arange(6, dtype=np.int32)) != digest.of_array(other)


def test_a_tree_does_not_depend_on_the_order_of_keys():
    a, b = np.zeros(2), np.ones(3)
    assert digest.of_tree({"a": a, "b": {"c": b}}) == digest.of_tree({"b": {"c": b}, "a": a})
    assert digest.of_tree({"a": a, "b": b}) != digest.of_tree({"a": b, "b": a})


def test_memory_layout_does_not_count():
    array = np.arange(12.0).reshape(3, 4)
    assert digest.of_array(array) == digest.of_array(np.asfortranarray(array))


def test_one_flipped_bit_shows():
    array = np.arange(5, dtype=np.float32)
    flipped = array.copy()
    flipped.view(np.uint32)[3] ^= 1
    assert digest.of_array(array) != digest.of_array(flipped)


def test_canonical_json_refuses_nan():
    with pytest.raises(ValueError):
        digest.of_json({"x": float("nan")})
