import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jkd.losses import activations

RNG = np.random.default_rng(0)
STUDENT, TEACHER = (jnp.asarray(RNG.normal(size=(3, 4, 4, 5)), jnp.float32) for _ in range(2))


def _boundary(student: jax.Array, teacher: jax.Array) -> jax.Array:
    return activations.activation_boundary(student, teacher, margin=1.0)


def test_the_boundary_asks_which_side_of_zero_and_no_more() -> None:
    assert _boundary(jnp.where(TEACHER > 0, 1.0, -1.0), TEACHER) == 0
    assert _boundary(STUDENT, TEACHER) == _boundary(STUDENT, jax.nn.relu(TEACHER)) == _boundary(STUDENT, 7 * TEACHER)
    by_hand = sum(
        max(0, 1 - s * (1 if t > 0 else -1)) ** 2
        for s, t in zip(STUDENT.ravel().tolist(), TEACHER.ravel().tolist(), strict=True)
    )
    np.testing.assert_allclose(_boundary(STUDENT, TEACHER), by_hand / 3, rtol=1e-5)


def test_overhaul_takes_each_channels_mean_negative_value_for_its_margin() -> None:
    negative = np.where(TEACHER < 0, TEACHER, np.nan)
    margin = jnp.asarray(np.nanmean(negative, axis=(0, 1, 2), keepdims=True))
    np.testing.assert_allclose(
        activations.overhaul(STUDENT, TEACHER), activations.partial_l2(STUDENT, TEACHER, margin), rtol=1e-5
    )
    below = jnp.full_like(STUDENT, -9.0)  # far below the margin, where the teacher does not fire: nothing to learn
    np.testing.assert_allclose(activations.overhaul(below, -jnp.abs(TEACHER)), 0, atol=0)
    after = jax.nn.relu(TEACHER)
    by_hand = np.where((after > 0) | (np.asarray(STUDENT) > 0), (STUDENT - after) ** 2, 0).sum() / 3
    np.testing.assert_allclose(activations.overhaul(STUDENT, after), by_hand, rtol=1e-5)


@pytest.mark.parametrize("loss", [_boundary, activations.overhaul], ids=["activation_boundary", "overhaul"])
def test_another_width_is_refused_and_the_larger_map_is_pooled(loss) -> None:
    with pytest.raises(ValueError, match=r"expected taps of the same width, got 5 channels \(student\) and 4"):
        loss(STUDENT, TEACHER[..., :4])
    large = jnp.repeat(jnp.repeat(STUDENT, 2, axis=1), 2, axis=2)
    np.testing.assert_allclose(loss(large, TEACHER), loss(STUDENT, TEACHER), rtol=1e-5)
