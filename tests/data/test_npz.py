import io
import zipfile

import numpy as np
import pytest

from jkd.data import open_dataset
from jkd.errors import UserError


def _arrays(n: int = 6) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, 4, 5, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(n) % 3
    return arrays


def _open(settings, path, arrays, **differs):
    np.savez(path, **arrays)
    return open_dataset(settings("npz", path, **differs))


def test_arrays_come_back_as_they_were(settings, tmp_path):
    arrays = _arrays()
    data = _open(settings, tmp_path / "set.npz", arrays)
    np.testing.assert_array_equal(data.train.images(np.arange(6)), arrays["train_images"])
    np.testing.assert_array_equal(data.test.labels, arrays["test_labels"])
    assert data.classes == ("0", "1", "2")
    assert data.train.id(2) == "train/0000002"


def test_class_names_hidden_labels_and_grey_images_are_taken(settings, tmp_path):
    arrays = _arrays() | {"classes": np.array(["ant", "bee", "cat"])}
    arrays["train_labels"][0] = -1
    arrays |= {f"{split}_images": arrays[f"{split}_images"][..., 0] for split in ("train", "test")}
    data = _open(settings, tmp_path / "set.npz", arrays)
    assert data.classes == ("ant", "bee", "cat")
    assert data.shape == (4, 5, 1)
    assert data.train.labels[0] == -1


def test_limit_and_image_size_apply(settings, tmp_path):
    data = _open(settings, tmp_path / "set.npz", _arrays(20), limit=7, test_limit=5, image_size=3)
    assert (len(data.train), len(data.test), data.shape) == (7, 5, (3, 3, 3))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"test_labels": None}, "no array test_labels"),
        (
            {"train_images": np.zeros((6, 4, 5, 3), np.float32)},
            r"train_images is float32 \[6, 4, 5, 3\].*uint8",
        ),
        ({"train_images": np.zeros((6, 3, 4, 50), np.uint8)}, r"train_images is uint8 \[6, 3, 4, 50\]"),
        ({"train_labels": np.zeros(5, int)}, "6 train_images, but 5 train_labels"),
        ({"train_labels": np.zeros(6)}, "train_labels is float64"),
        ({"train_labels": np.full(6, -2)}, "train_labels is int64"),
        ({"test_labels": np.full(6, -1)}, "6 test samples have no label"),
        ({"classes": np.array(["a", "b"])}, "labels go up to 2, classes are: a, b"),
        ({"classes": np.array(["a", "b", object()], dtype=object)}, "pickled Python objects"),
        ({"test_images": np.zeros((6, 9, 5, 3), np.uint8)}, r"\[4, 5, 3\].*\[9, 5, 3\]"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_what_does_not_fit_is_named(settings, tmp_path, change, match):
    arrays = {name: array for name, array in (_arrays() | change).items() if array is not None}
    with pytest.raises(UserError, match=match):
        _open(settings, tmp_path / "set.npz", arrays)


def test_too_many_pixels_are_refused(settings, tmp_path):
    with pytest.raises(UserError, match=r"4x5 pixels, over data.max_pixels=10"):
        _open(settings, tmp_path / "set.npz", _arrays(), max_pixels=10)


def _npy(shape: tuple[int, ...], body: bytes) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue() + body


@pytest.mark.fault(22)
def test_a_header_that_claims_more_than_there_is_is_refused_before_loading(settings, tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, **{name: array for name, array in _arrays().items() if name != "train_images"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train_images.npy", _npy((6, 2**20, 2**20, 3), bytes(60)))
    with pytest.raises(UserError, match=r"train_images.npy claims \d+ bytes, but has 60"):
        open_dataset(settings("npz", path))


@pytest.mark.fault(24)
def test_more_than_fits_is_refused_before_loading(settings, tmp_path, monkeypatch):
    monkeypatch.setattr("jkd.data.npz.LOAD_BYTES", 500)
    with pytest.raises(UserError, match="claim 816 bytes"):
        _open(settings, tmp_path / "set.npz", _arrays())


@pytest.mark.parametrize("content", [b"hello", b"", b"PK\x03\x04 and nothing"])
@pytest.mark.fault(22)
def test_what_is_no_npz_is_refused(settings, tmp_path, content):
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(UserError, match="not a readable npz"):
        open_dataset(settings("npz", tmp_path / "set.npz"))


@pytest.mark.fault(22)
def test_a_truncated_npz_is_refused(settings, tmp_path):
    np.savez(tmp_path / "set.npz", **_arrays())
    data = (tmp_path / "set.npz").read_bytes()
    (tmp_path / "set.npz").write_bytes(data[:-100])
    with pytest.raises(UserError, match="not a readable npz"):
        open_dataset(settings("npz", tmp_path / "set.npz"))


def test_a_folder_is_no_npz(settings, tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        open_dataset(settings("npz", tmp_path))
