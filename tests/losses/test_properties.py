"""What every loss promises: sign, zero at equality, order, types, finite gradients."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.losses import contrastive, features, logits, relations

BATCH, WIDTH = 6, 5


def _unit(rows: jax.Array) -> jax.Array:
    squared = jnp.sum(rows.astype(jnp.float32) ** 2, -1, keepdims=True)
    return (rows.astype(jnp.float32) * jax.lax.rsqrt(squared + 1e-6)).astype(rows.dtype)


class Case(NamedTuple):
    """A loss of (student, teacher, a row of probabilities per sample), jitted once for all examples."""

    loss: Callable[..., jax.Array]
    zero_at_equality: bool = True


def _cross_entropy(s: jax.Array, t: jax.Array, q: jax.Array) -> jax.Array:
    labelled = (jnp.argmax(q, -1) > 0).astype(jnp.float32)
    return logits.cross_entropy(s, q, labelled, smoothing=0.1)


CASES = {
    "cross_entropy": Case(_cross_entropy, False),
    "kd": Case(lambda s, t, q: logits.kd(s, t, temperature=3.0)),
    "smoothed_kd": Case(lambda s, t, q: logits.smoothed_kd(s, t, smoothing=jnp.float32(0.2)), False),
    "joined_beliefs": Case(lambda s, t, q: logits.joined_beliefs(s, t, q, jnp.float32(0.8)), False),
    "info_nce": Case(lambda s, t, q: contrastive.info_nce(_unit(s), _unit(t), temperature=0.1), False),
    "relation_matching": Case(lambda s, t, q: relations.relation_matching(_unit(s), _unit(t), temperature=0.1)),
    "rkd": Case(lambda s, t, q: relations.rkd(s, t, distance_weight=25.0, angle_weight=50.0)),
    "sp": Case(lambda s, t, q: relations.sp(s, t)),
    "fitnet": Case(lambda s, t, q: features.fitnet(s, t)),
}
VALUE_AND_GRADIENT = {name: jax.jit(jax.value_and_grad(case.loss, argnums=(0, 1))) for name, case in CASES.items()}


def _inputs(seed: int, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    student, teacher = (rng.normal(size=(BATCH, WIDTH)).astype(np.float32) * np.float32(scale) for _ in range(2))
    return student, teacher, rng.dirichlet(np.ones(WIDTH), BATCH).astype(np.float32)


def _run(name: str, *arrays: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return VALUE_AND_GRADIENT[name](*map(jnp.asarray, arrays))


@pytest.mark.parametrize("name", CASES)
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
    assert not np.any(to_teacher)
    order = np.random.default_rng(seed).permutation(BATCH)
    again, (reordered, _) = _run(name, *(array[order] for array in arrays))
    np.testing.assert_allclose(again, loss, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(reordered, gradient[order], rtol=1e-3, atol=1e-4 * np.abs(gradient).max() + 1e-7)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.zero_at_equality])
def test_loss_and_gradient_are_zero_when_student_and_teacher_are_equal(name: str) -> None:
    student, _, beliefs = _inputs(0, 1.0)
    loss, (gradient, _) = _run(name, student, student, beliefs)
    np.testing.assert_allclose(loss, 0, atol=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-5)


@pytest.mark.parametrize("coincident", ["all", "two", "zeros"])
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_finite_at_coincident_points(name: str, coincident: str) -> None:
    student, teacher, beliefs = _inputs(1, 1.0)
    if coincident == "zeros":
        student, teacher = np.zeros_like(student), np.zeros_like(teacher)
    else:
        rows = slice(None) if coincident == "all" else slice(2)
        student[rows], teacher[rows] = student[0], teacher[0]
    loss, (gradient, _) = _run(name, student, teacher, beliefs)
    assert np.isfinite(loss) and np.isfinite(gradient).all()


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_inputs_give_a_float32_loss_computed_in_float32(name: str) -> None:
    rounded = [jnp.asarray(array, jnp.bfloat16) for array in _inputs(2, 1.0)]
    loss, (gradient, _) = _run(name, *rounded)
    assert loss.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
    exact, _ = _run(name, *(array.astype(jnp.float32) for array in rounded))
    # the projections of this test are themselves rounded to bfloat16 before the loss sees them
    tolerance = 2e-2 if name in ("info_nce", "relation_matching") else 1e-5
    np.testing.assert_allclose(loss, exact, rtol=tolerance, atol=1e-6)
