import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd import random
from jkd.data.augment_boxes import Boxed, augment_boxes, distort, flip

BATCH, SLOTS, SIDE = 8, 3, 64
SEEDS = st.integers(0, 2**31 - 1)
ALL = dict(flip=True, jitter=0.2, hue=0.1, saturation=1.5, exposure=1.5)


def _keys(seed, ids=range(BATCH)):
    return random.sample_keys(random.key("augment", seed), jnp.asarray(list(ids)))


def _drawn(seed) -> Boxed:
    """Up to three rectangles an image that do not touch, each of a level of its own in the red channel."""
    draw = np.random.default_rng(seed)
    images = np.zeros((BATCH, SIDE, SIDE, 3), np.float32)
    boxes = np.zeros((BATCH, SLOTS, 4), np.float32)
    classes = np.full((BATCH, SLOTS), -1, np.int32)
    numbers = np.full((BATCH, SLOTS), -1, np.int32)
    for row in range(BATCH):
        for slot in draw.permutation(SLOTS)[: draw.integers(0, SLOTS + 1)]:
            strip = SIDE // SLOTS
            x0, x1 = slot * strip + 2 + draw.integers(0, 4), (slot + 1) * strip - 2 - draw.integers(0, 4)
            y0 = draw.integers(0, SIDE - 12)
            y1 = y0 + draw.integers(8, SIDE - y0 + 1)
            level = (row * SLOTS + slot + 1) / (BATCH * SLOTS + 1)
            images[row, y0:y1, x0:x1] = (level, 1, 0)
            boxes[row, slot], classes[row, slot] = (x0, y0, x1, y1), slot
            numbers[row, slot] = row * SLOTS + slot
    return Boxed(*map(jnp.asarray, (images, boxes, classes, numbers)))


@functools.cache
def _jitted(**on):
    quick = {"xla_llvm_disable_expensive_passes": True, "xla_backend_optimization_level": 1}  # to compile
    return jax.jit(lambda batch, keys, annotated: augment_boxes(batch, keys, on, annotated), compiler_options=quick)


def _augment(batch, keys, annotated=None, **on) -> Boxed:
    known = jnp.ones(len(batch.images), bool) if annotated is None else jnp.asarray(annotated)
    return jax.tree.map(np.asarray, _jitted(**on)(batch, keys, known))


def _check_aligned(made: Boxed, slack: float, clipped: bool) -> int:
    """Every box is around the pixels of its own object (of its level of red), and they reach its sides."""
    seen = 0
    for image, boxes, classes, numbers in zip(*made, strict=True):
        for box, kind, number in zip(boxes, classes, numbers, strict=True):
            if kind < 0:
                assert number == -1 and (box == 0).all()
                continue
            assert kind == number % SLOTS and (box >= 0).all() and (box <= SIDE).all()
            level = (number + 1) / (BATCH * SLOTS + 1)
            mine = (np.abs(image[..., 0] - level) < 0.25 / (BATCH * SLOTS + 1)) & (image[..., 1] > 0.98)
            rows, columns = (np.flatnonzero(mine.any(axis)) for axis in (1, 0))
            assert len(rows), "a box around nothing"
            tight = np.asarray([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
            if not clipped:  # in a mosaic the same object may be there twice
                np.testing.assert_allclose(tight, box, atol=slack)
            inner = np.concatenate([np.ceil(box[:2] + slack), np.floor(box[2:] - slack)]).astype(int)
            assert mine[inner[1] : inner[3], inner[0] : inner[2]].all()
            seen += 1
    return seen


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_flipped_boxes_lie_exactly_on_their_objects(seed):
    batch = _drawn(seed)
    made = _augment(batch, _keys(seed), flip=True)
    assert _check_aligned(made, 0, clipped=False) == int(batch.mask.sum())


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_cropped_boxes_stay_on_their_objects(seed):
    made = _augment(_drawn(seed), _keys(seed), jitter=0.3)
    _check_aligned(made, 1.6, clipped=False)


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_boxes_in_mosaics_stay_on_their_objects(seed):
    made = _augment(_drawn(seed), _keys(seed), mosaic=1.0)
    _check_aligned(made, 1.7, clipped=True)


def test_mosaics_show_several_images_and_only_some_samples_become_one():
    batch = _drawn(3)
    whole = _augment(batch, _keys(3), mosaic=1.0)
    owners = [set((row[row >= 0] // SLOTS).tolist()) for row in whole.object]
    assert max(map(len, owners)) > 1
    some = _augment(batch, _keys(3), mosaic=0.5)
    same = (some.images == np.asarray(batch.images)).all((1, 2, 3))
    assert 0 < same.sum() < BATCH
    for row in np.flatnonzero(same):  # the boxes are all there, by falling area
        mine = np.asarray(batch.object)[row]
        assert sorted(some.object[row]) == sorted(mine)


def test_of_too_many_objects_the_largest_stay():
    batch = _drawn(3)
    roomy = Boxed(
        batch.images,
        *(
            jnp.concatenate([each, jnp.full((BATCH, 3 * SLOTS, *each.shape[2:]), fill, each.dtype)], axis=1)
            for each, fill in zip(batch[1:], (0, -1, -1), strict=True)
        ),
    )
    everything = _augment(roomy, _keys(5), mosaic=1.0)
    made = _augment(batch, _keys(5), mosaic=1.0)
    np.testing.assert_array_equal(everything.images, made.images)
    assert (everything.mask.sum(1) > SLOTS).any()
    for row in range(BATCH):
        np.testing.assert_array_equal(everything.boxes[row, :SLOTS], made.boxes[row])
        sides = everything.boxes[row, :, 2:] - everything.boxes[row, :, :2]
        assert (np.diff(sides.prod(-1)) <= 1e-3).all()


def test_annotated_and_other_images_are_not_mixed():
    batch = _drawn(8)
    annotated = np.arange(BATCH) % 3 == 0
    for seed in range(5):
        made = _augment(batch, _keys(seed), annotated, mosaic=1.0)
        for row in range(BATCH):
            owners = made.object[row][made.object[row] >= 0] // SLOTS
            assert (annotated[owners] == annotated[row]).all()
    alone = _augment(batch, _keys(0), np.arange(BATCH) == 2, mosaic=1.0)
    assert set(alone.object[2][alone.object[2] >= 0] // SLOTS) <= {2}


def test_what_is_hardly_visible_is_dropped():
    images = jnp.zeros((BATCH, SIDE, SIDE, 3))
    boxes = jnp.tile(jnp.asarray([[0, 20, 12, 40], [20, 20, 40, 40], [50, 0, 64, 30.0]]), (BATCH, 1, 1))
    batch = Boxed(images, boxes, jnp.tile(jnp.arange(3, dtype=jnp.int32), (BATCH, 1)), jnp.zeros((BATCH, 3), jnp.int32))
    strict, lax = (_augment(batch, _keys(1), jitter=0.25, visible=share, least=1.0) for share in (0.9, 0.01))
    assert strict.mask.sum() < lax.mask.sum()
    np.testing.assert_array_equal(strict.images, lax.images)
    kept = lax.boxes[strict.mask]
    np.testing.assert_array_equal(strict.boxes[strict.mask], kept)
    tall = _augment(batch, _keys(1), jitter=0.25, visible=0.01, least=15.0)
    assert ((tall.boxes[..., 2:] - tall.boxes[..., :2])[tall.mask] >= 15).all()


def test_the_same_key_gives_the_same_and_another_another():
    batch = _drawn(4)
    one, two, other = (_augment(batch, _keys(seed), mosaic=1.0) for seed in (7, 7, 8))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one.images, other.images)


def test_without_mosaic_a_sample_looks_the_same_wherever_it_stands():
    batch, turn = _drawn(4), np.asarray([3, 1, 7, 0, 2, 6, 5, 4])
    here = _augment(batch, _keys(2), **ALL)
    there = _augment(jax.tree.map(lambda each: each[turn], batch), _keys(2, turn), **ALL)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_array_equal(a[turn], b)
    part = _augment(jax.tree.map(lambda each: each[:2], batch), _keys(2, range(2)), **ALL)
    for a, b in zip(here, part, strict=True):
        np.testing.assert_allclose(a[:2], b, atol=1e-6)


def test_switching_one_on_does_not_move_anothers_draws():
    batch = _drawn(4)
    plain, more = (_augment(batch, _keys(2), **on) for on in (dict(flip=True), ALL | dict(jitter=0.0)))
    np.testing.assert_array_equal(plain.boxes, more.boxes)


def test_all_off_is_the_identity_and_compiles_to_nothing():
    batch = _drawn(1)
    off = jax.make_jaxpr(lambda images, boxes: augment_boxes(batch._replace(images=images, boxes=boxes), _keys(0), {}))
    made = off(batch.images, batch.boxes).jaxpr
    assert made.outvars[:2] == made.invars[:2]


def test_flip_twice_is_nothing():
    batch, turned = _drawn(9), jnp.ones(BATCH, bool)
    for a, b in zip(flip(flip(batch, turned), turned), batch, strict=True):
        np.testing.assert_array_equal(a, b)


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_colours_are_those_of_pythons_hsv(seed):
    import colorsys

    draw = np.random.default_rng(seed)
    images = draw.random((4, 2, 5, 3)).astype(np.float32)
    images[0, 0, 0], images[0, 0, 1], images[0, 0, 2] = 0, 1, (0.5, 0.5, 0.2)
    turn, saturation, exposure = draw.uniform(-0.5, 0.5, 4), draw.uniform(0.5, 2, 4), draw.uniform(0.5, 2, 4)
    made = distort(*(jnp.asarray(each, jnp.float32) for each in (images, turn, saturation, exposure)))
    for b, y, x in np.ndindex(4, 2, 5):
        h, s, v = colorsys.rgb_to_hsv(*map(float, images[b, y, x]))
        expected = colorsys.hsv_to_rgb((h + turn[b]) % 1, min(s * saturation[b], 1), min(v * exposure[b], 1))
        np.testing.assert_allclose(made[b, y, x], expected, atol=2e-5)


def test_colour_with_nothing_to_do_changes_nothing():
    images = jnp.asarray(np.random.default_rng(0).random((2, 4, 4, 3)), jnp.float32)
    one = jnp.ones(2)
    np.testing.assert_allclose(distort(images, 0 * one, one, one), images, atol=1e-6)


@pytest.mark.parametrize("on", [dict(mosaic=0.7), dict(jitter=0.1, hue=0.1)])
def test_dtypes_and_shapes_stay_even_under_strict_promotion(on):
    batch = _drawn(0)
    with jax.numpy_dtype_promotion("strict"):
        made = _augment(batch, _keys(0), **on)
    for a, b in zip(made, batch, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
    assert (made.images >= 0).all() and (made.images <= 1).all()
