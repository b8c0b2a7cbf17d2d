import numpy as np

from jkd.data import open_dataset


def test_600_test_images_stay_apart_from_1197_training_images(settings):
    data = open_dataset(settings("digits"))
    train = {data.train.id(i) for i in range(len(data.train))}
    test = {data.test.id(i) for i in range(len(data.test))}
    assert (len(train), len(test), len(train & test)) == (1197, 600, 0)
    assert data.shape == (8, 8, 1)
    assert data.classes == tuple("0123456789")


def test_pixels_are_sixteenths_of_255_and_every_class_is_there(settings):
    data = open_dataset(settings("digits"))
    pixels = data.train.images(np.arange(len(data.train)))
    levels = {int(np.round(v * 255 / 16)) for v in range(17)}
    assert pixels.dtype == np.uint8
    assert set(np.unique(pixels)) <= levels
    assert np.bincount(data.test.labels, minlength=10).min() > 40


def test_fingerprint_is_the_same_each_time_and_changes_with_the_samples(settings):
    whole = open_dataset(settings("digits"))
    limited = open_dataset(settings("digits", limit=100))
    assert whole.fingerprint == open_dataset(settings("digits")).fingerprint
    assert whole.fingerprint != limited.fingerprint
    assert whole.test.fingerprint == limited.test.fingerprint


def test_a_smaller_limit_keeps_a_part_of_a_larger_one(settings):
    def ids(limit: int) -> set[str]:
        train = open_dataset(settings("digits", limit=limit)).train
        return {train.id(i) for i in range(len(train))}

    assert len(ids(50)) == 50
    assert ids(50) < ids(200)


def test_image_size_resizes(settings):
    data = open_dataset(settings("digits", limit=20, test_limit=20, image_size=16))
    assert data.shape == (16, 16, 1)
