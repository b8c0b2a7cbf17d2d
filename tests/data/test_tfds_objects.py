import numpy as np
import pytest
from PIL import Image

from jkd.data.object_sets import load
from jkd.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets")
BOX = tfds.features.BBox


class JkdBoxes(tfds.core.GeneratorBasedBuilder):
    """Six training and two test images with up to two objects, with the features of voc/2007."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        label = tfds.features.ClassLabel(names=["cat", "dog"])
        objects = dict(bbox=tfds.features.BBoxFeature(), label=label, is_difficult=np.bool_, is_truncated=np.bool_)
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "image/filename": tfds.features.Text(),
                "objects": tfds.features.Sequence(objects),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, manager):
        return {"train": self._generate_examples(6), "test": self._generate_examples(2)}

    def _generate_examples(self, count):
        for number in range(count):
            boxes = [BOX(ymin=0.25, xmin=0.5, ymax=0.75, xmax=1.0), BOX(ymin=0.0, xmin=0.0, ymax=0.5, xmax=0.25)]
            objects = [
                dict(bbox=box, label=(number + at) % 2, is_difficult=at == 1, is_truncated=False)
                for at, box in enumerate(boxes[: number % 3])
            ]
            image = Image.fromarray(np.full((40, 60, 3), number, np.uint8))
            yield number, {"image": image, "image/filename": f"{number:03d}.png", "objects": objects}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    JkdBoxes(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def _settings(data_dir, **differs):
    return dict(source="tfds:jkd_boxes", path=str(data_dir), image_size=20) | differs


def test_boxes_belong_to_their_images(data_dir):
    train, test = load(_settings(data_dir))
    assert [train.id(i) for i in range(6)] == [f"train/{number:03d}.png" for number in range(6)]
    assert (train.images(np.arange(6)) == np.arange(6)[:, None, None, None]).all()
    assert [len(train.truth(i).boxes) for i in range(6)] == [0, 1, 2, 0, 1, 2]
    truth = train.truth(5)
    np.testing.assert_allclose(truth.boxes, [[30, 10, 60, 30], [0, 0, 15, 20]])  # x before y
    assert truth.classes.tolist() == [1, 0] and truth.difficult.tolist() == [False, True]
    assert train.classes == ("cat", "dog") and len(test) == 2 and (train.labels == 0).all()
    assert train.boxes(np.arange(6)).classes.tolist() == [[-1], [1], [0], [-1], [0], [1]]


def test_counting_from_one_moves_the_upper_left_corner(data_dir):
    train, _ = load(_settings(data_dir, origin=1))
    np.testing.assert_allclose(train.truth(5).boxes, [[29, 9, 60, 30], [0, 0, 15, 20]])
    with pytest.raises(UserError, match=r"data\.origin: expected 0 or 1, got 2"):
        load(_settings(data_dir, origin=2))


def test_a_set_of_other_features_is_refused(data_dir, tmp_path):
    class JkdNoBoxes(tfds.core.GeneratorBasedBuilder):
        """No objects."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            image = tfds.features.Image(shape=(None, None, 3))
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"image": image}))

        def _split_generators(self, manager):
            return {"train": self._generate_examples(), "test": self._generate_examples()}

        def _generate_examples(self):
            yield 0, {"image": Image.new("RGB", (4, 4))}

    JkdNoBoxes(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    with pytest.raises(UserError, match=r"expected the features 'image' and 'objects'.*found: image"):
        load(dict(source="tfds:jkd_no_boxes", path=str(tmp_path), image_size=20))
    with pytest.raises(UserError, match=r"data\.source 'tfds:nonesuch'"):
        load(_settings(data_dir, source="tfds:nonesuch"))
