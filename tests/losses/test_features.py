import jax.numpy as jnp
import numpy as np
import pytest

from jkd.losses.features import fitnet

RNG = np.random.default_rng(0)
SMALL = jnp.asarray(RNG.normal(size=(2, 3, 2, 5)), jnp.float32)
LARGE = jnp.repeat(jnp.repeat(SMALL, 2, axis=1), 4, axis=2)


def test_the_larger_map_is_pooled_to_the_smaller_on_either_side() -> None:
    np.testing.assert_allclose(fitnet(SMALL, LARGE), 0, atol=1e-12)
    np.testing.assert_allclose(fitnet(LARGE, SMALL), 0, atol=1e-12)


def test_maps_whose_sizes_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"3 x 8 to 2 x 2.*do not divide"):
        fitnet(jnp.zeros((2, 2, 2, 5)), jnp.zeros((2, 3, 8, 5)))


def test_taps_of_different_width_or_rank_are_refused() -> None:
    with pytest.raises(ValueError, match="same rank and width"):
        fitnet(jnp.zeros((2, 4)), jnp.zeros((2, 5)))
    with pytest.raises(ValueError, match="same rank and width"):
        fitnet(jnp.zeros((2, 4)), SMALL)
