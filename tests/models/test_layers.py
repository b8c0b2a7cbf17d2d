import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jkd.models.layers import Conv, adaptive_average_pool, dropout, max_pool_2x2


def _normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_conv_is_padded_on_both_sides_alike_and_adds_its_bias(size, stride, bias):
    x, conv = _normal(0, 2, 8, 6, 5), Conv(6, size, stride, bias)
    params = conv.init(jax.random.key(1), x)["params"]
    assert params.keys() == ({"kernel", "bias"} if bias else {"kernel"})
    added = jnp.arange(6, dtype=jnp.float32) if bias else jnp.zeros(6)
    params |= {"bias": added} if bias else {}
    edges, numbers = ((size // 2, size // 2),) * 2, ("NHWC", "HWIO", "NHWC")
    expected = lax.conv_general_dilated(x, params["kernel"], (stride, stride), edges, dimension_numbers=numbers)
    expected += added.reshape(1, 1, 1, 6)
    made = conv.apply({"params": params}, x)
    assert made.shape == (2, -(-8 // stride), -(-6 // stride), 6)
    np.testing.assert_allclose(made, expected, atol=1e-5, rtol=1e-5)


def test_conv_computes_in_its_type_and_keeps_its_parameters_in_float32():
    conv = Conv(6, dtype=jnp.dtype(jnp.bfloat16))
    variables = conv.init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    assert conv.apply(variables, jnp.zeros((1, 4, 4, 3))).dtype == jnp.bfloat16


def test_conv_starts_he_normal_over_the_fan_out():
    kernel = Conv(64).init(jax.random.key(0), jnp.zeros((1, 4, 4, 64)))["params"]["kernel"]
    assert float(kernel.std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)


def test_max_pool_equals_reduce_window_and_drops_an_odd_edge():
    x = _normal(0, 2, 7, 6, 3)
    expected = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    np.testing.assert_array_equal(max_pool_2x2(x), expected)


def test_max_pool_gradient_goes_to_the_largest_and_is_shared_by_ties():
    x = jnp.array([[1.0, 2.0], [3.0, 0.0]]).reshape(1, 2, 2, 1)
    tied = jnp.array([[3.0, 2.0], [3.0, 0.0]]).reshape(1, 2, 2, 1)
    gradient = jax.grad(lambda x: max_pool_2x2(x).sum())
    np.testing.assert_array_equal(gradient(x).ravel(), [0, 0, 1, 0])
    np.testing.assert_array_equal(gradient(tied).ravel(), [0.5, 0, 0.5, 0])


@pytest.mark.parametrize("length", [1, 2, 7, 9, 14])
def test_adaptive_average_pool_averages_the_rows_and_columns_of_each_cell(length):
    x = np.asarray(_normal(0, 2, length, length, 3))
    expected = np.empty((2, 7, 7, 3))
    for i in range(7):
        for j in range(7):
            rows = slice(i * length // 7, -(-(i + 1) * length // 7))
            columns = slice(j * length // 7, -(-(j + 1) * length // 7))
            expected[:, i, j] = x[:, rows, columns].mean((1, 2))
    np.testing.assert_allclose(adaptive_average_pool(jnp.asarray(x), 7), expected, atol=1e-6)


def test_dropout_mask_belongs_to_the_sample_not_to_its_batch():
    x, keys = jnp.ones((6, 50)), jax.random.split(jax.random.key(0), 6)
    whole = dropout(x, 0.5, keys, 0)
    np.testing.assert_array_equal(whole[3:5], dropout(x[3:5], 0.5, keys[3:5], 0))
    assert not np.array_equal(whole, dropout(x, 0.5, keys, 1))


def test_dropout_keeps_the_mean_and_the_type():
    x = jnp.ones((20, 500), jnp.bfloat16)
    y = dropout(x, 0.2, jax.random.split(jax.random.key(0), 20), 0)
    assert y.dtype == jnp.bfloat16
    assert float(y.astype(jnp.float32).mean()) == pytest.approx(1, abs=0.03)
    assert set(np.unique(y.astype(jnp.float32))) == {0.0, 1.25}


def test_dropout_without_keys_is_refused_and_at_rate_0_needs_none():
    with pytest.raises(ValueError, match="one key per sample"):
        dropout(jnp.ones((2, 3)), 0.5, None, 0)
    np.testing.assert_array_equal(dropout(jnp.ones((2, 3)), 0.0, None, 0), jnp.ones((2, 3)))
