"""What every loss promises: sign, zero at equality, order, types, finite gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from jkd.methods import METHODS as EVERY

from .conftest import of_method

BATCH, WIDTH = 8, 5
# Those that compare tokens have properties of their own, in test_text.py.
METHODS = {name: method for name, method in EVERY.items() if not (method.tokens or method.objects)}
VALUE_AND_GRADIENT = {name: jax.jit(jax.value_and_grad(of_method(name), argnums=(0, 1))) for name in METHODS}


def _inputs(seed: int, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    student, teacher = (rng.normal(size=(BATCH, WIDTH)).astype(np.float32) * np.float32(scale) for _ in range(2))
    return student, teacher, rng.dirichlet(np.ones(WIDTH), BATCH).astype(np.float32)


def _run(name: str, *arrays: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return VALUE_AND_GRADIENT[name](*map(jnp.asarray, arrays))


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([1e-3, 1.0, 30.0]))
def test_loss_is_not_negative_ignores_order_and_sends_the_teacher_no_gradient(
    name: str, seed: int, scale: float
) -> None:
    arrays = _inputs(seed, scale)
    loss, (gradient, to_teacher) = _run(name, *arrays)
    assert loss.shape == () and loss.dtype == jnp.float32
    assert loss >= -1e-5
    assert np.isfinite(gradient).all()
    assert (name == "projection") == bool(np.any(to_teacher))  # its teacher side is a projection, to be learned
    if name == "batch_order_cc":  # as it says
        return
    order = np.random.default_rng(seed).permutation(BATCH)
    again, (reordered, _) = _run(name, *(array[order] for array in arrays))
    np.testing.assert_allclose(again, loss, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(reordered, gradient[order], rtol=1e-3, atol=1e-4 * np.abs(gradient).max() + 1e-7)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.distance])
def test_loss_and_gradient_are_zero_when_student_and_teacher_are_equal(name: str) -> None:
    student, _, beliefs = _inputs(0, 1.0)
    loss, (gradient, _) = _run(name, student, student, beliefs)
    np.testing.assert_allclose(loss, 0, atol=1e-6)
    if name != "factor_transfer":  # of absolute differences: its gradient does not shrink with them
        np.testing.assert_allclose(gradient, 0, atol=1e-5)


@pytest.mark.parametrize("coincident", ["all", "two", "zeros"])
@pytest.mark.parametrize("name", METHODS)
def test_gradients_are_finite_at_coincident_points(name: str, coincident: str) -> None:
    student, teacher, beliefs = _inputs(1, 1.0)
    if coincident == "zeros":
        student, teacher = np.zeros_like(student), np.zeros_like(teacher)
    else:
        rows = slice(None) if coincident == "all" else slice(2)
        student[rows], teacher[rows] = student[0], teacher[0]
    loss, (gradient, _) = _run(name, student, teacher, beliefs)
    assert np.isfinite(loss) and np.isfinite(gradient).all()


@pytest.mark.parametrize("name", METHODS)
def test_bfloat16_inputs_give_a_float32_loss_computed_in_float32(name: str) -> None:
    rounded = [jnp.asarray(array, jnp.bfloat16) for array in _inputs(2, 1.0)]
    loss, (gradient, _) = _run(name, *rounded)
    assert loss.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
    exact, _ = _run(name, *(array.astype(jnp.float32) for array in rounded))
    # the projections of this test are themselves rounded to bfloat16 before the loss sees them
    tolerance = 2e-2 if name in ("projection", "relation_matching") else 1e-5
    np.testing.assert_allclose(loss, exact, rtol=tolerance, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_on_a_sharded_batch_the_loss_is_that_of_the_global_batch(name: str) -> None:
    rows = NamedSharding(jax.make_mesh((4,), ("data",)), PartitionSpec("data"))
    arrays = [jnp.asarray(array) for array in _inputs(3, 1.0)]
    sharded = jax.jit(of_method(name), in_shardings=(rows, rows, rows))(*arrays)
    np.testing.assert_allclose(sharded, of_method(name)(*arrays), rtol=1e-4, atol=1e-6)
