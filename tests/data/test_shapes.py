import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.data.object_sets import load, load_splits
from jkd.data.shapes import NAMES, ShapeSettings, render
from jkd.errors import UserError

FINGERPRINT = "35c229c96bafd991c80500b99e9cf9201ec92456957d90179bc556934fb1a0b6"


def _load(**differs):
    return load(dict(source="shapes", limit=40, test_limit=20) | differs)


def test_the_same_bytes_on_every_machine():
    assert _load()[0].fingerprint == FINGERPRINT


def test_an_image_does_not_depend_on_how_many_there_are_and_splits_differ():
    train, test = _load()
    more, _ = _load(limit=60)
    np.testing.assert_array_equal(more.images(np.arange(40)), train.images(np.arange(40)))
    assert not (train.images(np.arange(20)) == test.images(np.arange(20))).all((1, 2, 3)).any()
    assert (train.labels == 0).all() and train.id(3) == "shapes/train/000003"
    assert [len(one) for one in load_splits(dict(source="shapes", limit=3, test_limit=2), ["train", "val"])] == [3, 2]


@given(st.integers(0, 10**6), st.integers(2, 8), st.sampled_from([48, 96, 130]))
@settings(max_examples=25, deadline=None)
def test_boxes_are_tight_around_what_is_drawn(index, classes, size):
    """One object on a smooth background: everything rough lies in its box, and comes near to every side of it."""
    quiet = ShapeSettings(classes=classes, least=1, most=1, noise=0.0)
    image, mark = render("train", index, size, quiet)
    assert len(mark.classes) <= 1 and image.shape == (size, size, 3)
    if not len(mark.classes):
        return
    left, top, right, bottom = mark.boxes[0].astype(int)
    assert 0 <= left < right <= size and 0 <= top < bottom <= size and mark.classes[0] < classes
    rough = np.abs(np.diff(image.astype(int), axis=0)).max(2)  # the background changes by few levels a pixel
    edges = np.argwhere(rough > 12)
    if len(edges) and rough.max() > 100:  # a shape of nearly the background's colour is not found like that
        low, high = edges.min(0), edges.max(0) + 1
        assert low[0] >= top - 1 and low[1] >= left and high[0] <= bottom and high[1] <= right
        assert low[1] <= left + 3 and high[1] >= right - 3
        assert (low[0] <= top + 3 or top == 0) and (high[0] >= bottom - 3 or bottom == size)


def test_classes_of_a_scene_come_together():
    train, _ = _load(limit=300)
    held = np.zeros((300, 6))
    held[train.image_of, train.object_classes] = 1
    lift = (held.T @ held) / 300 / np.outer(held.mean(0), held.mean(0))
    assert min(lift[0, 1], lift[2, 3], lift[4, 5]) > 1.3 and max(lift[0, 3], lift[1, 4], lift[2, 5]) < 1


@pytest.mark.parametrize(
    ("differs", "message"),
    [
        (dict(train="trian"), "Did you mean 'train'"),
        (dict(shapes=dict(classes=9)), "2 to 8 classes"),
        (dict(shapes=dict(noize=0.1)), "no key 'noize'. Did you mean 'noise'"),
        (dict(shapes=dict(noise=3.0)), "sane counts and shares"),
    ],
)
def test_settings_out_of_range_are_refused(differs, message):
    with pytest.raises(UserError, match=message):
        _load(**differs)


def test_every_class_is_drawn():
    train, _ = _load(limit=60, shapes=dict(classes=8))
    assert train.classes == NAMES and set(train.object_classes.tolist()) == set(range(8))
