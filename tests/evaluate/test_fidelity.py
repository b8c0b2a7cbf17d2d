import numpy as np
import pytest

from jkd.evaluate import agreement, churn, kl

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


def test_churn_equals_golden(shared):
    golden = np.load(shared / "golden" / "graph" / "digits.npz", allow_pickle=False)
    assert churn(list(golden["seed_predictions"])) == pytest.approx(float(golden["churn"]), rel=1e-5)


def test_churn_is_the_mean_over_pairs_and_undefined_for_one_run():
    assert churn([np.array([0, 1, 2]), np.array([0, 1, 1]), np.array([0, 0, 1])]) == pytest.approx((1 + 2 + 1) / 9)
    assert churn([np.array([0, 1])]) is None
    assert churn([]) is None


def test_unlike_shapes_are_refused():
    with pytest.raises((ValueError, TypeError)):  # where jaxtyping looks on, it is first
        churn([np.array([0, 1]), np.array([0])])
    with pytest.raises((ValueError, TypeError)):
        agreement(A, B[:10])
