import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jkd.losses import contrastive, relations

RNG = np.random.default_rng(0)
STUDENT, TEACHER = (jnp.asarray(RNG.normal(size=(8, width)), jnp.float32) for width in (4, 6))


def _rkd(student: jax.Array, teacher: jax.Array) -> jax.Array:
    return relations.rkd(student, teacher, distance_weight=25.0, angle_weight=50.0)


def test_rkd_in_chunks_of_anchors_equals_rkd_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, gradient = jax.jit(jax.value_and_grad(_rkd))(STUDENT, TEACHER)
    monkeypatch.setattr(relations, "ANGLES_AT_ONCE", 3 * 8**2)  # 3 anchors at a time, the last chunk short
    chunked, chunked_gradient = jax.jit(jax.value_and_grad(lambda s, t: _rkd(s, t)))(STUDENT, TEACHER)
    np.testing.assert_allclose(chunked, at_once, rtol=1e-6)
    np.testing.assert_allclose(chunked_gradient, gradient, rtol=1e-5, atol=1e-6)


def test_rkd_ignores_scale_shift_and_rotation() -> None:
    rotation = jnp.asarray(np.linalg.qr(RNG.normal(size=(4, 4)))[0], jnp.float32)
    np.testing.assert_allclose(_rkd(3 * STUDENT @ rotation + 1, STUDENT), 0, atol=1e-5)


def test_relation_matching_ignores_a_sample_s_relation_to_itself() -> None:
    teacher = jnp.eye(3)
    student = jnp.array([[1.0, 0, 0], [1.0, 0, 0], [1.0, 0, 0]])  # all alike: every other is as near as the next
    np.testing.assert_allclose(relations.relation_matching(student, teacher, temperature=0.1), 0, atol=1e-6)


def test_losses_of_a_batch_of_one_are_zero() -> None:
    one = jnp.ones((1, 4)) / 2
    assert relations.relation_matching(one, one, temperature=0.1) == 0
    assert contrastive.info_nce(one, one, temperature=0.1) == 0
    assert _rkd(one, 2 * one) == 0


def test_gkd_leaves_out_negative_cosines_and_is_finite_where_a_sample_has_no_neighbour() -> None:
    student = jnp.asarray([[1.0, 0], [1, 1], [-1, -1], [0, 0]])
    loss, gradient = jax.jit(jax.value_and_grad(relations.gkd))(student, student[::-1])
    # one edge on either side, of weight 1, at other places: two entries of each table
    np.testing.assert_allclose(loss, 4, rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_cckd_of_high_order_is_the_gaussian_kernel() -> None:
    def kernel(rows: jax.Array) -> np.ndarray:
        unit = np.asarray(rows, np.float64) / np.linalg.norm(rows, axis=1, keepdims=True)
        return np.exp(-0.4 * ((unit[:, None] - unit[None]) ** 2).sum(-1))

    expected = np.mean((kernel(STUDENT) - kernel(TEACHER)) ** 2)
    np.testing.assert_allclose(relations.cckd(STUDENT, TEACHER, gamma=0.4, order=10), expected, rtol=1e-4)
