"""Objects as anchors: which logits and features a box gets, and that padding is no object."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jkd.data import shapes
from jkd.evaluate.detection import Found, Truth
from jkd.losses.yolo_heads import Head, Heads, cells, rows
from jkd.tasks.detection import anchors_of, detect, given, targets
from jkd.tasks.objects import figures, found_of

SIZE, BATCH, MOST, CLASSES = (64, 64), 2, 3, 4
HEADS = Heads((Head(((40.0, 30.0),), 32), Head(((8.0, 9.0), (12.0, 25.0)), 16)), CLASSES)
run = jax.jit(lambda *of: anchors_of(HEADS)(*of).flat)


def silent() -> list[np.ndarray]:
    """Raw heads that find nothing, with class logits of their own in every row."""
    rng = np.random.default_rng(0)
    raw = [
        np.zeros((BATCH, 64 // h.stride, 64 // h.stride, len(h.anchors), 5 + CLASSES), np.float32) for h in HEADS.heads
    ]
    for output in raw:
        output[..., 4] = -20
        output[..., 5:] = rng.normal(size=(*output.shape[:-1], CLASSES))
    return raw


@pytest.fixture
def batch() -> dict[str, Any]:
    boxes = np.zeros((BATCH, MOST, 4), np.float32)
    boxes[0, 0], boxes[0, 1], boxes[1, 0] = [4, 3, 12, 12], [20, 20, 60, 50], [5, 5, 5, 9]
    object_ = np.full((BATCH, MOST), -1, np.int32)
    object_[0, :2], object_[1, 0] = [7, 8], 9
    return {"boxes": boxes, "object": object_, "classes": np.where(object_ >= 0, 2, -1).astype(np.int32)}


@pytest.fixture
def taps() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {f"neck{at}": rng.normal(size=(BATCH, side, side, 5)).astype(np.float32) for at, side in ((0, 2), (1, 4))}


def own_row(column: int, row: int, anchor: float) -> int:
    where = cells(HEADS, SIZE)
    (at,) = np.flatnonzero((where.column == column) & (where.row == row) & (where.anchor[:, 0] == anchor))
    return at


def test_a_network_that_finds_nothing_is_asked_where_it_ought_to_find(batch: dict, taps: dict) -> None:
    raw = silent()
    found = run(batch, raw, taps)
    classes = np.asarray(jax.jit(lambda raw: rows(raw, HEADS))(raw).classes)
    np.testing.assert_allclose(found.logits[0], classes[0, own_row(0, 0, 8)], atol=1e-4)
    np.testing.assert_allclose(found.logits[1], classes[0, own_row(1, 1, 40)], atol=1e-4)


def test_a_network_that_finds_it_elsewhere_is_asked_there(batch: dict, taps: dict) -> None:
    raw = silent()
    # The cell to the right of the centre's gives the box 11.55..20.45, 3.5..12.5 with an objectness of all but 1.
    raw[1][0, 0, 1, 0, :5] = [-20, 0, np.log(8.9 / 8), 0, 20]
    batch["boxes"][0, 0] = [11.55, 3.5, 20.0, 12.5]
    found = run(batch, raw, taps)
    strong = raw[1][0, 0, 1, 0, 5:]
    np.testing.assert_allclose(found.logits[0], strong, atol=0.1)


def test_padding_and_boxes_without_area_are_masked_and_zero(batch: dict, taps: dict) -> None:
    found = run(batch, silent(), taps)
    assert found.mask.tolist() == [1, 1, 0, 0, 0, 0]
    assert found.node.tolist() == [7, 8, 0, 9, 0, 0]
    assert found.feature.shape == (6, 10) and found.logits.shape == (6, CLASSES)
    assert np.all(found.feature[:2]) and not np.any(found.feature[2:]) and not np.any(found.logits[2:])
    label = given(jax.tree.map(jnp.asarray, batch | {"label": np.zeros(BATCH, np.int32)}), CLASSES)
    np.testing.assert_array_equal(np.ravel(label["labelled"]), found.mask)
    target = np.reshape(label["label_target"], (-1, CLASSES))
    np.testing.assert_array_equal(target, np.eye(CLASSES)[2] * np.asarray(found.mask)[:, None])


def test_gradients_reach_class_logits_and_necks_and_nothing_else(batch: dict, taps: dict) -> None:
    def total(raw: Any, taps: Any) -> Any:
        found = run(batch, raw, taps)
        return found.logits.sum() + found.feature.sum()

    by_raw, by_taps = jax.jit(jax.grad(total, argnums=(0, 1)))(tuple(map(jnp.asarray, silent())), taps)
    assert not any(np.any(part[..., :5]) for part in by_raw)
    assert all(np.any(part[0, ..., 5:]) and not np.any(part[1]) for part in by_raw)
    assert all(np.any(part) for part in by_taps.values())


def test_hidden_boxes_are_no_targets(batch: dict) -> None:
    source = shapes.source("train", 2, 48, shapes.ShapeSettings())
    shown = targets(source, np.array([1, 0]), np.array([-1, 0]))
    assert not np.any(shown["boxes"][0]) and np.all(shown["object"][0] == -1) and np.all(shown["classes"][0] == -1)
    there = source.boxes(np.array([0]))
    assert np.any(there.boxes)
    np.testing.assert_array_equal(shown["boxes"][1], there.boxes[0])
    assert {key: value.dtype for key, value in shown.items()} == {key: value.dtype for key, value in batch.items()}


def test_from_raw_heads_to_figures() -> None:
    raw = silent()
    raw[0][0, 1, 0, 0] = [0, 0, 0, 0, 9, -9, 9, -9, -9]
    detections = jax.jit(lambda raw: detect(raw, HEADS, SIZE, score_threshold=0.3, limit=5))(raw)
    found = found_of(detections, lambda at, boxes: boxes * 2)
    assert [len(it.boxes) for it in found] == [1, 0] and found[0].classes.tolist() == [1]
    np.testing.assert_allclose(found[0].boxes, [[-8, 66, 72, 126]], atol=1e-4)
    truth = [Truth(found[0].boxes + 1, np.array([1])), Truth(np.zeros((0, 4)), np.zeros(0, int))]
    teacher = [found[0], Found(np.float32([[0, 0, 5, 5]]), np.float32([0.9]), np.int32([0]))]
    names = [f"kind {number}" for number in range(CLASSES)]
    made = figures(found, truth, teacher, names)
    assert made["map50"] == pytest.approx(1) and made["voc_map50"] == 1 and made["agreement"] == 0.5
    assert figures(found, truth, None, names)["agreement"] is None
    by_class = {name: value for name, value in made.items() if name.startswith("map50/")}
    assert by_class == {f"map50/{name}": pytest.approx(1) if name == "kind 1" else None for name in names}
