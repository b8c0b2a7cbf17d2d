"""Similarity-preserving distillation."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from jkd.losses.relations import sp

MAPS = jnp.asarray(np.random.default_rng(0).normal(size=(8, 2, 2, 3)), jnp.float32)


def test_value_and_gradient_equal_the_golden_ones(equals_golden: Callable[..., None]) -> None:
    equals_golden("sp", sp)


def test_it_ignores_the_scale_of_a_tap_and_flattens_maps() -> None:
    np.testing.assert_allclose(sp(3 * MAPS, MAPS.reshape(8, 12)), 0, atol=1e-10)
