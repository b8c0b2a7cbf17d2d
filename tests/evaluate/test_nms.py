"""Suppression against the plain loop, ties and odd inputs included, and against golden detections."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.evaluate.nms import Detections, nms
from jkd.losses.boxes import from_centre, pairwise_iou

ROWS, CLASSES, LIMIT = 12, 3, 6
run = jax.jit(nms, static_argnames=("score_threshold", "iou_threshold", "limit", "candidates", "one_class", "agnostic"))


def plain(
    boxes: np.ndarray, scores: np.ndarray, limit: int, candidates: int, one_class: bool, agnostic: bool
) -> list[tuple[int, int]]:
    """(row, class) of the detections of one image, by the greedy loop; thresholds 0.25 and 0.5."""
    overlap = np.asarray(pairwise_iou(jnp.asarray(boxes), jnp.asarray(boxes)))
    rivals = [(row, kind) for row in range(len(boxes)) for kind in range(scores.shape[1]) if scores[row, kind] > 0.25]
    if one_class:
        rivals = [(row, kind) for row, kind in rivals if kind == np.nanargmax(scores[row])]
    rivals = sorted(rivals, key=lambda it: (-scores[it], it))[:candidates]
    kept: list[tuple[int, int]] = []
    for row, kind in rivals:
        if not any((agnostic or kind == other) and overlap[row, before] > 0.5 for before, other in kept):
            kept.append((row, kind))
    return kept[:limit]


def problem(seed: int, batch: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Boxes on a coarse grid and scores in steps of 1/8: duplicates, ties, and IoUs of exactly 0.5."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 3, (batch, ROWS, 2))
    boxes = np.concatenate([low, low + rng.integers(0, 5, (batch, ROWS, 2))], axis=2).astype(np.float32)
    return boxes, (rng.integers(0, 9, (batch, ROWS, CLASSES)) / 8).astype(np.float32)


def same(found: Detections, image: int, boxes: np.ndarray, scores: np.ndarray, wanted: list[tuple[int, int]]) -> None:
    many, row, kind = len(wanted), [it[0] for it in wanted], [it[1] for it in wanted]
    mask = np.asarray(found.mask[image])
    np.testing.assert_array_equal(mask, np.arange(len(mask)) < many)
    np.testing.assert_array_equal(found.classes[image, :many], np.asarray(kind, np.int32))
    np.testing.assert_array_equal(found.scores[image, :many], scores[row, kind])
    np.testing.assert_array_equal(found.boxes[image, :many], boxes[row])
    assert not np.any(found.boxes[image, many:]) and not np.any(found.scores[image, many:])


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("one_class", [False, True])
@pytest.mark.parametrize("candidates", [1000, 8])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31))
def test_equals_the_plain_loop_with_ties(seed: int, candidates: int, one_class: bool, agnostic: bool) -> None:
    boxes, scores = problem(seed)
    options = {"limit": LIMIT, "candidates": candidates, "one_class": one_class, "agnostic": agnostic}
    found = run(boxes, scores, score_threshold=0.25, iou_threshold=0.5, **options)
    for image in range(len(boxes)):
        same(found, image, boxes[image], scores[image], plain(boxes[image], scores[image], **options))


def test_a_chain_of_overlaps_is_settled_one_after_the_other() -> None:
    boxes = np.float32([[[0, at, 10, at + 10] for at in range(0, 36, 3)]])  # each overlaps its two neighbours: 7/13
    scores = np.linspace(1, 0.5, ROWS, dtype=np.float32).reshape(1, ROWS, 1)
    found = run(boxes, scores, score_threshold=0.25, iou_threshold=0.5, limit=LIMIT, candidates=1000)
    np.testing.assert_array_equal(found.boxes[0], boxes[0, ::2])


def test_more_places_than_detections_and_nothing_at_all() -> None:
    boxes, scores = problem(0)
    scores[1], scores[2, :, 1:] = 0.25, np.nan
    found = run(boxes, scores, score_threshold=0.25, iou_threshold=0.5, limit=50, candidates=1000)
    assert found.boxes.shape == (3, 50, 4) and not np.any(found.mask[1])
    assert found.mask[2].sum() and not np.any(found.classes[2])
    assert all(np.isfinite(part).all() for part in found)


def test_refuses_a_negative_threshold() -> None:
    with pytest.raises(ValueError, match="at least 0, got -1"):
        nms(*map(jnp.asarray, problem(0)), score_threshold=-1.0)


@pytest.mark.parametrize("name", ["yolo-fastest-1.1", "yolo-fastest-1.1-xl"])
def test_golden_rows_give_golden_detections(name: str, shared: Path) -> None:
    golden = np.load(shared / "golden" / "yolo" / f"{name}.npz", allow_pickle=False)
    images = sorted(key.removesuffix("_detections") for key in golden if key.endswith("_detections"))
    rows = jnp.asarray(np.stack([np.concatenate([golden[f"{it}_decoded_{at}"] for at in (0, 1)]) for it in images]))
    suppress = partial(nms, score_threshold=0.25, iou_threshold=0.45, one_class=True)
    found = jax.jit(lambda rows: suppress(from_centre(rows[..., :4]), rows[..., 5:]))(rows)
    for at, image in enumerate(images):
        wanted = golden[f"{image}_detections"]
        many = int(found.mask[at].sum())
        boxes = np.asarray(found.boxes[at, :many])
        np.testing.assert_array_equal(found.classes[at, :many], wanted[:, 0])
        np.testing.assert_allclose(found.scores[at, :many], wanted[:, 1], rtol=1e-6)
        np.testing.assert_allclose(np.c_[boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], wanted[:, 2:], atol=1e-6)
