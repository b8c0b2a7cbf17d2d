"""project: rows of length 1, gradients finite everywhere."""

import jax
import jax.numpy as jnp
import numpy as np

from jkd.graph import projection


def test_rows_have_length_one_and_parts_are_joined_side_by_side() -> None:
    params = projection.init_projection(jax.random.key(0), 5, 3)
    x = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    got = projection.project(params, x)
    assert got.shape == (4, 3) and got.dtype == jnp.float32
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(projection.project(params, x[:, :2], x[:, 2:]), got)


def test_a_zero_row_stays_zero_with_a_finite_gradient() -> None:
    x = jnp.zeros((2, 3))
    assert not np.asarray(projection.normalise(x)).any()
    assert np.isfinite(jax.grad(lambda x: jnp.sum(projection.normalise(x)))(x)).all()


def test_the_same_key_gives_the_same_head() -> None:
    first, second = (projection.init_projection(jax.random.key(3), 4, 2) for _ in range(2))
    np.testing.assert_array_equal(first["kernel"], second["kernel"])
