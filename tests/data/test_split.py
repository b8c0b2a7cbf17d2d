import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.config import default
from jkd.data import DataSet, make_split
from jkd.data.sources import ArraySource
from jkd.errors import UserError

CLASSES = 4


def _dataset(labels: np.ndarray) -> DataSet:
    names = [f"class{k}" for k in range(CLASSES)]
    ids = [f"train/{i:04d}" for i in range(len(labels))]
    source = ArraySource("set", names, ids, labels, np.zeros((len(labels), 1, 1, 1), np.uint8))
    return DataSet("set", source, source)


def _config(**differs: object):
    data = default().data
    data.update(differs)
    return data


BALANCED = _dataset(np.arange(200) % CLASSES)
UNEVEN = _dataset(np.where(np.arange(200) < 190, 0, np.arange(200) % CLASSES))


def test_without_settings_everything_is_in_the_pool_and_labelled():
    split = make_split(BALANCED, _config(), 0)
    np.testing.assert_array_equal(split.pool, np.arange(200))
    np.testing.assert_array_equal(split.labels, BALANCED.train.labels)
    np.testing.assert_array_equal(split.labelled, np.arange(200))
    assert len(split.val) == len(split.val_labels) == 0


def test_the_same_replicate_is_the_same_and_another_is_another():
    data = _config(pool=80, labels=20, val=0.2)
    first, again, other = (make_split(BALANCED, data, replicate) for replicate in (1, 1, 2))
    assert first.digest == again.digest != other.digest
    np.testing.assert_array_equal(first.pool, again.pool)
    assert not np.array_equal(first.pool, other.pool)


def test_validation_is_the_same_in_all_replicates_and_apart_from_every_pool():
    data = _config(pool=80, val=0.2)
    splits = [make_split(BALANCED, data, replicate) for replicate in range(3)]
    for split in splits:
        np.testing.assert_array_equal(split.val, splits[0].val)
        assert not set(split.val) & set(split.pool)
    assert len(splits[0].val) == 40


@settings(deadline=None, max_examples=40)
@given(count=st.integers(1, 80), replicate=st.integers(0, 5))
def test_visible_labels_are_true_and_balanced_to_one(count, replicate):
    split = make_split(BALANCED, _config(pool=160, labels=count), replicate)
    assert len(split.labelled) == count
    seen = np.bincount(split.labels[split.labelled], minlength=CLASSES)
    available = np.bincount(split.true_labels, minlength=CLASSES)
    if count <= CLASSES * available.min():
        assert seen.max() - seen.min() <= 1
    np.testing.assert_array_equal(split.labels[split.labelled], split.true_labels[split.labelled])
    assert (np.delete(split.labels, split.labelled) == -1).all()


def test_rare_classes_give_all_they_have():
    split = make_split(UNEVEN, _config(labels=40), 0)
    rare = np.bincount(UNEVEN.train.labels)[1:]
    np.testing.assert_array_equal(np.bincount(split.labels[split.labelled])[1:], rare)
    assert len(split.labelled) == 40


def test_samples_without_a_label_are_pool_but_never_labelled_nor_validation():
    labels = np.where(np.arange(200) % 2, np.arange(200) % CLASSES, -1)
    split = make_split(_dataset(labels), _config(val=0.5), 0)
    assert (labels[split.val] >= 0).all() and len(split.val) == 50
    assert (split.true_labels[split.labelled] >= 0).all()
    assert len(split.labelled) == 50


@pytest.mark.parametrize("noise", ["symmetric", "pair_flip"])
def test_noise_makes_exactly_its_share_wrong(noise):
    split = make_split(BALANCED, _config(labels=100, noise=noise, noise_rate=0.4, val=0.25), 0)
    true, seen = split.true_labels[split.labelled], split.labels[split.labelled]
    assert (true != seen).sum() == 40
    assert (split.val_labels != BALANCED.train.labels[split.val]).sum() == 20
    away = set(((seen - true) % CLASSES)[true != seen])
    assert away == ({1} if noise == "pair_flip" else {1, 2, 3})


def test_noise_does_not_move_pool_or_labelled():
    plain = make_split(BALANCED, _config(pool=80, labels=20), 3)
    noisy = make_split(BALANCED, _config(pool=80, labels=20, noise="symmetric", noise_rate=0.5), 3)
    np.testing.assert_array_equal(plain.pool, noisy.pool)
    np.testing.assert_array_equal(plain.labelled, noisy.labelled)
    assert plain.digest != noisy.digest


def test_asking_for_more_than_there_is_says_so():
    with pytest.raises(UserError, match=r"data.pool: asked for 300, but 200 of 200"):
        make_split(BALANCED, _config(pool=300), 0)
    with pytest.raises(UserError, match=r"data.labels: asked for 90 labels, but only 80"):
        make_split(BALANCED, _config(pool=80, labels=90), 0)


def test_index_arrays_are_int32_and_ascending():
    split = make_split(BALANCED, _config(pool=80, labels=20, val=0.1), 0)
    for array in (split.pool, split.labels, split.true_labels, split.val, split.val_labels, split.labelled):
        assert array.dtype == np.int32
    for array in (split.pool, split.val, split.labelled):
        assert (np.diff(array) > 0).all()
