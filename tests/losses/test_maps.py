import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jkd.losses import maps

RNG = np.random.default_rng(0)
SMALL = jnp.asarray(RNG.normal(size=(3, 2, 4, 5)), jnp.float32)
LARGE = jnp.repeat(jnp.repeat(SMALL, 2, axis=1), 2, axis=2)
TOKENS = SMALL.reshape(3, 8, 5)
LOSSES = {
    "attention_transfer": maps.attention_transfer,
    "nst": maps.nst,
    "cwd": lambda s, t: maps.cwd(s, t, temperature=2.0),
    "ickd": maps.ickd,
    "pkd": maps.pkd,
}


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"ickd"}))
def test_the_larger_map_is_pooled_to_the_smaller_and_tokens_are_positions_too(name: str) -> None:
    loss = jax.jit(LOSSES[name])
    other = SMALL[::-1]
    np.testing.assert_allclose(loss(SMALL, LARGE), 0, atol=1e-6)
    np.testing.assert_allclose(loss(LARGE, other), loss(SMALL, other), rtol=1e-4)
    np.testing.assert_allclose(loss(TOKENS, TOKENS[::-1]), loss(SMALL, other), rtol=1e-5)


def test_cwd_ignores_what_is_added_to_a_channel_and_pkd_its_scale_too() -> None:
    shift, scale = (jnp.asarray(RNG.uniform(1, 3, (1, 1, 1, 5)), jnp.float32) for _ in range(2))
    np.testing.assert_allclose(LOSSES["cwd"](SMALL + shift, SMALL), 0, atol=1e-6)
    np.testing.assert_allclose(maps.pkd(SMALL * scale + shift, SMALL), 0, atol=1e-6)


def test_pkd_is_one_less_the_channels_correlation() -> None:
    rows = [np.asarray(each).reshape(-1, 5) for each in (SMALL, SMALL[::-1])]
    correlation = np.mean([np.corrcoef(rows[0][:, c], rows[1][:, c])[0, 1] for c in range(5)])
    n = len(rows[0])
    np.testing.assert_allclose(maps.pkd(SMALL, SMALL[::-1]), (1 - correlation) * (n - 1) / n, rtol=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_where_a_map_is_constant(name: str) -> None:
    gradient = jax.jit(jax.grad(LOSSES[name]))
    for value in (0.0, 0.7):
        assert np.isfinite(gradient(jnp.full_like(SMALL, value), SMALL)).all()


@pytest.mark.parametrize("name", ["attention_transfer", "nst", "cwd", "ickd"])
def test_taps_without_positions_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}: expected taps with positions.*before they are pooled"):
        LOSSES[name](SMALL[:, 0, 0], SMALL[:, 0, 0])


@pytest.mark.parametrize("name", ["cwd", "ickd", "pkd"])
def test_taps_of_other_widths_or_positions_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}: expected taps of the same width, got 5 channels.*4 \(teacher\)"):
        LOSSES[name](SMALL, SMALL[..., :4])
    if name != "ickd":
        with pytest.raises(ValueError, match=rf"{name}: expected taps of the same positions"):
            LOSSES[name](TOKENS, TOKENS[:, :7])
        with pytest.raises(ValueError, match=rf"{name}: cannot pool a map of 2 x 4 to 2 x 3"):
            LOSSES[name](SMALL, SMALL[:, :, :3])
