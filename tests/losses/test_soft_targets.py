import jax
import jax.numpy as jnp
import numpy as np

from jkd.losses import logits, soft_targets

RNG = np.random.default_rng(0)
STUDENT, TEACHER = (jnp.asarray(RNG.normal(size=(6, 5)), jnp.float32) for _ in range(2))
LABELS = jax.nn.one_hot(jnp.asarray([0, 1, 2, 3, 4, 0]), 5)
NONE, ALL = jnp.zeros(6), jnp.ones(6)


def _dkd(student: jax.Array, teacher: jax.Array, target: jax.Array, labelled: jax.Array, beta: float) -> jax.Array:
    return soft_targets.dkd(student, teacher, target, labelled, alpha=1.0, beta=beta, temperature=4.0)


def test_dkd_of_two_classes_is_kd_and_has_no_nan() -> None:
    two = (STUDENT[:, :2], TEACHER[:, :2], LABELS[:, :2], ALL)
    loss, gradient = jax.jit(jax.value_and_grad(lambda s, *rest: _dkd(s, *rest, beta=8.0)))(*two)
    np.testing.assert_allclose(loss, logits.kd(*two[:2], temperature=4.0), rtol=1e-5)
    assert np.isfinite(gradient).all()


def test_dkd_with_the_weights_that_kd_has_is_kd() -> None:
    one, labels = TEACHER[:1], LABELS[:1]
    rest = 1 - jax.nn.softmax(one / 4)[0, 0]  # the weight of the other classes that KD couples to the target's
    np.testing.assert_allclose(
        _dkd(STUDENT[:1], one, labels, ALL[:1], beta=float(rest)),
        logits.kd(STUDENT[:1], one, temperature=4.0),
        rtol=1e-5,
    )


def test_a_sample_without_a_label_has_the_teachers_class() -> None:
    own = jax.nn.one_hot(jnp.argmax(TEACHER, axis=-1), 5)
    zeros = jnp.zeros((6, 5))
    assert _dkd(STUDENT, TEACHER, zeros, NONE, 8.0) == _dkd(STUDENT, TEACHER, own, ALL, 8.0)
    wsld = [soft_targets.wsld(STUDENT, TEACHER, *it, temperature=2.0) for it in ((zeros, NONE), (own, ALL))]
    assert wsld[0] == wsld[1]


def test_dist_is_numpy_s_pearson_correlation() -> None:
    student, teacher = (np.asarray(jax.nn.softmax(each / 4)) for each in (STUDENT, TEACHER))
    inter = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(student, teacher, strict=True)])
    intra = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(student.T, teacher.T, strict=True)])
    loss = soft_targets.dist(STUDENT, TEACHER, inter_weight=2.0, intra_weight=3.0, temperature=4.0)
    np.testing.assert_allclose(loss, 16 * (2 * inter + 3 * intra), rtol=1e-5)


def test_standardised_logits_ignore_scale_and_shift() -> None:
    np.testing.assert_allclose(
        soft_targets.logit_standardization(3 * STUDENT + 2, STUDENT, temperature=2.0), 0, atol=1e-6
    )


def test_nkd_is_the_cross_entropy_with_the_teachers_share_and_kd_among_the_others() -> None:
    student, teacher = (np.asarray(each, np.float64) for each in (STUDENT, TEACHER))
    total = 0.0
    for s, t, label in zip(student, teacher, np.argmax(LABELS, axis=-1), strict=True):
        beliefs, own = (np.exp(each) / np.exp(each).sum() for each in (t, s))
        rest = [c for c in range(5) if c != label]
        others, ours = (np.exp(each[rest] / 2) / np.exp(each[rest] / 2).sum() for each in (t, s))
        total -= beliefs[label] * np.log(own[label]) + 1.5 * 4 * np.sum(others * np.log(ours))
    found = soft_targets.nkd(STUDENT, TEACHER, LABELS, ALL, gamma=1.5, temperature=2.0)
    np.testing.assert_allclose(found, total / 6, rtol=1e-5)


def test_the_transformed_teacher_at_temperature_1_is_kd_and_weights_are_powers_of_its_beliefs() -> None:
    plain = soft_targets.transformed_teacher(STUDENT, TEACHER, temperature=1.0, weighted=False)
    np.testing.assert_allclose(plain, logits.kd(STUDENT, TEACHER, temperature=1.0), rtol=1e-5)
    weighted = soft_targets.transformed_teacher(STUDENT, TEACHER, temperature=1.0, weighted=True)
    np.testing.assert_allclose(weighted, plain, rtol=1e-5)  # beliefs to the power of 1 sum to 1
    beliefs = np.asarray(jax.nn.softmax(TEACHER), np.float64)
    weight = (beliefs**0.25).sum(-1)
    target, own = np.asarray(jax.nn.softmax(TEACHER / 4)), np.asarray(jax.nn.log_softmax(STUDENT))
    expected = np.mean(weight * (target * (np.log(target) - own)).sum(-1))
    found = soft_targets.transformed_teacher(STUDENT, TEACHER, temperature=4.0, weighted=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_multi_level_is_kd_and_two_tables_averaged_over_five_temperatures() -> None:
    def loss(**weights: float) -> jax.Array:
        weights = dict(instance_weight=0.0, batch_weight=0.0, class_weight=0.0) | weights
        return soft_targets.multi_level(STUDENT, TEACHER, temperature=4.0, **weights)

    at = (2.0, 3.0, 4.0, 5.0, 6.0)
    expected = np.mean([logits.kd(STUDENT, TEACHER, temperature=t) for t in at])
    np.testing.assert_allclose(loss(instance_weight=1.0), expected, rtol=1e-5)
    tables = [[np.asarray(jax.nn.softmax(each / t)) for each in (STUDENT, TEACHER)] for t in at]
    expected = np.mean([((s @ s.T - t @ t.T) ** 2).sum() / 6 for s, t in tables])
    np.testing.assert_allclose(loss(batch_weight=1.0), expected, rtol=1e-4)
    expected = np.mean([((s.T @ s - t.T @ t) ** 2).sum() / 5 for s, t in tables])
    np.testing.assert_allclose(loss(class_weight=1.0), expected, rtol=1e-4)
