"""Nearest neighbours against brute force, ties included."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jkd.errors import UserError
from jkd.graph.nearest import MARGIN, neighbours, neighbours_of


def brute(queries: np.ndarray, features: np.ndarray, k: int, own: bool) -> tuple[np.ndarray, np.ndarray]:
    """The whole matrix in float64, sorted by (float32 score falling, id rising)."""
    q, f = queries.astype(np.float64), features.astype(np.float64)
    lengths = np.sqrt((q * q).sum(1))[:, None] * np.sqrt((f * f).sum(1))[None, :]
    scores = np.clip(np.einsum("qd,nd->qn", q, f) / np.where(lengths > 0, lengths, 1), -1, 1).astype(np.float32)
    scores[lengths == 0] = -np.inf
    if own:
        np.fill_diagonal(scores, -np.inf)
    ids = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(scores, ids, 1)
    gap = k - ids.shape[1]
    ids, found = np.pad(ids, [(0, 0), (0, gap)]), np.pad(found, [(0, 0), (0, gap)], constant_values=-np.inf)
    return np.where(np.isfinite(found), ids, -1), np.where(np.isfinite(found), found, 0)


# Small whole numbers give many exact ties, duplicates and zero rows.
tied = hnp.arrays(np.float32, st.tuples(st.integers(1, 40), st.just(3)), elements=st.integers(-2, 2).map(float))


@settings(max_examples=60, deadline=None)
@given(tied, st.integers(1, 5))
def test_equals_brute_force_with_ties(features: np.ndarray, k: int) -> None:
    ids, weights = neighbours(features, k, block=64)
    wanted_ids, wanted = brute(features, features, k, own=True)
    np.testing.assert_array_equal(ids, wanted_ids)
    np.testing.assert_array_equal(weights, wanted)


@settings(max_examples=30, deadline=None)
@given(tied, tied)
def test_queries_equal_brute_force_with_ties(queries: np.ndarray, features: np.ndarray) -> None:
    ids, weights = neighbours_of(queries, features, 3, block=64)
    wanted_ids, wanted = brute(queries, features, 3, own=False)
    np.testing.assert_array_equal(ids, wanted_ids)
    np.testing.assert_array_equal(weights, wanted)


def test_matches_golden_neighbours_and_similarities(golden: dict) -> None:
    features = golden["features"].astype(np.float32)
    halves = features.reshape(300, 4, 2, 4, 2).mean((2, 4)).reshape(300, 16)
    for view, suffix in ((features, ""), (halves, "_view2")):
        ids, weights = neighbours(view, 8)
        np.testing.assert_array_equal(ids, golden[f"neighbours{suffix}"])
        np.testing.assert_allclose(weights, golden[f"similarity{suffix}"], rtol=1e-5)


@pytest.mark.parametrize("block", [1, 64, 100, 5000])
def test_bytes_do_not_depend_on_the_block(block: int) -> None:
    features = np.random.default_rng(0).standard_normal((300, 16)).astype(np.float32)
    for got, wanted in zip(neighbours(features, 8, block), neighbours(features, 8, 128), strict=True):
        assert got.tobytes() == wanted.tobytes()
        assert got.dtype == wanted.dtype


def test_more_duplicates_than_candidates_still_tie_to_the_lower_id() -> None:
    features = np.random.default_rng(0).standard_normal((300, 7)).astype(np.float32)
    features[100:200] = features[100]
    ids, weights = neighbours(features, 4, block=64)
    assert 4 + MARGIN < 100
    np.testing.assert_array_equal(ids[100], [101, 102, 103, 104])
    np.testing.assert_array_equal(ids[103], [100, 101, 102, 104])
    np.testing.assert_array_equal(ids[199], [100, 101, 102, 103])
    assert (weights[100:200] == 1).all()


def test_many_exact_zeros_tie_to_the_lower_id() -> None:
    ids, weights = neighbours(np.eye(100, dtype=np.float32), 3, block=64)
    np.testing.assert_array_equal(ids[50], [0, 1, 2])
    np.testing.assert_array_equal(ids[1], [0, 2, 3])
    assert not weights.any()


def test_similarity_is_the_same_both_ways() -> None:
    features = np.random.default_rng(1).standard_normal((50, 33)).astype(np.float32)
    ids, weights = neighbours(features, 49, block=64)
    matrix = np.zeros((50, 50), np.float32)
    matrix[np.arange(50)[:, None], ids] = weights
    assert matrix.tobytes() == np.ascontiguousarray(matrix.T).tobytes()


def test_a_zero_row_is_isolated_and_too_few_nodes_are_padded() -> None:
    features = np.asarray([[1, 0], [0, 0], [1, 1]], np.float32)
    ids, weights = neighbours(features, 4)
    np.testing.assert_array_equal(ids, [[2, -1, -1, -1], [-1, -1, -1, -1], [0, -1, -1, -1]])
    np.testing.assert_allclose(weights[:, 0], [0.5**0.5, 0, 0.5**0.5], rtol=1e-6)


def test_scale_does_not_matter() -> None:
    features = np.random.default_rng(2).standard_normal((40, 5)).astype(np.float32)
    scaled = features * (2.0 ** np.arange(-20, 20, dtype=np.float32))[:, None]
    for got, wanted in zip(neighbours(scaled, 4, 64), neighbours(features, 4, 64), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_refuses_features_that_are_not_finite_or_of_another_width() -> None:
    features = np.ones((5, 2), np.float32)
    features[3, 1] = np.nan
    with pytest.raises(UserError, match="row 3 is not finite"):
        neighbours(features, 2)
    with pytest.raises((UserError, TypeError), match="features"):  # where jaxtyping looks on, it is first
        neighbours_of(np.ones((5, 2), np.float32), np.ones((5, 3), np.float32), 2)
