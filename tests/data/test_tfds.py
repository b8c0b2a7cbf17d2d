import numpy as np
import pytest
from PIL import Image

from jkd.data import open_dataset
from jkd.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets")


def _pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number // 2).integers(0, 256, (4, 5, 3), dtype=np.uint8)


class JkdTiny(tfds.core.GeneratorBasedBuilder):
    """Twenty training images, each twice, and six test images, of two classes."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        image, label = (
            tfds.features.Image(shape=(None, None, 3)),
            tfds.features.ClassLabel(names=["ant", "bee"]),
        )
        features = tfds.features.FeaturesDict({"image": image, "label": label})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, manager):
        return {"train": self._generate_examples(20), "test": self._generate_examples(6)}

    def _generate_examples(self, count):
        for number in range(count):
            yield number, {"image": Image.fromarray(_pixels(number)), "label": number // 2 % 2}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    JkdTiny(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def test_images_and_labels_belong_together_in_an_order_of_their_digests(settings, data_dir):
    train = open_dataset(settings("tfds:jkd_tiny", data_dir)).train
    ids = [train.id(i) for i in range(len(train))]
    known = {_pixels(number).tobytes(): number // 2 % 2 for number in range(20)}
    labels = [known[image.tobytes()] for image in train.images(np.arange(20))]
    assert ids == sorted(ids) and len(set(ids)) == 20
    assert ids[1] == f"{ids[0]}-1"  # every image is there twice
    np.testing.assert_array_equal(train.labels, labels)
    assert train.classes == ("ant", "bee")


def test_a_version_may_be_named(settings, data_dir):
    named = open_dataset(settings("tfds:jkd_tiny:1.0.0", data_dir))
    assert named.fingerprint == open_dataset(settings("tfds:jkd_tiny", data_dir)).fingerprint


def test_records_read_on_demand_are_the_same(settings, data_dir, monkeypatch):
    whole = open_dataset(settings("tfds:jkd_tiny", data_dir)).train
    monkeypatch.setattr("jkd.data.images.IN_MEMORY_BYTES", 0)
    monkeypatch.setattr("jkd.data.tfds.HOLD_BYTES", 0)
    lazy = open_dataset(settings("tfds:jkd_tiny", data_dir)).train
    assert not lazy.in_memory
    np.testing.assert_array_equal(lazy.images(np.arange(20)), whole.images(np.arange(20)))


def test_max_pixels_is_checked_before_decoding(settings, data_dir):
    with pytest.raises(UserError, match="claims 4x5 pixels"):
        open_dataset(settings("tfds:jkd_tiny", data_dir, max_pixels=10))


@pytest.mark.parametrize(
    ("source", "differs"),
    [("tfds:jkd_tiny:9.9.9", {}), ("tfds:jkd_tiny", {"train": "nonesuch"}), ("tfds:", {})],
)
def test_what_is_not_there_is_one_clear_refusal(settings, data_dir, source, differs):
    with pytest.raises(UserError, match=r"data.source 'tfds:.*data_dir as data.path"):
        open_dataset(settings(source, data_dir, **differs))


def test_tensorflow_is_never_imported(settings, data_dir):
    import sys

    open_dataset(settings("tfds:jkd_tiny", data_dir))
    assert "tensorflow" not in sys.modules
