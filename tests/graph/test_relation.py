"""join: diffusion of beliefs and attention over neighbours' features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.graph import relation

NODES, K, CLASSES = 12, 3, 4


def tables(seed: int, views: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random beliefs and edges; some rows short, node 0 without any."""
    rng = np.random.default_rng(seed)
    beliefs = rng.dirichlet(np.ones(CLASSES), NODES).astype(np.float32)
    ids = np.stack([rng.permuted(np.tile(np.arange(NODES), (NODES, 1)), axis=1)[:, :K] for _ in range(views)])
    weights = -np.sort(-rng.uniform(-1, 1, (views, NODES, K)), axis=-1).astype(np.float32)
    ids[rng.uniform(size=ids.shape) < 0.2] = -1
    ids[:, 0] = -1
    return beliefs, ids.astype(np.int32), np.where(ids >= 0, weights, 0).astype(np.float32)


def join(beliefs: np.ndarray, ids: np.ndarray, weights: np.ndarray, strength: float, rounds: int = 20) -> np.ndarray:
    return np.asarray(relation.join_beliefs(beliefs, ids, weights, 0.1, strength, rounds))


def test_matches_golden_attention_start_and_joined_beliefs(golden: dict) -> None:
    ids = np.stack([golden["neighbours"], golden["neighbours_view2"]])
    weights = np.stack([golden["similarity"], golden["similarity_view2"]]).astype(np.float32)
    attention = relation.row_softmax(weights[0], ids[0], 0.1)
    np.testing.assert_allclose(attention, golden["row_softmax"], rtol=1e-5)
    labels = np.where(golden["labelled"], golden["labels"], -1).astype(np.int32)
    q0 = np.asarray(relation.q0(jnp.asarray(golden["beliefs"], jnp.float32), jnp.asarray(labels)))
    np.testing.assert_allclose(q0, golden["q0"], rtol=1e-5)
    strength, rounds = float(golden["alpha"]), int(golden["rounds"])
    np.testing.assert_allclose(join(q0, ids[:1], weights[:1], strength, rounds), golden["joined"], atol=1e-6)
    mean = join(q0, ids, weights, strength, rounds)
    np.testing.assert_allclose(mean, golden["joined_mean_of_views"], atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 2]), st.floats(0, 1, width=32))
def test_rows_keep_summing_to_one_and_an_isolated_node_keeps_its_belief(seed: int, views: int, a: float) -> None:
    beliefs, ids, weights = tables(seed, views)
    q = join(beliefs, ids, weights, a)
    np.testing.assert_allclose(q.sum(1), 1, atol=1e-5)
    assert (q >= 0).all()
    np.testing.assert_array_equal(q[0], beliefs[0])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_strength_zero_and_no_rounds_are_the_identity(seed: int) -> None:
    beliefs, ids, weights = tables(seed)
    np.testing.assert_array_equal(join(beliefs, ids, weights, 0.0), beliefs)
    np.testing.assert_array_equal(join(beliefs, ids, weights, 0.8, rounds=0), beliefs)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.permutations(range(NODES)))
def test_renumbering_the_nodes_renumbers_the_result(seed: int, order: list[int]) -> None:
    beliefs, ids, weights = tables(seed, views=2)
    new = np.argsort(order).astype(np.int32)  # old number -> new number
    moved = np.where(ids >= 0, new[np.maximum(ids, 0)], -1)[:, order]
    got = join(beliefs[order], moved, weights[:, order], 0.8)
    np.testing.assert_allclose(got, join(beliefs, ids, weights, 0.8)[order], atol=1e-6)


def test_the_mean_of_views_is_over_the_views_where_a_node_has_neighbours() -> None:
    beliefs, ids, weights = tables(3, views=2)
    ids[1, 5], weights[1, 5] = -1, 0
    alone = np.asarray(relation.row_softmax(weights[0], ids[0], 0.1))[5]
    wanted = 0.2 * beliefs[5] + 0.8 * alone @ beliefs[ids[0, 5]]
    np.testing.assert_allclose(join(beliefs, ids, weights, 0.8, rounds=1)[5], wanted, atol=1e-6)


def test_another_strength_or_temperature_compiles_nothing() -> None:
    beliefs, ids, weights = tables(0)
    join(beliefs, ids, weights, 0.3)
    before = relation.join_beliefs._cache_size()
    join(beliefs, ids, weights, 0.7)
    relation.join_beliefs(beliefs, ids, weights, 0.5, 0.2, 20)
    assert relation.join_beliefs._cache_size() == before


def test_q0_without_injection_is_the_belief() -> None:
    beliefs, _, _ = tables(0)
    labels = np.asarray([2] + [-1] * (NODES - 1), np.int32)
    np.testing.assert_array_equal(relation.q0(jnp.asarray(beliefs), jnp.asarray(labels), False), beliefs)
    injected = np.asarray(relation.q0(jnp.asarray(beliefs), jnp.asarray(labels)))
    np.testing.assert_array_equal(injected[0], [0, 0, 1, 0])
    np.testing.assert_array_equal(injected[1:], beliefs[1:])


def test_sharpen_is_the_identity_at_one_and_squares_at_two() -> None:
    beliefs, _, _ = tables(0)
    q = jnp.asarray(beliefs)
    np.testing.assert_array_equal(relation.sharpen(q, 1.0), beliefs)
    squared = beliefs**2 / (beliefs**2).sum(1, keepdims=True)
    np.testing.assert_allclose(relation.sharpen(q, 2.0), squared, rtol=1e-5)
    assert np.isfinite(relation.sharpen(jnp.eye(3), 30.0)).all()


@pytest.fixture(scope="module")
def feature_case() -> tuple[dict, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    params = relation.init_feature_join(jax.random.key(0), 8, views=2, heads=2)
    shape = (5, 2, 3)
    mask = rng.uniform(size=shape) < 0.7
    mask[0] = False
    mask[1, 0, 0] = True
    features = rng.standard_normal((*shape, 8)).astype(np.float32)
    return (
        params,
        rng.standard_normal((5, 8)).astype(np.float32),
        features,
        rng.uniform(size=shape).astype("f"),
        mask,
    )


def test_feature_join_equals_attention_written_out(feature_case: tuple) -> None:
    params, anchors, features, weights, mask = feature_case
    got = np.asarray(relation.feature_join(params, anchors, features, weights, mask))
    assert got.shape == (5, 8) and got.dtype == np.float32
    for i in range(1, 5):
        for head in range(2):
            query = anchors[i] @ params["query"][:, head]
            scores, values = [], []
            for view, rank in np.argwhere(mask[i]):
                key = features[i, view, rank] @ params["key"][:, head]
                trust = params["weight"][head] * weights[i, view, rank] + params["view"][view, head]
                scores.append(float(query @ key / 2 + trust))
                values.append(features[i, view, rank] @ params["value"][:, head])
            attention = np.exp(scores) / np.exp(scores).sum()
            np.testing.assert_allclose(got[i].reshape(2, 4)[head], attention @ np.stack(values), atol=1e-5)


def test_feature_join_is_zero_without_neighbours_and_has_finite_gradients(feature_case: tuple) -> None:
    params, anchors, features, weights, mask = feature_case
    assert not np.asarray(relation.feature_join(params, anchors, features, weights, mask))[0].any()

    def total(params: dict) -> jax.Array:
        return jnp.sum(jnp.square(relation.feature_join(params, anchors, features, weights, mask)))

    gradients = jax.grad(total)(params)
    assert all(np.isfinite(leaf).all() for leaf in gradients.values())
    assert all(np.asarray(leaf).any() for leaf in gradients.values())


def test_feature_join_does_not_see_the_order_or_the_padding_of_neighbours(feature_case: tuple) -> None:
    params, anchors, features, weights, mask = feature_case
    wanted = relation.feature_join(params, anchors, features, weights, mask)
    turned = relation.feature_join(params, anchors, features[:, :, ::-1], weights[:, :, ::-1], mask[:, :, ::-1])
    np.testing.assert_allclose(turned, wanted, atol=1e-6)
    filled = np.where(mask[..., None], features, np.float32(1e3))
    np.testing.assert_array_equal(relation.feature_join(params, anchors, filled, weights, mask), wanted)
