import numpy as np
import pytest
from PIL import Image

from jkd.data.object_sets import load, load_splits
from jkd.errors import UserError


def _xml(objects, size=(40, 60), extra=""):
    made = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}"
        f"</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for name, box, difficult in objects
    )
    return f"<annotation><size><width>{size[1]}</width><height>{size[0]}</height></size>{made}{extra}</annotation>"


FILES = {
    "a": _xml([("dog", (1, 2, 30, 20), 0), ("cat", (10, 10, 20, 20), 1)]),
    "b": _xml([]),
    "c": _xml([("cat", (5, 5, 70, 39), 0)]),
    "d": _xml([("dog", (5, 5, 9, 9), 0)]),
}


@pytest.fixture
def root(tmp_path):
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    for number, (name, text) in enumerate(FILES.items()):
        (tmp_path / "Annotations" / f"{name}.xml").write_text(text)
        pixels = np.random.default_rng(number).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "JPEGImages" / f"{name}.png")
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\nb\n\n")
    (tmp_path / "ImageSets/Main/val.txt").write_text("c\n")
    (tmp_path / "ImageSets/Main/test.txt").write_text("d\n")
    return tmp_path


def _settings(root, **differs):
    return dict(source="voc", path=str(root), image_size=32) | differs


def test_boxes_names_and_flags_are_read(root):
    train, test = load(_settings(root, train="train+val"))
    assert train.classes == test.classes == ("cat", "dog")
    assert [train.id(i) for i in range(3)] == ["a", "b", "c"]
    truth = train.truth(0)
    np.testing.assert_allclose(truth.boxes, [[1, 2, 30, 20], [10, 10, 20, 20]])
    assert truth.classes.tolist() == [1, 0] and truth.difficult.tolist() == [False, True] and truth.size == (40, 60)
    boxes = train.boxes(np.arange(3))
    assert boxes.classes.tolist() == [[1], [-1], [0]] and boxes.object.tolist() == [[0], [-1], [1]]
    np.testing.assert_allclose(boxes.boxes[2, 0], [5 * 32 / 60, 5 * 0.8, 32, 39 * 0.8], rtol=1e-6)
    assert train.counts["clipped"] == 1 and train.counts["difficult"] == 1 and train.labels.tolist() == [0, 0, 0]


def test_difficult_objects_are_trained_on_if_asked(root):
    train, _ = load(_settings(root, train_difficult=True))
    assert train.boxes(np.asarray([0])).classes.tolist() == [[1, 0]]


def test_counting_from_one_moves_the_upper_left_corner(root):
    train, _ = load(_settings(root, origin=1))
    np.testing.assert_allclose(train.truth(0).boxes[0], [0, 1, 30, 20])


def test_an_image_without_xml_is_not_annotated_and_may_not_be_tested_on(root):
    (root / "Annotations/b.xml").unlink()
    train, _ = load(_settings(root))
    assert train.labels.tolist() == [0, -1] and train.counts["unannotated"] == 1
    assert (train.boxes(np.asarray([1])).classes == -1).all()
    with pytest.raises(UserError, match="1 test images have no annotation: b"):
        load(_settings(root, train="test", test="train"))


@pytest.mark.fault(15)
def test_one_image_in_two_splits_is_refused(root):
    (root / "ImageSets/Main/test.txt").write_text("d\na\n")
    with pytest.raises(UserError, match="a is in the splits"):
        load(_settings(root))
    with pytest.raises(UserError, match="an image stands in two splits: a"):
        load_splits(_settings(root), ["train+test", "val"])


@pytest.mark.fault(15)
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("Annotations/a.xml", '<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>', "a.xml declares a document type"),
        ("Annotations/a.xml", "<annotation>", "not well-formed"),
        ("Annotations/a.xml", _xml([("dog", ("one", 2, 3, 4), 0)]), "<bndbox/xmin> should be a number, got 'one'"),
        ("Annotations/a.xml", _xml([("dog", ("nan", 2, 3, 4), 0)]), "1 of 2 boxes|1 of 1 boxes"),
        ("Annotations/a.xml", _xml([("dog", (9, 2, 3, 4), 0)]), "end before they begin"),
        ("Annotations/a.xml", _xml([], size=(41, 60)), "is 40x60 .* its annotation is for 41x60"),
        ("Annotations/a.xml", "<annotation/>", "<size/height> should be a number, got None"),
        ("ImageSets/Main/train.txt", "a\nnonesuch\n", "1 of 2 images are not in JPEGImages: nonesuch"),
        ("ImageSets/Main/train.txt", "a\na\n", "listed twice"),
        ("ImageSets/Main/train.txt", "../../etc/passwd\n", "not the name of a file"),
        ("ImageSets/Main/train.txt", "", "there are no images"),
        ("JPEGImages/a.jpg", "", "two images are called 'a'"),
    ],
)
def test_what_is_wrong_is_refused_with_its_name(root, name, text, message):
    (root / name).write_text(text)
    with pytest.raises(UserError, match=message):
        load(_settings(root))


@pytest.mark.fault(15)
def test_classes_that_were_not_named_are_refused(root):
    with pytest.raises(UserError, match=r"not in data\.classes: cat"):
        load(_settings(root, train="train+val", classes=("dog", "bird")))
    assert load(_settings(root, classes=("dog", "cat")))[0].classes == ("dog", "cat")


@pytest.mark.parametrize(
    ("differs", "message"),
    [
        (dict(test="nonesuch"), "no split 'nonesuch'.*Found: test, train, val"),
        (dict(test="train"), "must be another one"),
        (dict(image_size=0), "image_size"),
        (dict(fit="letterbax"), "Did you mean 'letterbox'"),
        (dict(origin=2), r"data\.origin"),
        (dict(source="vcc"), "data.source: expected"),
        (dict(path="/nonesuch/x"), "there is no"),
    ],
)
def test_settings_that_do_not_fit_are_refused(root, differs, message):
    with pytest.raises(UserError, match=message):
        load(_settings(root, **differs))


def test_bccd_as_it_is(shared):
    splits = load_splits(
        dict(source="voc", path=str(shared / "data" / "bccd" / "BCCD"), image_size=16), ["train", "val", "test"]
    )
    assert [len(source) for source in splits] == [205, 87, 72]
    assert splits[0].classes == ("Platelets", "RBC", "WBC")
    counted = np.sum([np.bincount(source.object_classes, minlength=3) for source in splits], axis=0)
    assert counted.sum() == 361 + 4155 + 372 - 2
    assert sum(source.counts["small"] for source in splits) == 2  # two boxes without area
    assert sum(source.counts["boxes"] for source in splits) == 4888
    assert all(source.counts["clipped"] == source.counts["broken"] == 0 for source in splits)
