"""Region pooling against bilinear samples taken one by one."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.models.roi import roi_pool

SIZE, POINTS = (48, 64), 4
pool = jax.jit(lambda feature, boxes, mask: roi_pool(feature, boxes, mask, SIZE, POINTS))


def bilinear(feature: np.ndarray, y: float, x: float) -> np.ndarray:
    y, x = (min(max(at, 0.0), length - 1.0) for at, length in zip((y, x), feature.shape[:2], strict=True))
    top, left = int(y), int(x)
    bottom, right = min(top + 1, feature.shape[0] - 1), min(left + 1, feature.shape[1] - 1)
    down, over = y - top, x - left
    upper = (1 - over) * feature[top, left] + over * feature[top, right]
    return (1 - down) * upper + down * ((1 - over) * feature[bottom, left] + over * feature[bottom, right])


def plain(feature: np.ndarray, box: np.ndarray) -> np.ndarray:
    stride, shares = SIZE[0] / feature.shape[0], (np.arange(POINTS) + 0.5) / POINTS
    xs, ys = (low + (high - low) * shares for low, high in ((box[0], box[2]), (box[1], box[3])))
    return np.mean([bilinear(feature, y / stride - 0.5, x / stride - 0.5) for y in ys for x in xs], axis=0)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 2**31))
def test_equals_samples_one_by_one_and_is_zero_where_masked(seed: int) -> None:
    rng = np.random.default_rng(seed)
    feature = rng.normal(size=(2, 6, 8, 3)).astype(np.float32)
    low = rng.uniform(-10, 60, (2, 5, 2))
    boxes = np.concatenate([low, low + rng.uniform(0, 40, (2, 5, 2))], axis=2).astype(np.float32)
    boxes[:, 0, 2:] = boxes[:, 0, :2]  # without area: sampled at its place
    mask = (rng.uniform(size=(2, 5)) < 0.7).astype(np.float32)
    found = pool(feature, boxes, mask)
    for image, at in np.ndindex(2, 5):
        wanted = plain(feature[image], boxes[image, at]) * mask[image, at]
        np.testing.assert_allclose(found[image, at], wanted, atol=1e-5)


def test_a_constant_stays_itself_and_a_ramp_gives_the_centre() -> None:
    columns = np.broadcast_to(np.arange(8, dtype=np.float32)[None, None, :, None], (1, 6, 8, 1))
    feature = np.concatenate([columns, np.full_like(columns, 5)], axis=3)
    found = pool(feature, np.float32([[[8, 8, 40, 40]]]), np.ones((1, 1), np.float32))
    np.testing.assert_allclose(found, [[[24 / 8 - 0.5, 5]]], rtol=1e-6)


def test_gradient_reaches_the_cells_of_the_box_alone() -> None:
    box, mask = jnp.float32([[[8, 8, 24, 24]]]), jnp.ones((1, 1), jnp.float32)
    gradient = jax.grad(lambda feature: pool(feature, box, mask).sum())(jnp.zeros((1, 6, 8, 1), jnp.float32))
    touched = np.flatnonzero(np.asarray(gradient)[0, :, :, 0].any(axis=0))
    assert touched.tolist() == [0, 1, 2, 3] or touched.tolist() == [1, 2]
    np.testing.assert_allclose(gradient.sum(), 1, rtol=1e-6)
