"""Overlaps against plain NumPy and hand-made cases, and their gradients at the worst places."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jkd.losses import boxes as of

OVERLAPS = {name: jax.jit(getattr(of, name)) for name in ("iou", "giou", "diou", "ciou")}
GRADIENT = {name: jax.jit(jax.value_and_grad(lambda a, b, f=f: f(a, b).sum(), (0, 1))) for name, f in OVERLAPS.items()}
EACH = jax.jit(of.pairwise_iou)
# Small whole numbers give boxes without area, turned round, equal, touching and one in another.
corners = hnp.arrays(np.float32, (6, 4), elements=st.integers(-3, 3).map(float))


def plain_iou(a: np.ndarray, b: np.ndarray) -> float:
    def sides(box: np.ndarray) -> tuple[float, float]:
        return max(box[2] - box[0], 0.0), max(box[3] - box[1], 0.0)

    (w, h), (w1, h1), (w2, h2) = sides(np.r_[np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])]), sides(a), sides(b)
    union = w1 * h1 + w2 * h2 - w * h
    return w * h / union if union else 0.0


@settings(max_examples=50, deadline=None, derandomize=True)
@given(corners, corners)
def test_iou_equals_plain_numpy_pair_by_pair_and_each_with_each(one: np.ndarray, other: np.ndarray) -> None:
    table = np.array([[plain_iou(a, b) for b in other] for a in one])
    np.testing.assert_allclose(EACH(jnp.asarray(one), jnp.asarray(other)), table, atol=1e-6)
    np.testing.assert_allclose(OVERLAPS["iou"](jnp.asarray(one), jnp.asarray(other)), np.diagonal(table), atol=1e-6)


@pytest.mark.parametrize("name", OVERLAPS)
@settings(max_examples=50, deadline=None, derandomize=True)
@given(corners, corners, st.sampled_from([1e-20, 1e-6, 1.0, 1e3, 1e6]))
def test_value_in_range_and_gradient_finite(name: str, one: np.ndarray, other: np.ndarray, scale: float) -> None:
    one, other = one * np.float32(scale), other * np.float32(scale)
    values = np.asarray(OVERLAPS[name](jnp.asarray(one), jnp.asarray(other)))
    # Of boxes with their corners the wrong way round only the gradient is promised.
    proper = np.all(one[:, 2:] >= one[:, :2], axis=1) & np.all(other[:, 2:] >= other[:, :2], axis=1)
    assert np.all(values[proper] <= 1 + 1e-5) and np.all(values[proper] > -2.001)
    _, gradients = GRADIENT[name](one, other)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("name", OVERLAPS)
def test_is_one_for_equal_boxes_and_symmetric(name: str) -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 50, (20, 2))
    one, other = (jnp.asarray(np.c_[low, low + rng.uniform(1, 40, (20, 2))], jnp.float32) for _ in range(2))
    np.testing.assert_allclose(OVERLAPS[name](one, one), 1, atol=1e-5)
    np.testing.assert_allclose(OVERLAPS[name](one, other), OVERLAPS[name](other, one), atol=1e-5)


def test_penalties_by_hand() -> None:
    one, other = jnp.float32([[0, 0, 2, 2]]), jnp.float32([[4, 0, 8, 2]])  # apart by 2, hull 8 x 2
    np.testing.assert_allclose(OVERLAPS["giou"](one, other), -(16 - 12) / 16, rtol=1e-6)
    np.testing.assert_allclose(OVERLAPS["diou"](one, other), -25 / 68, rtol=1e-6)
    v = 4 / np.pi**2 * (np.arctan(2) - np.arctan(1)) ** 2
    np.testing.assert_allclose(OVERLAPS["ciou"](one, other), -25 / 68 - v * v / (1 + v), rtol=1e-5)


def test_loss_on_distant_boxes_pulls_them_together_where_iou_does_not() -> None:
    box, target = (jnp.tile(jnp.float32([it]), (6, 1)) for it in ([0, 0, 10, 10], [50, 0, 60, 10]))
    assert not np.any(GRADIENT["iou"](box, target)[1][0])
    for name in ("giou", "diou", "ciou"):
        assert GRADIENT[name](box, target)[1][0][0, 2] > 0  # the right edge to the right raises the overlap


@settings(max_examples=20, deadline=None, derandomize=True)
@given(corners)
def test_conversions_are_inverse_and_clipping_stays_inside(boxes: np.ndarray) -> None:
    again, cut = jax.jit(lambda it: (of.from_centre(of.to_centre(it)), of.clipped(it, (1, 2))))(boxes)
    np.testing.assert_allclose(again, boxes, atol=1e-6)
    np.testing.assert_array_equal(cut, np.clip(boxes, 0, [2, 1, 2, 1]))


def test_shape_iou_is_iou_of_boxes_with_a_corner_in_common() -> None:
    one, other = jnp.float32([[2, 3], [4, 1], [0, 0]]), jnp.float32([[1, 6], [4, 1], [2, 2]])
    zero = jnp.zeros_like(one)
    wanted = OVERLAPS["iou"](jnp.concatenate([zero, one], -1), jnp.concatenate([zero, other], -1))
    np.testing.assert_allclose(of.shape_iou(one, other), wanted, atol=1e-6)
