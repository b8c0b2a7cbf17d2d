"""The supervised loss: what must not change it, what it must not do, and its value by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.losses.boxes import ciou
from jkd.losses.yolo import yolo_loss
from jkd.losses.yolo_heads import Head, Heads, cells, rows

SIZE, BATCH, MOST = (64, 64), 3, 6
HEADS = Heads((Head(((40.0, 30.0), (60.0, 50.0)), 32, 1.05), Head(((8.0, 9.0), (12.0, 25.0)), 16)), 3)


@jax.jit
def value_and_gradient(raw: Any, boxes: Any, classes: Any, mask: Any, labelled: Any) -> Any:
    def loss(raw: Any) -> Any:
        return yolo_loss(raw, boxes, classes, mask, labelled, HEADS, smoothing=0.1)

    return jax.value_and_grad(loss, has_aux=True)(raw)


def problem(seed: int, scale: float = 1.0) -> list[Any]:
    rng = np.random.default_rng(seed)
    shapes = [(BATCH, 64 // head.stride, 64 // head.stride, 2, 8) for head in HEADS.heads]
    raw = tuple((scale * rng.normal(size=shape)).astype(np.float32) for shape in shapes)
    low = rng.integers(0, 60, (BATCH, MOST, 2))
    boxes = np.concatenate([low, low + rng.integers(0, 40, (BATCH, MOST, 2))], axis=2).astype(np.float32)
    mask = (np.arange(MOST) < rng.integers(0, MOST + 1, (BATCH, 1))).astype(np.float32)
    return [raw, boxes, rng.integers(0, 3, (BATCH, MOST)).astype(np.int32), mask, np.ones(BATCH, np.float32)]


def same(one: Any, other: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


examples = settings(max_examples=15, deadline=None, derandomize=True)


@examples
@given(st.integers(0, 2**31))
def test_order_and_content_of_padding_change_no_bit(seed: int) -> None:
    raw, boxes, classes, mask, labelled = problem(seed)
    first = value_and_gradient(raw, boxes, classes, mask, labelled)
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.tile(np.arange(MOST), (BATCH, 1)), axis=1)
    turned = [np.take_along_axis(it, order, axis=1) for it in (classes, mask)]
    same(first, value_and_gradient(raw, np.take_along_axis(boxes, order[..., None], 1), *turned, labelled))
    other = rng.uniform(-50, 90, boxes.shape).astype(np.float32)
    other[..., 0] = np.where(rng.uniform(size=mask.shape) < 0.3, np.nan, other[..., 0])
    noise = np.where(mask[..., None] > 0, boxes, other)
    same(first, value_and_gradient(raw, noise, np.where(mask > 0, classes, 7), mask, labelled))


@examples
@given(st.integers(0, 2**31), st.sampled_from([0.0, 1.0, 30.0, 1e4]))
def test_finite_and_not_negative_with_a_finite_gradient(seed: int, scale: float) -> None:
    raw, boxes, classes, mask, labelled = problem(seed, scale)
    (loss, values), gradient = value_and_gradient(raw, boxes, classes, mask, labelled)
    assert loss.shape == () and loss.dtype == jnp.float32 and loss >= 0
    assert all(value >= 0 for value in values.values())
    assert all(np.isfinite(part).all() for part in jax.tree.leaves((loss, gradient)))


def test_an_image_without_boxes_teaches_silence_alone() -> None:
    raw, boxes, classes, mask, labelled = problem(0)
    (loss, values), gradient = value_and_gradient(raw, boxes, classes, 0 * mask, labelled)
    assert values["box"] == values["class"] == 0 and loss == values["objectness"] > 0
    for part in gradient:
        assert not np.any(part[..., :4]) and np.all(part[..., 4] > 0) and not np.any(part[..., 5:])


def test_an_unlabelled_image_adds_nothing_and_does_not_water_down_the_rest() -> None:
    raw, boxes, classes, mask, _ = problem(3)
    known = np.float32([1, 0, 1])
    (loss, _), gradient = value_and_gradient(raw, boxes, classes, mask, known)
    alone = [
        float(value_and_gradient(raw, boxes, classes, mask, np.eye(3, dtype=np.float32)[at])[0][0]) for at in (0, 2)
    ]
    np.testing.assert_allclose(loss, np.mean(alone), rtol=1e-5)
    assert not any(np.any(part[1]) for part in gradient)
    (loss, _), gradient = value_and_gradient(raw, boxes, classes, mask, 0 * known)
    assert loss == 0 and not any(np.any(part) for part in gradient)


def test_terms_by_hand_for_one_box() -> None:
    raw, boxes, classes, mask, labelled = problem(1, 0.3)
    boxes, classes, mask = boxes * 0, classes * 0, mask * 0
    boxes[:, 0], classes[:, 0], mask[:, 0] = [32, 16, 40, 25], 2, 1  # one row: stride 16, cell (1, 2), anchor 0
    found = jax.tree.map(np.asarray, jax.jit(lambda raw: rows(raw, HEADS))(raw))
    where = cells(HEADS, SIZE)
    (own,) = np.flatnonzero((where.head == 1) & (where.row == 1) & (where.column == 2) & (where.anchor[:, 0] == 8))
    options = {"ignore": 2.0, "extra": 2.0, "box_weight": 3.0, "class_weight": 0.5}
    loss, values = jax.jit(lambda *arrays: yolo_loss(*arrays, HEADS, **options))(raw, boxes, classes, mask, labelled)
    box = 1 - ciou(jnp.asarray(found.boxes[:, own]), jnp.asarray(boxes[:, 0]))
    np.testing.assert_allclose(values["box"], np.mean(box), rtol=1e-5)
    sign = np.where(np.arange(len(where.row)) == own, -1, 1)
    np.testing.assert_allclose(values["objectness"], np.log1p(np.exp(sign * found.objectness)).sum(1).mean(), rtol=1e-5)
    wrong = np.log1p(np.exp(found.classes[:, own] * [1, 1, -1])).sum(1)
    np.testing.assert_allclose(values["class"], wrong.mean(), rtol=1e-5)
    np.testing.assert_allclose(loss, 3 * values["box"] + values["objectness"] + 0.5 * values["class"], rtol=1e-6)


def test_descent_finds_the_boxes() -> None:
    _, boxes, classes, mask, labelled = problem(5)
    boxes, mask = boxes * 0, mask * 0 + (np.arange(MOST) < 2)
    boxes[:, 0], boxes[:, 1] = [3, 5, 43, 37], [40, 40, 49, 50]
    raw = jax.tree.map(lambda part: jnp.asarray(0 * part), problem(5)[0])
    (_, before), _ = value_and_gradient(raw, boxes, classes, mask, labelled)

    def descend(step: Any, raw: Any) -> Any:
        _, gradient = value_and_gradient(raw, boxes, classes, mask, labelled)
        return jax.tree.map(lambda part, slope: part - 0.5 * 0.95**step * jnp.clip(slope, -1, 1), raw, gradient)

    raw = jax.lax.fori_loop(0, 80, descend, raw)
    (_, after), _ = value_and_gradient(raw, boxes, classes, mask, labelled)
    assert after["box"] < 0.2 < before["box"]
    assert all(after[term] < 0.6 * before[term] for term in after)


def test_refuses_an_unknown_overlap() -> None:
    arrays = jax.tree.map(jnp.asarray, problem(0))
    with pytest.raises(ValueError, match=r"expected an overlap of \['ciou', .* got 'l2'"):
        yolo_loss(*arrays, HEADS, overlap="l2")
