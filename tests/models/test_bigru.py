import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.errors import UserError
from jkd.models.bigru import BiGru

SMALL = BiGru(classes=3, vocab=30, width=5, depth=2, embedding_width=4)
IDS = jnp.array([[5, 6, 7, 8, 0, 0], [9, 3, 4, 0, 0, 0], [1, 2, 11, 12, 13, 14]], jnp.int32)


@pytest.fixture(scope="module")
def variables():
    shapes = jax.eval_shape(SMALL.init, jax.random.key(0), IDS)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), leaf.dtype), shapes)


@pytest.fixture(scope="module")
def apply(variables):
    return jax.jit(lambda ids: SMALL.apply(variables, ids))


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _one_way(x, input_kernel, input_bias, kernel, bias):
    """A GRU over `[L, E]`, token by token in float64."""
    width, state, states = kernel.shape[0], np.zeros(kernel.shape[0]), []
    for token in x:
        given, back = token @ input_kernel + input_bias, state @ kernel + bias
        reset = _sigmoid(given[:width] + back[:width])
        update = _sigmoid(given[width : 2 * width] + back[width : 2 * width])
        new = np.tanh(given[2 * width :] + reset * back[2 * width :])
        state = (1 - update) * new + update * state
        states.append(state)
    return np.array(states)


def _reference(params, text):
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    x = params["word"]["embedding"][text]
    for n in range(2):
        kernel, bias = params[f"layer{n}_input"]["kernel"], params[f"layer{n}_input"]["bias"]
        back, back_bias = params[f"layer{n}_recurrent_kernel"], params[f"layer{n}_recurrent_bias"]
        forward = _one_way(x, kernel[:, :15], bias[:15], back[0], back_bias[0])
        backward = _one_way(x[::-1], kernel[:, 15:], bias[15:], back[1], back_bias[1])[::-1]
        x = np.concatenate([forward, backward], 1)
    return x


def test_states_are_those_of_each_text_read_alone_both_ways(variables, apply):
    logits, taps = apply(IDS)
    for index, text in enumerate(np.asarray(IDS)):
        real = text[text != 0]
        states = _reference(variables["params"], real)
        np.testing.assert_allclose(taps["layer1/hidden"][index, : len(real)], states, atol=1e-5)
        assert not taps["layer1/hidden"][index, len(real) :].any()
        np.testing.assert_allclose(taps["embedding"][index], states.max(0), atol=1e-5)
    assert (logits.shape, logits.dtype, taps["embedding"].shape) == ((3, 3), jnp.float32, (3, 10))


@settings(max_examples=20, deadline=None)
@given(texts=st.lists(st.lists(st.integers(1, 29), max_size=6), min_size=3, max_size=3))
def test_padding_changes_nothing(apply, texts):
    short, long = (jnp.array([text + [0] * (size - len(text)) for text in texts], jnp.int32) for size in (6, 9))
    (logits, taps), (padded_logits, padded) = apply(short), apply(long)
    np.testing.assert_allclose(logits, padded_logits, atol=1e-5)
    np.testing.assert_allclose(taps["embedding"], padded["embedding"], atol=1e-5)
    assert np.isfinite(logits).all()


def test_mean_pooling_is_over_real_tokens(variables):
    _, taps = SMALL.clone(pooling="mean").apply(variables, IDS)
    np.testing.assert_allclose(taps["embedding"][1], taps["layer1/hidden"][1, :3].mean(0), atol=1e-6)


def test_gradients_are_finite_even_for_no_text_at_all(variables):
    loss = lambda variables: (SMALL.apply(variables, IDS.at[1].set(0))[0] ** 2).mean()  # noqa: E731
    gradients = jax.jit(jax.grad(loss))(variables)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert all(leaf.any() for leaf in jax.tree.leaves(gradients))


def test_recurrent_kernels_start_orthogonal():
    kernel = SMALL.clone(depth=1).init(jax.random.key(0), IDS)["params"]["layer0_recurrent_kernel"]
    for way in kernel:
        for gate in np.split(np.asarray(way), 3, 1):
            np.testing.assert_allclose(gate.T @ gate, np.eye(5), atol=1e-5)


def test_bfloat16_keeps_the_recurrence_near(variables, apply):
    logits, taps = SMALL.clone(dtype=jnp.dtype(jnp.bfloat16)).apply(variables, IDS)
    assert taps["layer1/hidden"].dtype == jnp.bfloat16 and taps["embedding"].dtype == jnp.float32
    np.testing.assert_allclose(logits, apply(IDS)[0], atol=0.1)


def test_an_unknown_pooling_is_refused():
    with pytest.raises(UserError, match="pooling: unknown 'cls'"):
        jax.eval_shape(SMALL.clone(pooling="cls").init, jax.random.key(0), IDS)
