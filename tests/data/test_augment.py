import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jkd import random
from jkd.data import augment, normalize
from jkd.data.augment import CROP, SHIFT

OFF = dict(shift=0, pad_crop=0, flip=False, cutout=0, mixup=0.0, cutmix=0.0)
BATCH, SIDE = 32, 8
KEY = random.key("augment", 0, 0, 3)
IDS = jnp.arange(BATCH) + 5
KEYS = random.sample_keys(KEY, IDS)
IMAGES = jax.random.uniform(jax.random.key(1), (BATCH, SIDE, SIDE, 3), minval=-1.0)
ALL = dict(shift=1, pad_crop=2, flip=True, cutout=3)


def _augment(images=IMAGES, keys=KEYS, pad_value=(0.0,), **on):
    return jax.tree.map(np.asarray, _jitted(pad_value, **on)(images, keys))


@functools.cache
def _jitted(pad_value=(0.0,), **on):
    return jax.jit(lambda images, keys: augment(images, keys, KEY, OFF | on, pad_value))


def test_normalize_is_value_minus_mean_over_std():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.1])
    expected = (pixels / 255 - mean) / std
    np.testing.assert_allclose(normalize(jnp.asarray(pixels), tuple(mean), tuple(std)), expected, atol=1e-5)
    one_for_all = (pixels / 255 - 0.5) / 0.25
    np.testing.assert_allclose(normalize(jnp.asarray(pixels), (0.5,), (0.25,)), one_for_all, atol=1e-5)


def test_normalize_keeps_to_the_dtype_asked_for_and_refuses_other_counts():
    pixels = jnp.zeros((2, 3), jnp.uint8)
    assert normalize(pixels, (0.5,), (0.5,), jnp.bfloat16).dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="expected 1 or 3 numbers"):
        normalize(pixels, (0.5, 0.5), (0.5,))


def test_all_off_is_the_identity_and_compiles_to_nothing():
    images, partner, share = _augment()
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(partner, np.arange(BATCH))
    np.testing.assert_array_equal(share, np.ones(BATCH, np.float32))
    off = jax.make_jaxpr(lambda images, keys: augment(images, keys, KEY, OFF)[0])(IMAGES, KEYS)
    assert off.jaxpr.outvars[0] is off.jaxpr.invars[0]


def test_a_sample_looks_the_same_wherever_it_stands_in_the_batch():
    turn = np.random.default_rng(0).permutation(BATCH)
    images = _augment(**ALL)[0]
    turned = _augment(IMAGES[turn], KEYS[turn], **ALL)[0]
    np.testing.assert_array_equal(turned, images[turn])
    alone = _augment(IMAGES[3:4], KEYS[3:4], **ALL)[0]
    np.testing.assert_array_equal(alone[0], images[3])


def test_samples_and_steps_differ():
    same = jnp.broadcast_to(IMAGES[:1], IMAGES.shape)
    images = _augment(same, **ALL)[0]
    later = _augment(same, random.sample_keys(random.key("augment", 0, 0, 4), IDS), **ALL)[0]
    assert len({image.tobytes() for image in images}) > BATCH // 2
    assert not np.array_equal(images, later)


@pytest.mark.parametrize(("name", "tag"), [("shift", SHIFT), ("pad_crop", CROP)])
def test_shift_and_crop_equal_numpy_slices_of_the_padded_image(name, tag):
    reach, pad = 2, (-2.0, -1.0, 0.5)
    images = _augment(pad_value=pad, **{name: reach})[0]
    canvas = np.tile(np.float32(pad), (BATCH, SIDE + 2 * reach, SIDE + 2 * reach, 1))
    canvas[:, reach:-reach, reach:-reach] = IMAGES
    places = set()
    for row in range(BATCH):
        key = jax.random.fold_in(KEYS[row], tag)
        top, left = (int(v) for v in jax.random.randint(key, (2,), 0, 2 * reach + 1))
        np.testing.assert_array_equal(images[row], canvas[row, top : top + SIDE, left : left + SIDE])
        places.add((top, left))
    assert {top for top, _ in places} == {left for _, left in places} == set(range(2 * reach + 1))


def test_flip_mirrors_half_of_the_images_left_to_right():
    keys = random.sample_keys(KEY, jnp.arange(2000))
    images = jnp.broadcast_to(IMAGES[:1], (2000, SIDE, SIDE, 3))
    flipped = _augment(images, keys, flip=True)[0]
    mirrored = (flipped == np.asarray(IMAGES[0, :, ::-1])).all((1, 2, 3))
    kept = (flipped == np.asarray(IMAGES[0])).all((1, 2, 3))
    assert (mirrored ^ kept).all()
    assert abs(mirrored.mean() - 0.5) < 0.05


def test_cutout_zeroes_one_square_cut_at_the_borders():
    images = _augment(jnp.ones((BATCH, SIDE, SIDE, 3)), cutout=3)[0]
    holes = (images == 0).all(-1)
    for hole in holes:
        rows, columns = hole.any(1), hole.any(0)
        np.testing.assert_array_equal(hole, np.outer(rows, columns))
        assert 2 <= rows.sum() <= 3 and 2 <= columns.sum() <= 3
    assert len({hole.tobytes() for hole in holes}) > 10


def test_switching_one_operation_on_does_not_move_anothers_draws():
    together = _augment(flip=True, shift=2)[0]
    shifted = _augment(shift=2)[0]
    same = (together == shifted).all((1, 2, 3)) | (together == shifted[:, :, ::-1]).all((1, 2, 3))
    assert same.all()


def test_mixup_mixes_by_the_share_it_returns():
    images, partner, share = _augment(mixup=1.0)
    own = np.asarray(IMAGES)
    weight = share[:, None, None, None]
    np.testing.assert_allclose(images, weight * own + (1 - weight) * own[partner], atol=1e-6)
    assert sorted(partner) == list(range(BATCH))
    assert share.std() > 0.1


def test_cutmix_share_is_the_part_of_the_pixels_that_is_own():
    own = jnp.broadcast_to(jnp.arange(BATCH, dtype=jnp.float32)[:, None, None, None], IMAGES.shape)
    images, partner, share = _augment(own, cutmix=1.0)
    kept = (images == np.asarray(own)).all(-1).mean((1, 2))
    pasted = (images == np.asarray(own)[partner]).all(-1).mean((1, 2))
    other = partner != np.arange(BATCH)
    np.testing.assert_allclose(share[other], kept[other], atol=1e-6)
    np.testing.assert_allclose(1 - share[other], pasted[other], atol=1e-6)
    assert share.std() > 0.1


def test_a_samples_mixing_share_is_its_own():
    turn = np.random.default_rng(0).permutation(BATCH)
    share = _augment(mixup=1.0, cutmix=1.0)[2]
    turned = _augment(IMAGES[turn], KEYS[turn], mixup=1.0, cutmix=1.0)[2]
    np.testing.assert_array_equal(turned, share[turn])


def test_both_mixes_share_the_batch_between_them():
    images, partner, share = _augment(mixup=1.0, cutmix=1.0)
    own, weight = np.asarray(IMAGES), share[:, None, None, None]
    blended = np.isclose(images, weight * own + (1 - weight) * own[partner], atol=1e-6).all((1, 2, 3))
    pasted = ((images == own) | (images == own[partner])).all((1, 2, 3))
    assert (blended | pasted).all()
    assert 4 < blended.sum() < BATCH - 4


def test_the_dtype_stays_even_under_strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        images, partner, share = _augment(IMAGES.astype(jnp.bfloat16), pad_value=(-1.0,), mixup=0.3, cutmix=0.3, **ALL)
    assert (images.dtype, partner.dtype, share.dtype) == (jnp.bfloat16, np.int32, np.float32)
