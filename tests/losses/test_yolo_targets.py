"""Which rows answer for a box, by a loop in plain NumPy and by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.losses.yolo_heads import Head, Heads, cells
from jkd.losses.yolo_targets import NEVER, Targets, assign, truth_of

SIZE = (64, 96)
HEADS = Heads((Head(((40.0, 30.0), (60.0, 50.0)), 32), Head(((8.0, 9.0), (12.0, 25.0)), 16)), 4)
ROWS = len(cells(HEADS, SIZE).row)
MOST = 5
FAR = jnp.full((1, ROWS, 4), -1e3, jnp.float32)  # predictions that overlap nothing


def assigned(boxes: list, classes: list, extra: float = NEVER, predicted: jnp.ndarray = FAR) -> Targets:
    empty = MOST - len(boxes)
    padded = np.pad(np.asarray(boxes, np.float32).reshape(-1, 4), ((0, empty), (0, 0)))
    kinds, mask = np.pad(np.asarray(classes, np.int32), (0, empty)), np.arange(MOST) < len(boxes)
    return jax.tree.map(np.asarray, compiled(padded[None], kinds[None], mask[None], predicted, extra))


@partial(jax.jit, static_argnames="extra")
def compiled(boxes: jax.Array, classes: jax.Array, mask: jax.Array, predicted: jax.Array, extra: float) -> Targets:
    return assign(predicted, truth_of(boxes, classes, mask), HEADS, SIZE, ignore=0.5, extra=extra)


def plain(boxes: np.ndarray, extra: float) -> np.ndarray:
    """Rows that answer, `[M, N]`, one pair at a time."""
    where, all_anchors = cells(HEADS, SIZE), [anchor for head in HEADS.heads for anchor in head.anchors]
    table = np.zeros((len(boxes), ROWS), bool)
    for at, box in enumerate(boxes):
        w, h = box[2] - box[0], box[3] - box[1]
        if w <= 0 or h <= 0:
            continue
        both = np.array([min(w, a) * min(h, b) for a, b in all_anchors])
        fit = both / (w * h + np.prod(all_anchors, axis=1) - both)
        for row in range(ROWS):
            stride = where.stride[row]
            column = np.clip((box[0] + box[2]) / 2 // stride, 0, SIZE[1] // stride - 1)
            line = np.clip((box[1] + box[3]) / 2 // stride, 0, SIZE[0] // stride - 1)
            which = all_anchors.index(tuple(where.anchor[row].tolist()))
            inside = (line, column) == (where.row[row], where.column[row])
            table[at, row] = inside and (which == fit.argmax() or fit[which] > extra)
    return table


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 2**31), st.sampled_from([NEVER, 0.3]))
def test_rows_equal_a_plain_loop(seed: int, extra: float) -> None:
    rng = np.random.default_rng(seed)
    low = rng.integers(-10, 90, (5, 2))
    boxes = np.c_[low, low + rng.integers(-2, 60, (5, 2))].astype(np.float32)
    kinds = rng.integers(0, 4, 5)
    targets = assigned(boxes.tolist(), kinds.tolist(), extra)
    table = plain(boxes, extra)
    np.testing.assert_array_equal(targets.positive[0], table.any(axis=0))
    wanted = np.zeros((ROWS, 4), np.float32)
    for at, row in zip(*np.nonzero(table), strict=True):
        wanted[row, kinds[at]] = 1
        if table[:, row].sum() == 1:
            np.testing.assert_array_equal(targets.boxes[0, row], boxes[at])
    np.testing.assert_array_equal(targets.classes[0], wanted)


def test_one_box_one_row_unless_other_anchors_fit_well() -> None:
    box = [33.0, 1.0, 41.0, 10.0]  # 8 x 9, centre in column 2 and row 0 of stride 16
    assert np.flatnonzero(assigned([box], [1]).positive[0]).tolist() == [12 + 2 * 2]
    assert assigned([box], [1], extra=0.2).positive.sum() == 2  # 8 x 9 in 12 x 25: 0.24


def test_of_two_boxes_in_a_cell_the_better_fit_is_aimed_at_and_both_classes_are_right() -> None:
    better, worse = [32.0, 0.0, 40.0, 9.0], [33.0, 1.0, 42.0, 11.0]
    for boxes, kinds in (([better, worse], [1, 3]), ([worse, better], [3, 1])):
        targets = assigned(boxes, kinds)
        (row,) = np.flatnonzero(targets.positive[0])
        assert targets.boxes[0, row].tolist() == better
        assert targets.classes[0, row].tolist() == [0, 1, 0, 1]


def test_predictions_that_overlap_a_box_are_ignored_unless_they_answer_for_it() -> None:
    box = [33.0, 1.0, 41.0, 10.0]
    predicted = FAR.at[0, 3].set(jnp.float32(box)).at[0, 16].set(jnp.float32(box))
    predicted = predicted.at[0, 5].set(jnp.float32([33, 1, 41, 5.5]))  # IoU exactly 0.5
    targets = assigned([box], [0], predicted=predicted)
    assert np.flatnonzero(targets.ignored[0]).tolist() == [3]
    assert np.flatnonzero(targets.positive[0]).tolist() == [16]


def test_no_boxes_at_all_no_targets() -> None:
    none = compiled(jnp.zeros((1, 0, 4)), jnp.zeros((1, 0), jnp.int32), jnp.zeros((1, 0), bool), FAR, NEVER)
    for targets in (none, assigned([], []), assigned([[5.0, 5.0, 5.0, 9.0]], [1])):
        assert not targets.positive.any() and not targets.ignored.any() and not targets.classes.any()
