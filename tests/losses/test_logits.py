import jax
import jax.numpy as jnp
import numpy as np

from jkd.losses import logits

RNG = np.random.default_rng(0)
STUDENT, TEACHER = (jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32) for _ in range(2))
BELIEFS = jnp.asarray(RNG.dirichlet(np.ones(3), 4), jnp.float32)


def test_kl_divergence_takes_zero_log_zero_as_zero() -> None:
    target = jnp.array([[1.0, 0.0, 0.0]], jnp.float32)
    log_probs = jnp.log(jnp.array([[0.5, 0.25, 0.25]], jnp.float32))
    np.testing.assert_allclose(logits.kl_divergence(target, log_probs), np.log(2), rtol=1e-6)


def test_cross_entropy_averages_over_the_labelled_only() -> None:
    target, labelled = jax.nn.one_hot(jnp.array([0, 2, 1, 0]), 3), jnp.array([1.0, 0.0, 1.0, 0.0])
    target = target * labelled[:, None]
    log_probs = jax.nn.log_softmax(STUDENT)
    expected = -(log_probs[0, 0] + log_probs[2, 1]) / 2
    np.testing.assert_allclose(logits.cross_entropy(STUDENT, target, labelled), expected, rtol=1e-6)


def test_cross_entropy_is_zero_where_no_sample_has_a_label() -> None:
    loss, gradient = jax.value_and_grad(logits.cross_entropy)(STUDENT, jnp.zeros((4, 3)), jnp.zeros(4))
    assert loss == 0 and not gradient.any()


def test_cross_entropy_with_smoothing_equals_the_cross_entropy_with_the_smoothed_target() -> None:
    target, ones = jax.nn.one_hot(jnp.array([0, 2, 1, 0]), 3), jnp.ones(4)
    smoothed = logits.cross_entropy(STUDENT, target, ones, smoothing=0.3)
    np.testing.assert_allclose(smoothed, logits.cross_entropy(STUDENT, 0.7 * target + 0.1, ones), rtol=1e-6)


def test_smoothed_kd_without_smoothing_equals_kd_at_temperature_one() -> None:
    np.testing.assert_allclose(
        logits.smoothed_kd(STUDENT, TEACHER, smoothing=0.0),
        logits.kd(STUDENT, TEACHER, temperature=1.0),
        rtol=1e-6,
    )


def test_joined_beliefs_without_mix_equals_kd_at_temperature_one() -> None:
    np.testing.assert_allclose(
        logits.joined_beliefs(STUDENT, TEACHER, BELIEFS, 0.0),
        logits.kd(STUDENT, TEACHER, temperature=1.0),
        rtol=1e-6,
    )


def test_joined_beliefs_is_zero_when_the_student_believes_the_mixture() -> None:
    target = 0.2 * jax.nn.softmax(TEACHER) + 0.8 * BELIEFS
    np.testing.assert_allclose(logits.joined_beliefs(jnp.log(target), TEACHER, BELIEFS, 0.8), 0, atol=1e-6)


def test_joined_beliefs_of_one_hot_beliefs_alone_is_their_cross_entropy() -> None:
    one_hot = jax.nn.one_hot(jnp.array([0, 2, 1, 0]), 3)
    np.testing.assert_allclose(
        logits.joined_beliefs(STUDENT, TEACHER, one_hot, 1.0),
        logits.cross_entropy(STUDENT, one_hot, jnp.ones(4)),
        rtol=1e-6,
    )


def test_a_traced_smoothing_and_mix_compile_once() -> None:
    step = jax.jit(
        lambda s, m: (
            logits.smoothed_kd(STUDENT, TEACHER, smoothing=s) + logits.joined_beliefs(STUDENT, TEACHER, BELIEFS, m)
        )
    )
    for value in (0.1, 0.2):
        step(value, value)
    assert step._cache_size() == 1
