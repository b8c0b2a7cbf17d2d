import json

import numpy as np
import pytest
from PIL import Image

from jkd.data.object_sets import load
from jkd.errors import UserError


def _content(start):
    return dict(
        images=[
            dict(id=start + 1, file_name="b.png", width=60, height=40),
            dict(id=start, file_name="a.png", width=60, height=40),
        ],
        categories=[dict(id=90, name="toothbrush"), dict(id=1, name="person")],
        annotations=[
            dict(id=1, image_id=start, category_id=90, bbox=[10, 5, 20, 10], area=77.5, iscrowd=0),
            dict(id=2, image_id=start, category_id=1, bbox=[0, 0, 60, 40], iscrowd=1),
            dict(id=3, image_id=start + 1, category_id=1, bbox=[50, 30, 20, 20], area=0),
        ],
    )


@pytest.fixture
def root(tmp_path):
    (tmp_path / "annotations").mkdir()
    for number, split in enumerate(("train", "val")):
        (tmp_path / split).mkdir()
        (tmp_path / f"annotations/instances_{split}.json").write_text(json.dumps(_content(number * 100)))
        for name in ("a", "b"):
            Image.new("RGB", (60, 40)).save(tmp_path / split / f"{name}.png")
    return tmp_path


def _settings(root, **differs):
    return dict(source="coco", path=str(root), image_size=32, test="val") | differs


def test_boxes_categories_crowds_and_areas_are_read(root):
    train, val = load(_settings(root))
    assert train.classes == val.classes == ("person", "toothbrush")
    assert [train.id(i) for i in range(2)] == ["train/a.png", "train/b.png"]
    truth = train.truth(0)
    np.testing.assert_allclose(truth.boxes, [[10, 5, 30, 15], [0, 0, 60, 40]])
    assert truth.classes.tolist() == [1, 0] and truth.crowd.tolist() == [False, True]
    np.testing.assert_allclose(truth.area, [77.5, 2400])
    np.testing.assert_allclose(train.truth(1).boxes, [[50, 30, 60, 40]])  # clipped
    np.testing.assert_allclose(train.truth(1).area, [100])
    assert train.boxes(np.arange(2)).classes.tolist() == [[1], [0]]  # a crowd is no training object
    assert train.counts["crowd"] == train.counts["clipped"] == 1


def test_a_file_without_annotations_lists_images_without_labels(root):
    content = _content(0)
    del content["annotations"]
    (root / "annotations/instances_train.json").write_text(json.dumps(content))
    train, _ = load(_settings(root))
    assert train.labels.tolist() == [-1, -1] and len(train.object_classes) == 0


@pytest.mark.fault(15)
def test_an_image_without_objects_is_annotated(root):
    content = _content(0)
    content["annotations"] = content["annotations"][:2]
    (root / "annotations/instances_train.json").write_text(json.dumps(content))
    assert load(_settings(root))[0].labels.tolist() == [0, 0]


def test_classes_can_be_put_in_another_order(root):
    train, _ = load(_settings(root, classes=("toothbrush", "person", "dog")))
    assert train.boxes(np.arange(2)).classes.tolist() == [[0], [1]]


def _broken(**differs):
    return json.dumps(_content(0) | differs)


def _objects(**differs):
    return _broken(annotations=[_content(0)["annotations"][0] | differs])


@pytest.mark.fault(15)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "'images' is not"),
        ("{", "not valid JSON"),
        (_broken(annotations=3), "'annotations' is not"),
        (_broken(categories=[]), "distinct class names"),
        (_broken(categories=[dict(id=1, name="person"), dict(id=1, name="dog")]), "an id comes up twice"),
        (_broken(images=[dict(id=0, file_name="../../a.png", width=60, height=40)]), "not the name of a file"),
        (_broken(images=[dict(id=0, file_name="c.png", width=60, height=40)]), "1 of 1 images are not in .*c.png"),
        (_broken(images=[dict(id=0, file_name="a.png", width="60", height=40)]), "image 1|width should be"),
        (_objects(image_id=7), "of image 7, which is not listed"),
        (_objects(category_id=7), "unknown class 'category 7'"),
        (_objects(bbox=[1, 2, 3]), "bbox should be"),
        (_objects(bbox=[1, 2, 3, "4"]), "bbox should be"),
        (_objects(bbox=[1, 2, 3, float("nan")]), "not valid JSON"),
        (_objects(bbox=[1, 2, -3, 4]), "end before they begin"),
        (_objects(bbox=[1, 2, 10**400, 4]), "bbox should be|not valid JSON"),
        (_objects(image_id=True), "should be a whole number"),
        (_objects(iscrowd="0"), r"iscrowd: expected 0 or 1, got '0'"),
    ],
)
def test_what_is_wrong_is_refused(root, text, message):
    (root / "annotations/instances_train.json").write_text(text)
    with pytest.raises(UserError, match=message):
        load(_settings(root))


@pytest.mark.fault(15)
def test_an_image_of_another_size_than_annotated_is_refused_or_skipped(root):
    Image.new("RGB", (40, 60)).save(root / "train/b.png")
    with pytest.raises(UserError, match=r"is 60x40 .* its annotation is for 40x60"):
        load(_settings(root))
    train, _ = load(_settings(root, broken="skip", broken_limit=0.5))
    assert len(train) == 1 and train.skipped[0][0] == "train/b.png"


def test_no_annotation_file_says_where_it_was_looked_for(root):
    with pytest.raises(UserError, match=r"annotation file of split 'test'.*instances_test\.json.*Found: annotations"):
        load(_settings(root, test="test"))
