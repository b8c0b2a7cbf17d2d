import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jkd.losses.features import fitnet, init_vid, vid

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


def test_vid_is_a_gaussians_negative_log_likelihood_of_variance_5_at_the_start() -> None:
    student, teacher = SMALL[..., :3], SMALL
    context = init_vid(jax.random.key(0), (student.shape,), (teacher.shape,))
    mean = np.asarray(student)
    for layer in range(3):
        mean = mean @ np.asarray(context[f"layer{layer}"]["kernel"])
        mean = np.maximum(mean, 0) if layer < 2 else mean
    expected = np.mean((np.asarray(teacher) - mean) ** 2 / 5 + np.log(5)) / 2
    np.testing.assert_allclose(vid(student, teacher, context), expected, rtol=1e-5)
    np.testing.assert_allclose(vid(student, LARGE, context), expected, rtol=1e-5)


def test_vid_learns_the_variance_of_each_channel() -> None:
    rows = jnp.asarray(RNG.normal(size=(4000, 2)) * [0.5, 2.0], jnp.float32)  # that the student knows nothing of
    student = jnp.zeros((4000, 3))
    context = init_vid(jax.random.key(0), (student.shape,), (rows.shape,))
    step = jax.jit(jax.grad(lambda context: vid(student, rows, context)))
    for _ in range(600):
        context = jax.tree.map(lambda leaf, slope: leaf - 0.3 * slope, context, step(context))
    np.testing.assert_allclose(jax.nn.softplus(context["variance"]), [0.25, 4.0], rtol=0.1)
