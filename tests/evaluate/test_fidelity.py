import numpy as np
import pytest

from jkd.evaluate import agreement, kl

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(50, 4)), RNG.normal(size=(50, 4))


def test_agreement_is_symmetric_and_1_with_itself():
    assert agreement(A, A) == 1
    assert agreement(A, B) == agreement(B, A) == pytest.approx((A.argmax(1) == B.argmax(1)).mean())


def test_kl_is_0_with_itself_and_ignores_a_constant():
    assert kl(A, A + 3) == pytest.approx(0, abs=1e-12)
    assert kl(A, B) > 0


def test_kl_by_hand_is_teacher_over_student():
    teacher, student = np.log([[0.5, 0.5]]), np.log([[0.9, 0.1]])
    assert kl(teacher, student) == pytest.approx(0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1))


def test_kl_takes_a_class_the_teacher_rules_out():
    with np.errstate(divide="ignore"):
        teacher = np.log([[1.0, 0.0]])
    assert kl(teacher, np.log([[0.25, 0.75]])) == pytest.approx(np.log(4))


def test_unlike_shapes_are_refused():
    with pytest.raises((ValueError, TypeError)):  # where jaxtyping looks on, it is first
        agreement(A, B[:10])
