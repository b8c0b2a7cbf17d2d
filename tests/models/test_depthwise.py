import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.models.depthwise import depthwise


def _both(x, kernel, *geometry):
    """Value, gradient of the input and gradient of the kernel, in either formulation."""

    def run(formulation):
        def f(x, kernel):
            return depthwise(x, kernel, *geometry, formulation=formulation)

        def all_three(x, kernel):
            y, back = jax.vjp(f, x, kernel)
            return y, *back(jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape).astype(y.dtype))

        return jax.jit(all_three)(x, kernel)

    return run("shifted"), run("lax")


def _assert_equal(x, kernel, *geometry):
    for mine, theirs in zip(*_both(x, kernel, *geometry), strict=True):
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5 * float(jnp.abs(theirs).max()))


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("multiplier", [1, 3])
def test_value_and_gradients_equal_those_of_lax(size, stride, multiplier):
    x = jax.random.normal(jax.random.key(0), (2, 9, 8, 4))
    kernel = jax.random.normal(jax.random.key(1), (size, size, 1, 4 * multiplier))
    _assert_equal(x, kernel, stride, size // 2, 1)


@settings(max_examples=4, deadline=None)
@given(
    height=st.integers(5, 9),
    width=st.integers(5, 9),
    size=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 4),
    dilation=st.integers(1, 2),
)
def test_any_geometry_equals_that_of_lax(height, width, size, stride, padding, dilation):
    if min(height, width) + 2 * padding < dilation * (size - 1) + 1:
        return
    x = jax.random.normal(jax.random.key(0), (1, height, width, 3))
    kernel = jax.random.normal(jax.random.key(1), (size, size, 1, 3))
    _assert_equal(x, kernel, stride, padding, dilation)


def test_a_multiplier_gives_the_outputs_of_a_channel_side_by_side():
    x = jnp.stack([jnp.ones((1, 2, 2)), jnp.full((1, 2, 2), 10.0)], -1)
    y = depthwise(x, jnp.arange(1.0, 5.0).reshape(1, 1, 1, 4), formulation="shifted")
    np.testing.assert_array_equal(y[0, 0, 0], [1, 2, 30, 40])


def test_16_bit_inputs_give_16_bit_results_that_are_summed_in_32():
    x = jax.random.normal(jax.random.key(0), (1, 6, 6, 8)).astype(jnp.bfloat16)
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 1, 8)).astype(jnp.bfloat16)
    y, x_gradient, kernel_gradient = _both(x, kernel, 1, 1, 1)[0]
    assert y.dtype == x_gradient.dtype == kernel_gradient.dtype == jnp.bfloat16
    exact = depthwise(x.astype(jnp.float32), kernel.astype(jnp.float32), 1, 1, formulation="lax")
    np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))


def test_the_formulation_goes_by_backend(monkeypatch):
    def program():
        x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 2))
        return str(jax.make_jaxpr(lambda x: depthwise(x, kernel, 1, 1))(x))

    assert "conv_general_dilated" not in program()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "feature_group_count=2" in program()
