"""Cutting, joining and summing: inverse of one another, in an order that the number of parts alone decides."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.train.shards import cut, join, tree_sum


@settings(max_examples=20, deadline=None, derandomize=True)
@given(parts=st.sampled_from([1, 2, 4, 8]), each=st.integers(1, 3), strided=st.booleans())
def test_join_undoes_cut(parts: int, each: int, strided: bool):
    tree = {"a": np.arange(parts * each * 3).reshape(-1, 3), "b": np.arange(parts * each), "one": np.float32(7)}
    tree["of no objects"] = np.zeros((parts * each, 0, 4), np.float32)
    pieces = cut(tree, parts, strided)
    assert len(pieces) == parts and all(piece["a"].shape == (each, 3) for piece in pieces)
    whole = join(pieces, strided)
    assert all(np.array_equal(whole[key], tree[key]) for key in tree)


def test_a_block_is_of_neighbours_and_a_stride_is_not():
    rows = np.arange(6)
    assert [piece.tolist() for piece in cut(rows, 3)] == [[0, 1], [2, 3], [4, 5]]
    assert [piece.tolist() for piece in cut(rows, 3, strided=True)] == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("count", range(1, 10))
def test_a_sum_goes_pair_by_pair(count: int):
    values = [np.float32(1 + 1e-7 * index) * np.float32(10.0 ** (index % 5)) for index in range(count)]
    expected = list(values)
    while len(expected) > 1:
        paired = [expected[at] + expected[at + 1] for at in range(0, len(expected) - 1, 2)]
        expected = paired + expected[2 * len(paired) :]
    found = tree_sum([{"x": jnp.asarray(value)} for value in values])["x"]
    assert float(found) == float(expected[0])
    np.testing.assert_allclose(float(found), sum(map(float, values)), rtol=1e-6)
