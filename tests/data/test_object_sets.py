import pickle

import numpy as np

from jkd.data import DataSet, Images, batches, make_split
from jkd.data.object_sets import ObjectSettings, is_objects, load


def test_a_config_is_read_as_any_mapping_is(settings):
    data = settings("shapes", limit=12, test_limit=5)
    train, test = load(data)
    assert (len(train), len(test)) == (12, 5) and train.shape == (96, 96, 3)
    same, _ = load(ObjectSettings(source="shapes", limit=12, test_limit=5))
    assert same.fingerprint == train.fingerprint
    assert is_objects("voc") and not is_objects("images")


def test_splits_hide_annotations_image_by_image_and_batches_bring_images(settings):
    data = settings("shapes", limit=40, test_limit=5, labels=8, val=0.25)
    train, test = load(data)
    split = make_split(DataSet("shapes", train, test), data, 0)
    assert (len(split.pool), len(split.val), len(split.labelled)) == (30, 10, 8)
    assert set(split.labels.tolist()) == {-1, 0} and (split.true_labels == 0).all()
    inputs = {"input": Images(train.shape, (0.0,), (1.0,))}
    batch = next(batches(train, split.pool, split.labels, inputs=inputs, batch=4, steps=1, seed=0, replicate=0))
    boxes = train.boxes(batch["id"][0])
    np.testing.assert_array_equal(batch["input"][0], train.images(batch["id"][0]))
    known = split.labels[np.searchsorted(split.pool, batch["id"][0])] >= 0
    np.testing.assert_array_equal(batch["label"][0] >= 0, known)
    assert boxes.classes.shape == (4, train.max_boxes)


def test_a_source_goes_to_a_loader_process_and_back():
    train, _ = load(dict(source="shapes", limit=3, test_limit=1))
    again = pickle.loads(pickle.dumps(train))
    np.testing.assert_array_equal(again.images(np.arange(3)), train.images(np.arange(3)))
    np.testing.assert_array_equal(again.boxes(np.arange(3)).boxes, train.boxes(np.arange(3)).boxes)
    assert again.fingerprint == train.fingerprint
