"""Focal and global distillation: masks and values against NumPy loops, order, equality, coincident points."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.losses import fgd as losses

B, H, W, C, M = 3, 4, 6, 8, 3
IMAGE = (32, 48)  # cells of 8 x 8 pixels
RNG = np.random.default_rng(0)
STUDENT, TEACHER = (RNG.normal(size=(B, H, W, C)).astype(np.float32) for _ in range(2))
BOXES = np.asarray(
    [
        [[4, 4, 20, 12], [9, 1, 15, 7], [np.nan, np.nan, np.nan, np.nan]],  # one inside the other; padding
        [[0, 0, 48, 32], [10, 10, 10, 10], [0, 0, 9, 9]],  # the whole image; a point; a corner
        [[np.inf, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],  # no box
    ],
    np.float32,
)
BOX_MASK = np.asarray([[1, 1, 0], [1, 1, 1], [0, 0, 0]], np.float32)
WEIGHTS = dict(foreground=0.7, background=0.4, attention=0.3, temperature=0.5)
SHAPES = ((STUDENT.shape,), (TEACHER.shape,))
CONTEXT = jax.tree.map(
    lambda leaf: jnp.asarray(RNG.normal(size=leaf.shape), jnp.float32), losses.init_fgd(jax.random.key(0), *SHAPES)
)


def _loss(student: Any, teacher: Any, boxes: Any, mask: Any, context: Any) -> jax.Array:
    return losses.fgd(student, teacher, boxes, mask, context, image_size=IMAGE, relation=0.01, **WEIGHTS)


JITTED = jax.jit(jax.value_and_grad(_loss, argnums=(0, 1, 4)))


def _run(student: Any = STUDENT, teacher: Any = TEACHER, boxes: Any = BOXES, mask: Any = BOX_MASK) -> tuple[Any, ...]:
    loss, (gradient, to_teacher, to_context) = JITTED(*map(jnp.asarray, (student, teacher, boxes, mask)), CONTEXT)
    assert loss.shape == () and loss.dtype == jnp.float32
    return float(loss), np.asarray(gradient, np.float32), np.asarray(to_teacher, np.float32), to_context


def _softmax(x: np.ndarray) -> np.ndarray:
    exps = np.exp(x - x.max())
    return exps / exps.sum()


def _cells(box: np.ndarray) -> list[tuple[int, int]]:
    """Cells that a box overlaps, by looking at each; the one it starts in where it has no area."""
    x1, y1, x2, y2 = (float(v) for v in box)
    inside = [
        (y, x) for y in range(H) for x in range(W) if x1 < 8 * x + 8 and x2 > 8 * x and y1 < 8 * y + 8 and y2 > 8 * y
    ]
    return inside or [(math.floor(y1 / 8), math.floor(x1 / 8))]


def _numpy_weights() -> tuple[np.ndarray, np.ndarray]:
    inside, outside = np.zeros((B, H, W)), np.zeros((B, H, W))
    for image in range(B):
        for box in BOXES[image][BOX_MASK[image] > 0]:
            for cell in _cells(box):
                inside[image][cell] = max(inside[image][cell], 1 / len(_cells(box)))
        free = inside[image] == 0
        outside[image][free] = 1 / max(free.sum(), 1)
    return inside, outside


def _numpy_attention(feature: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    spatial = H * W * _softmax(np.abs(feature).mean(-1).ravel() / 0.5).reshape(H, W)
    return spatial, C * _softmax(np.abs(feature).mean((0, 1)) / 0.5)


def _numpy_context(params: Any, feature: np.ndarray) -> np.ndarray:
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    cells = feature.reshape(-1, C)
    pooled = _softmax((cells @ p["mask"]["kernel"] + p["mask"]["bias"])[:, 0]) @ cells
    inner = pooled @ p["squeeze"]["kernel"] + p["squeeze"]["bias"]
    inner = (inner - inner.mean()) / np.sqrt(inner.var() + 1e-5) * p["norm"]["scale"] + p["norm"]["bias"]
    return feature + np.maximum(inner, 0) @ p["expand"]["kernel"] + p["expand"]["bias"]


def test_weights_of_cells_equal_loops_over_boxes():
    inside, outside = jax.jit(losses.box_weights, static_argnums=(2, 3))(BOXES, BOX_MASK, (H, W), IMAGE)
    expected = _numpy_weights()
    np.testing.assert_allclose(inside, expected[0], rtol=1e-6)
    np.testing.assert_allclose(outside, expected[1], rtol=1e-6)
    assert inside[0, 0, 1] == 1 and inside[0, 1, 1] == pytest.approx(1 / 6)  # in both boxes; in the larger alone
    assert inside[1, 1, 1] == 1 and outside[1].max() == 0  # a box without area; a box that leaves no background


def test_the_value_equals_numpy():
    (inside, outside), total = _numpy_weights(), 0.0
    for image in range(B):
        s, t = STUDENT[image].astype(np.float64), TEACHER[image].astype(np.float64)
        (spatial, channel), (own_spatial, own_channel) = _numpy_attention(t), _numpy_attention(s)
        weight = 0.7 * inside[image] + 0.4 * outside[image]
        total += (weight[..., None] * spatial[..., None] * channel * (t - s) ** 2).sum()
        total += 0.3 * (np.abs(spatial - own_spatial).sum() + np.abs(channel - own_channel).sum())
        total += 0.01 * ((_numpy_context(CONTEXT["student"], s) - _numpy_context(CONTEXT["teacher"], t)) ** 2).sum()
    np.testing.assert_allclose(_run()[0], total / B, rtol=1e-5)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([1e-3, 1.0, 10.0]))
def test_order_changes_nothing_and_the_teacher_gets_no_gradient(seed: int, scale: float):
    rng = np.random.default_rng(seed)
    student, teacher = (rng.normal(size=STUDENT.shape).astype(np.float32) * np.float32(scale) for _ in range(2))
    boxes = rng.uniform(-20, 60, BOXES.shape).astype(np.float32)  # beyond the image, corners in any order
    loss, gradient, to_teacher, to_context = _run(student, teacher, boxes)
    assert loss >= 0 and np.isfinite(gradient).all() and not to_teacher.any()
    assert all(np.isfinite(leaf).all() and np.any(leaf) for leaf in jax.tree.leaves(to_context["teacher"]["expand"]))
    images, places = rng.permutation(B), rng.permutation(M)
    again, reordered, *_ = _run(student[images], teacher[images], boxes[images][:, places], BOX_MASK[images][:, places])
    np.testing.assert_allclose(again, loss, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(reordered, gradient[images], rtol=1e-3, atol=1e-4 * np.abs(gradient).max() + 1e-7)


def test_equal_maps_lose_nothing_and_blocks_add_nothing_at_the_start():
    fresh = losses.init_fgd(jax.random.key(1), *SHAPES)
    given = [jnp.asarray(each) for each in (TEACHER, TEACHER, BOXES, BOX_MASK)]
    np.testing.assert_allclose(JITTED(*given, fresh)[0], 0, atol=1e-4)
    # without the masks' absolute error, whose gradient has no one value where it is 0
    smooth = lambda *a: losses.fgd(*a, fresh, image_size=IMAGE, foreground=1.0, background=1.0, attention=0.0)  # noqa: E731
    np.testing.assert_allclose(jax.jit(jax.grad(smooth))(*given), 0, atol=1e-6)
    np.testing.assert_array_equal(losses.add_context(fresh["student"], jnp.asarray(TEACHER)), TEACHER)
    assert not np.array_equal(fresh["student"]["mask"]["kernel"], fresh["teacher"]["mask"]["kernel"])


@pytest.mark.parametrize("value", [0.0, 0.7, 1e3])
def test_gradients_are_finite_at_coincident_points(value: float):
    alike = np.full_like(STUDENT, value)
    loss, gradient, _, to_context = _run(alike, alike)
    assert np.isfinite(loss) and np.isfinite(gradient).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(to_context))


def test_bfloat16_maps_give_a_float32_loss_computed_in_float32():
    student, teacher = (jnp.asarray(each, jnp.bfloat16) for each in (STUDENT, TEACHER))
    exact = _run(student.astype(jnp.float32), teacher.astype(jnp.float32))[0]
    np.testing.assert_allclose(_run(student, teacher)[0], exact, rtol=1e-6)


def test_maps_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"one grid and width, got \(4, 6, 8\).*\(4, 6, 9\)"):
        losses.fgd_global(jnp.zeros((B, H, W, C)), jnp.zeros((B, H, W, C + 1)), CONTEXT)
