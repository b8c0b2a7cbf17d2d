import numpy as np
import pytest
from PIL import Image

from jkd.data.object_sets import load
from jkd.errors import UserError


@pytest.fixture
def root(tmp_path):
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
        for name in ("a", "b"):
            Image.new("RGB", (60, 40)).save(tmp_path / "images" / split / f"{name}.jpg")
            (tmp_path / "labels" / split / f"{name}.txt").write_text("")
    (tmp_path / "labels/train/a.txt").write_text("1 0.5 0.5 0.5 0.5\n0 0.1 0.1 0.4 0.1\n")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    return tmp_path


def _settings(root, **differs):
    return dict(source="yolo", path=str(root), image_size=32, test="val") | differs


def test_centres_and_sizes_become_corners_in_pixels(root):
    train, _ = load(_settings(root))
    np.testing.assert_allclose(train.truth(0).boxes, [[15, 10, 45, 30], [0, 2, 18, 6]])
    assert train.truth(0).classes.tolist() == [1, 0] and train.counts["clipped"] == 1
    assert train.labels.tolist() == [0, 0]  # an empty text: nothing is in the image


def test_an_image_without_text_is_not_annotated(root):
    (root / "labels/train/b.txt").unlink()
    assert load(_settings(root))[0].labels.tolist() == [0, -1]


@pytest.mark.fault(15)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0.5 0.5 0.5", "line 1 should be 'class cx cy w h'"),
        ("\n1 0.5 0.5 0.5 0.5\n1.5 0.5 0.5 0.5 0.5", "line 2 should be"),
        ("1 a b c d", "line 1 should be"),
        ("-1 0.5 0.5 0.5 0.5", "line 1 should be"),
        ("7 0.5 0.5 0.5 0.5", "unknown class 7; there are 2"),
        ("1 0.5 0.5 nan 0.5", "not finite"),
        ("1 0.5 0.5 -0.5 0.5", "end before they begin"),
        ("99999999999999999999 0.5 0.5 0.5 0.5", "line 1 should be"),
    ],
)
def test_lines_that_are_wrong_are_refused(root, text, message):
    (root / "labels/train/a.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        load(_settings(root))


@pytest.mark.fault(15)
def test_broken_boxes_are_skipped_if_asked_and_counted(root):
    (root / "labels/train/a.txt").write_text("1 0.5 0.5 nan 0.5\n1 0.5 0.5 0.5 0.5\n")
    train, _ = load(_settings(root, broken="skip", broken_limit=0.5))
    assert train.counts["broken"] == 1 and len(train.object_classes) == 1


@pytest.mark.fault(15)
def test_names_are_needed(root):
    (root / "classes.txt").unlink()
    with pytest.raises(UserError, match=r"class names \(data\.names\)"):
        load(_settings(root))
    (root / "other").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        load(_settings(root, names=str(root / "other")))
    assert load(_settings(root, classes=("x", "y")))[0].classes == ("x", "y")


def test_the_coco_subset_as_it_is(shared):
    data = shared / "data"
    names = str(data / "yolo_fastest" / "coco.names")
    settings = dict(path=str(data / "coco_subset"), names=names, image_size=64, limit=32)
    train, val = load(_settings(data, **settings))
    assert (len(train), len(val)) == (32, 64)
    assert val.counts["boxes"] == 440 and len(np.unique(val.object_classes)) == 62 and val.classes[0] == "person"
    assert val.counts["clipped"] == val.counts["broken"] == val.counts["small"] == 0
