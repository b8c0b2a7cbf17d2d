"""Losses on raw heads: values against NumPy loops, suppression, order, equality, extremes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.losses import detection

B, H, W, A, C = 3, 4, 5, 2, 3
RNG = np.random.default_rng(0)
STUDENT, TEACHER = (RNG.normal(size=(B, H, W, A, 5 + C)).astype(np.float32) for _ in range(2))
CASES: dict[str, Callable[..., jax.Array]] = {
    "objectness_scaled": lambda s, t: detection.objectness_scaled(s, t, window=3),
    "without suppression": lambda s, t: detection.objectness_scaled(s, t, window=0),
    "class_kd": lambda s, t: detection.class_kd(s, t, temperature=2.0),
    "yolo_localization": lambda s, t: detection.yolo_localization_kd(s, t, temperature=2.0),
    "hint": lambda s, t: detection.confident_hint(s[:, :, :, 0], t[:, :, :, 0], jnp.max(detection.confidence(t), -1)),
    "localization": lambda s, t: detection.localization_kd(
        s[..., None, :], t[..., None, :], detection.confidence(t), temperature=10.0
    ),
}
JITTED = {name: jax.jit(jax.value_and_grad(loss, argnums=(0, 1))) for name, loss in CASES.items()}


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def _binary_kl(s: Any, t: Any) -> Any:
    p, q = _sigmoid(t), _sigmoid(s)
    return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))


def _confidence(head: np.ndarray) -> np.ndarray:
    return _sigmoid(head[..., 4]) * _sigmoid(head[..., 5:]).max(-1)


def _kept(head: np.ndarray, window: int) -> np.ndarray:
    """Loops over all pairs of predictions of an image."""
    score, label = _confidence(head), head[..., 5:].argmax(-1)
    keep = np.ones(score.shape)
    cells = [(y, x, a) for y in range(H) for x in range(W) for a in range(A)]
    for image in range(len(head)):
        for one in cells:
            for other in cells:
                near = max(abs(one[0] - other[0]), abs(one[1] - other[1])) <= window // 2
                if near and label[image][one] == label[image][other]:
                    mine, its = score[image][one], score[image][other]
                    if its > mine or (its == mine and other < one):
                        keep[image][one] = 0
    return keep


def _expected(name: str, s: np.ndarray, t: np.ndarray) -> float:
    s, t = s.astype(np.float64), t.astype(np.float64)
    sure = _confidence(t)
    if name in ("objectness_scaled", "without suppression"):
        keep = _kept(t, 3) if name == "objectness_scaled" else np.ones(sure.shape)
        target, own = keep * _sigmoid(t[..., 4]), _sigmoid(s[..., 4])
        with np.errstate(divide="ignore", invalid="ignore"):
            first = np.where(target > 0, target * np.log(target / own), 0)
        objectness = first + (1 - target) * np.log((1 - target) / (1 - own))
        box = (_sigmoid(s[..., :2]) - _sigmoid(t[..., :2])) ** 2 + (s[..., 2:4] - t[..., 2:4]) ** 2
        return float((objectness + target * (box.sum(-1) + _binary_kl(s[..., 5:], t[..., 5:]).sum(-1))).sum() / B)
    if name == "class_kd":
        chosen = _sigmoid(t[..., 4]) >= 0.5
        return float(4 * _binary_kl(s[..., 5:] / 2, t[..., 5:] / 2).sum(-1)[chosen].mean())
    if name == "yolo_localization":
        return float(np.average(4 * _binary_kl(s[..., :4] / 2, t[..., :4] / 2).mean(-1), weights=sure))
    if name == "hint":
        return float(np.average(((s - t) ** 2)[:, :, :, 0].mean(-1), weights=sure.max(-1)))
    p, q = (np.exp(each / 10) / np.exp(each / 10).sum(-1, keepdims=True) for each in (t, s))
    return float(np.average(100 * (p * np.log(p / q)).sum(-1), weights=sure))


def _run(name: str, student: Any, teacher: Any) -> tuple[float, np.ndarray, np.ndarray]:
    loss, gradients = JITTED[name](jnp.asarray(student), jnp.asarray(teacher))
    assert loss.shape == () and loss.dtype == jnp.float32
    return float(loss), *(np.asarray(gradient, np.float32) for gradient in gradients)


@pytest.mark.parametrize("name", CASES)
def test_the_value_equals_numpy(name: str):
    np.testing.assert_allclose(_run(name, STUDENT, TEACHER)[0], _expected(name, STUDENT, TEACHER), rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([1e-3, 1.0, 30.0]))
def test_order_changes_nothing_and_the_teacher_gets_no_gradient(name: str, seed: int, scale: float):
    rng = np.random.default_rng(seed)
    student, teacher = (rng.normal(size=STUDENT.shape).astype(np.float32) * np.float32(scale) for _ in range(2))
    loss, gradient, to_teacher = _run(name, student, teacher)
    assert loss >= -1e-5 and np.isfinite(gradient).all() and not to_teacher.any()
    order = rng.permutation(B)
    again, reordered, _ = _run(name, student[order], teacher[order])
    np.testing.assert_allclose(again, loss, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(reordered, gradient[order], rtol=1e-3, atol=1e-4 * np.abs(gradient).max() + 1e-7)


@pytest.mark.parametrize("name", sorted(set(CASES) - {"objectness_scaled"}))
def test_loss_and_gradient_are_zero_when_student_and_teacher_are_equal(name: str):
    loss, gradient, _ = _run(name, TEACHER, TEACHER)
    np.testing.assert_allclose(loss, 0, atol=1e-5)
    np.testing.assert_allclose(gradient, 0, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.7, 1e4, -1e4])
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_finite_at_coincident_points_and_at_extremes(name: str, value: float):
    alike = np.full_like(TEACHER, value)
    for student in (alike, -alike):
        loss, gradient, _ = _run(name, student, alike)
        assert np.isfinite(loss) and np.isfinite(gradient).all()


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_inputs_give_a_float32_loss_computed_in_float32(name: str):
    student, teacher = (jnp.asarray(each, jnp.bfloat16) for each in (STUDENT, TEACHER))
    loss, _, _ = _run(name, student, teacher)
    exact, _, _ = _run(name, student.astype(jnp.float32), teacher.astype(jnp.float32))
    np.testing.assert_allclose(loss, exact, rtol=1e-6)


@pytest.mark.parametrize("window", [1, 3, 5])
def test_suppression_equals_a_loop_over_all_pairs_with_ties(window: int):
    nms = jax.jit(detection.fm_nms, static_argnames="window")
    tied = np.round(TEACHER)  # few values: many predictions of one class tie exactly
    for head in (TEACHER, tied, np.zeros_like(TEACHER)):
        kept = np.asarray(nms(jnp.asarray(head), window=window))
        np.testing.assert_array_equal(kept, _kept(head, window))


def _kept(head: np.ndarray, window: int) -> np.ndarray:
    score, label = head[..., 4].astype(np.float32), head[..., 5:].argmax(-1)
    keep = np.zeros(score.shape, np.float32)
    for image, y, x, a in np.ndindex(*score.shape):
        rows, columns = (slice(max(0, at - window // 2), at + window // 2 + 1) for at in (y, x))
        same = label[image, rows, columns] == label[image, y, x, a]
        near = np.where(same, score[image, rows, columns], -np.inf)
        places = np.arange(H * W * A).reshape(H, W, A)[rows, columns]
        best = places[(near == near.max()) & same].min()
        keep[image, y, x, a] = near.max() == score[image, y, x, a] and best == (y * W + x) * A + a
    return keep


def test_one_object_seen_by_neighbours_is_kept_once_and_another_class_beside_it_too():
    head = np.full((1, H, W, A, 5 + C), -9.0, np.float32)
    head[0, 1, 1, 0, [4, 5]] = 4.0, 4.0
    head[0, 1, 2, 1, [4, 5]] = 3.0, 9.0  # the same object, of lower objectness, however sure of the class
    head[0, 2, 1, 0, [4, 6]] = 2.0, 4.0  # another class
    kept = np.asarray(detection.fm_nms(jnp.asarray(head)))
    assert (kept[0, 1, 1, 0], kept[0, 1, 2, 1], kept[0, 2, 1, 0]) == (1, 0, 1)
    _, gradient, _ = _run("objectness_scaled", np.zeros((1, H, W, A, 5 + C), np.float32), head)
    assert np.abs(gradient[0, 1, 1, 0, :4]).max() > 0.1
    assert not gradient[0, 1, 2, 1, :4].any() and gradient[0, 1, 2, 1, 4] == pytest.approx(0.5)


def test_the_bounded_form_has_a_bounded_gradient_where_the_squared_error_has_none():
    far = STUDENT.copy()
    far[..., 2] += 1e3
    temperature = 2.0
    _, gradient, _ = _run("yolo_localization", far, TEACHER)
    assert np.abs(gradient).sum() <= temperature  # weights of all predictions and of the four numbers sum to 1
    _, squared, _ = _run("objectness_scaled", far, TEACHER)
    assert np.abs(squared).max() > 100


def test_boxes_and_classes_count_by_the_teacher_s_objectness():
    blind = TEACHER.copy()
    blind[..., 4] = -40
    _, gradient, _ = _run("without suppression", STUDENT, blind)
    assert np.abs(gradient[..., :4]).max() < 1e-6 and np.abs(gradient[..., 5:]).max() < 1e-6
    assert _run("class_kd", STUDENT, blind)[0] == 0
    loss = detection.objectness_scaled(
        jnp.asarray(STUDENT), jnp.asarray(TEACHER), window=0, objectness_weight=0.0, box_weight=0.0, class_weight=0.0
    )
    assert loss == 0


def test_what_cannot_be_compared_is_refused():
    head = jnp.zeros((1, H, W, A, 5 + C))
    with pytest.raises(ValueError, match=r"one grid.*\(4, 5, 2, 8\) \(student\) and \(4, 5, 2, 9\)"):
        detection.class_kd(head, jnp.zeros((1, H, W, A, 6 + C)), temperature=1.0)
    with pytest.raises(ValueError, match="odd number of cells, got a window of 2"):
        detection.fm_nms(head, window=2)
