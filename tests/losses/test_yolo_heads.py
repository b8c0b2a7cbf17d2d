"""What raw heads mean, against Darknet's own formula written out, and against what they must refuse."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from jkd.losses.boxes import to_centre
from jkd.losses.yolo_heads import Head, Heads, cells, decode, describe, rows

SIZE = (64, 96)
HEADS = Heads((Head(((30.0, 20.0),), 32, 1.05), Head(((8.0, 9.0), (12.0, 25.0)), 16)), 3)


def raw_heads(heads: Heads = HEADS, size: tuple[int, int] = SIZE, batch: int = 2, seed: int = 0) -> tuple:
    rng = np.random.default_rng(seed)
    return tuple(
        jnp.asarray(
            rng.normal(size=(batch, size[0] // h.stride, size[1] // h.stride, len(h.anchors), 5 + heads.classes))
        ).astype(jnp.float32)
        for h in heads.heads
    )


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_decodes_as_darknet_does_row_by_row() -> None:
    raw = raw_heads()
    boxes, objectness, classes = (np.asarray(part)[1] for part in decode(raw, HEADS, SIZE))
    centred, at = np.asarray(to_centre(jnp.asarray(boxes))), 0
    for output, head in zip(raw, HEADS.heads, strict=True):
        s = head.scale_x_y
        for row, line in enumerate(np.asarray(output, np.float64)[1]):
            for column, cell in enumerate(line):
                for anchor, t in zip(head.anchors, cell, strict=True):
                    x = (sigmoid(t[0]) * s - (s - 1) / 2 + column) * head.stride
                    y = (sigmoid(t[1]) * s - (s - 1) / 2 + row) * head.stride
                    wanted = [x, y, np.exp(t[2]) * anchor[0], np.exp(t[3]) * anchor[1]]
                    np.testing.assert_allclose(centred[at], wanted, rtol=1e-4)
                    np.testing.assert_allclose(objectness[at], sigmoid(t[4]), rtol=1e-5)
                    np.testing.assert_allclose(classes[at], sigmoid(t[5:]), rtol=1e-5)
                    at += 1
    assert at == len(boxes)


def test_cells_say_where_a_row_comes_from() -> None:
    where = cells(HEADS, SIZE)
    still = tuple(jnp.zeros_like(output) for output in raw_heads())
    centred = np.asarray(to_centre(rows(still, HEADS).boxes))[0]
    wanted = np.c_[(where.column + 0.5) * where.stride, (where.row + 0.5) * where.stride, where.anchor]
    np.testing.assert_allclose(centred, wanted, atol=1e-4)
    np.testing.assert_array_equal(np.bincount(where.head), [6, 48])


def test_scaled_yolov4_has_its_sigmoid_before_and_squares_sizes() -> None:
    heads = Heads((Head(((10.0, 20.0),), 32, 2.0, new_coords=True),), 2)
    raw = jnp.float32([0.25, 0.75, 0.5, 1.0, 0.9, 0.2, 0.0]).reshape(1, 1, 1, 1, 7)
    boxes, objectness, classes = decode((raw,), heads, (32, 32))
    np.testing.assert_allclose(to_centre(boxes)[0, 0], [0, 32, 10, 80], atol=1e-5)
    np.testing.assert_allclose(objectness, [[0.9]], rtol=1e-6)
    np.testing.assert_allclose(classes, [[[0.2, 0]]], atol=1e-6)


def test_wild_logits_stay_finite() -> None:
    for value in (-1e30, 1e30):
        wild = tuple(jnp.full_like(output, value) for output in raw_heads())
        assert all(np.isfinite(part).all() for part in decode(wild, HEADS, SIZE))


def test_refuses_what_is_not_its_own() -> None:
    raw = raw_heads()
    with pytest.raises(ValueError, match=r"an input of \(64, 96\) pixels, not of \(96, 64\)"):
        decode(raw, HEADS, (96, 64))
    for wrong in (raw[::-1], raw[:1], (raw[0], raw[1][..., :-1]), (raw[0], raw[1][:, 1:])):
        with pytest.raises(ValueError, match="raw heads: expected"):
            rows(wrong, HEADS)


def test_describes_the_layers_of_a_cfg() -> None:
    anchors = ((8.0, 9.0), (12.0, 25.0), (30.0, 20.0))
    layers = [
        SimpleNamespace(mask=mask, anchors=anchors, classes=3, scale_x_y=scale, new_coords=False)
        for mask, scale in (((2,), 1.05), ((0, 1), 1.0))
    ]
    assert describe(layers, (32, 16)) == HEADS
    layers[1].classes = 4
    with pytest.raises(ValueError, match=r"classes \[3, 4\]"):
        describe(layers, (32, 16))
