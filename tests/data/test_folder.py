import numpy as np
import pytest

from jkd.data import open_dataset
from jkd.errors import UserError


def test_a_folder_is_read_in_the_order_of_its_names(settings, image_files, write_folder, tmp_path):
    data = open_dataset(settings(path=write_folder(tmp_path, image_files())))
    assert data.classes == ("cat", "dog")
    assert data.shape == (6, 6, 3)
    assert [data.train.id(i) for i in (0, 3)] == ["train/cat/00.png", "train/dog/00.png"]
    np.testing.assert_array_equal(data.train.labels, [0, 0, 0, 1, 1, 1])


def test_images_come_in_the_order_asked_for(settings, image_files, write_folder, tmp_path):
    train = open_dataset(settings(path=write_folder(tmp_path, image_files()))).train
    at = np.array([4, 0, 4])
    np.testing.assert_array_equal(train.images(at), train.images(np.arange(6))[at])


def test_all_grey_keeps_one_channel_and_one_colour_split_makes_all_rgb(settings, image_files, write_folder, tmp_path):
    grey = open_dataset(settings(path=write_folder(tmp_path / "a", image_files(grey=("train", "test")))))
    mixed = open_dataset(settings(path=write_folder(tmp_path / "b", image_files(grey=("train",)))))
    assert grey.shape == (6, 6, 1)
    assert mixed.shape == (6, 6, 3)
    pixels = mixed.train.images(np.arange(6))
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


def test_one_colour_image_among_grey_ones_makes_all_rgb(settings, encoded, image_files, write_folder, tmp_path):
    files = image_files(grey=("train", "test"))
    files["train/dog/02.png"] = encoded(np.full((6, 6, 3), [9, 8, 7], np.uint8))
    data = open_dataset(settings(path=write_folder(tmp_path, files)))
    pixels = data.train.images(np.array([0, 5]))
    np.testing.assert_array_equal(pixels[0, :, :, 0], pixels[0, :, :, 2])
    np.testing.assert_array_equal(pixels[1, 0, 0], [9, 8, 7])


def test_notes_and_hidden_files_are_passed_over(settings, image_files, write_folder, tmp_path):
    extra = {"train/cat/notes.txt": b"x", "train/.DS_Store": b"x", "train/cat/._00.png": b"x", "README": b"x"}
    data = open_dataset(settings(path=write_folder(tmp_path, image_files() | extra)))
    assert len(data.train) == 6


@pytest.mark.fault(12)
def test_broken_images_are_refused_with_names_and_count(settings, image_files, write_folder, tmp_path):
    files = image_files(each=8)
    for number in range(7):
        files[f"train/dog/0{number}.png"] = b"not an image"
    with pytest.raises(UserError, match=r"7 of 16 images .*train/dog/04.png .* and 2 more.*data.broken='skip'"):
        open_dataset(settings(path=write_folder(tmp_path, files)))


@pytest.mark.fault(12)
def test_skipped_images_are_listed_with_the_reason(settings, image_files, write_folder, tmp_path):
    files = image_files()
    files["train/cat/01.png"] = files["train/cat/01.png"][:60]
    train = open_dataset(settings(path=write_folder(tmp_path, files), broken="skip", broken_limit=0.5)).train
    assert [name for name, _ in train.skipped] == ["train/cat/01.png"]
    assert "cannot be decoded" in train.skipped[0][1]
    assert [train.id(i) for i in range(2)] == ["train/cat/00.png", "train/cat/02.png"]
    np.testing.assert_array_equal(train.labels, [0, 0, 1, 1, 1])


@pytest.mark.fault(13)
def test_a_bomb_is_refused_from_its_header(settings, encoded, image_files, write_folder, tmp_path):
    files = image_files() | {"train/cat/zz.png": encoded(np.zeros((500, 500), np.uint8))}
    with pytest.raises(UserError, match=r"train/cat/zz.png claims 500x500 pixels, over data.max_pixels=10000"):
        open_dataset(settings(path=write_folder(tmp_path, files), max_pixels=10_000))


@pytest.mark.fault(13)
def test_a_file_larger_than_any_honest_image_is_not_read(settings, image_files, write_folder, tmp_path):
    files = image_files() | {"train/cat/zz.png": bytes(2**20 + 900)}
    with pytest.raises(UserError, match=r"zz.png has 1049476 bytes"):
        open_dataset(settings(path=write_folder(tmp_path, files), max_pixels=100))


def test_several_sizes_need_image_size(settings, encoded, image_files, write_folder, tmp_path):
    files = image_files() | {"train/dog/zz.png": encoded(np.zeros((9, 6, 3), np.uint8))}
    root = write_folder(tmp_path, files)
    with pytest.raises(UserError, match=r"1 differ: train/dog/zz.png \(9x6\).*data.image_size"):
        open_dataset(settings(path=root))
    assert open_dataset(settings(path=root, image_size=5)).shape == (5, 5, 3)


def test_test_images_of_another_size_are_refused(settings, image_files, write_folder, tmp_path):
    other = {name: data for name, data in image_files(side=7).items() if name.startswith("test")}
    with pytest.raises(UserError, match=r"\[6, 6, 3\].*\[7, 7, 3\]"):
        open_dataset(settings(path=write_folder(tmp_path, image_files() | other)))


def test_limit_keeps_so_many_by_id_whatever_the_others_are(settings, image_files, write_folder, tmp_path):
    root = write_folder(tmp_path, image_files(each=20))

    def ids(limit: int) -> list[str]:
        train = open_dataset(settings(path=root, limit=limit)).train
        return [train.id(i) for i in range(len(train))]

    assert len(ids(8)) == 8
    assert set(ids(8)) < set(ids(15))
    assert ids(8) == sorted(ids(8))


def test_fingerprint_sees_one_pixel_one_label_and_one_name(settings, encoded, image_files, write_folder, tmp_path):
    def fingerprint(name: str, files: dict[str, bytes]) -> str:
        return open_dataset(settings(path=write_folder(tmp_path / name, files))).fingerprint

    files = image_files()
    pixel, label, name = dict(files), dict(files), dict(files)
    pixel["train/cat/00.png"] = encoded(np.zeros((6, 6, 3), np.uint8))
    label["train/dog/99.png"] = label.pop("train/cat/00.png")
    name["train/cat/0.png"] = name.pop("train/cat/00.png")
    prints = [fingerprint(str(i), each) for i, each in enumerate((files, pixel, label, name))]
    assert len(set(prints)) == 4
    assert fingerprint("again", files) == prints[0]


def test_a_large_set_is_decoded_on_demand_to_the_same_pixels(
    settings, image_files, write_folder, tmp_path, monkeypatch
):
    files = image_files(grey=("train",))
    files["train/cat/01.png"] = b"broken"
    root = write_folder(tmp_path, files)
    whole = open_dataset(settings(path=root, broken="skip", broken_limit=0.5))
    monkeypatch.setattr("jkd.data.images.IN_MEMORY_BYTES", 0)
    lazy = open_dataset(settings(path=root, broken="skip", broken_limit=0.5))
    at = np.array([3, 0])
    assert (whole.train.in_memory, lazy.train.in_memory) == (True, False)
    assert lazy.shape == whole.shape == (6, 6, 3)
    assert lazy.train.skipped == whole.train.skipped
    np.testing.assert_array_equal(lazy.train.images(at), whole.train.images(at))
    np.testing.assert_array_equal(lazy.train.labels, whole.train.labels)
    assert lazy.fingerprint == open_dataset(settings(path=root, broken="skip", broken_limit=0.5)).fingerprint


@pytest.mark.fault(12)
def test_a_body_found_broken_on_demand_ends_with_its_name(
    settings, encoded, image_files, write_folder, tmp_path, monkeypatch
):
    files = image_files()
    noise = np.random.default_rng(3).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    files["train/cat/01.png"] = encoded(noise)[:-60]  # the header is whole
    monkeypatch.setattr("jkd.data.images.IN_MEMORY_BYTES", 0)
    train = open_dataset(settings(path=write_folder(tmp_path, files))).train
    with pytest.raises(UserError, match=r"train/cat/01.png cannot be decoded"):
        train.images(np.array([1]))


@pytest.mark.fault(12)
def test_a_file_that_changed_since_it_was_opened_is_refused_by_name(
    settings, encoded, image_files, write_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("jkd.data.images.IN_MEMORY_BYTES", 0)
    root = write_folder(tmp_path, image_files())
    train = open_dataset(settings(path=root)).train
    train.images(np.array([0, 1]))
    noise = np.random.default_rng(3).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    (root / "train" / "cat" / "01.png").write_bytes(encoded(noise))
    train.images(np.array([0]))
    with pytest.raises(UserError, match=r"train/cat/01.png has changed since the run began"):
        train.images(np.array([1]))


def _without(files: dict[str, bytes], start: str) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if not name.startswith(start)}


def test_wrong_layouts_are_refused_with_what_was_expected_and_found(settings, image_files, write_folder, tmp_path):
    def refused(name: str, files: dict[str, bytes], match: str, folder: str = "") -> None:
        root = write_folder(tmp_path / name, files)
        if folder:
            (root / folder).mkdir()
        with pytest.raises(UserError, match=match):
            open_dataset(settings(path=root))

    files = image_files()
    refused(
        "split",
        _without(files, "test/"),
        r"neither a folder 'test' nor.*Expected <split>/<class>.*Found: train",
    )
    refused("one", _without(_without(files, "train/dog"), "test/dog"), "only the class 'cat'")
    refused("empty", files, "no images in class folder train/bird", folder="train/bird")
    refused("depth", files | {"train/cat/more/1.png": b"x"}, "another depth: train/cat/more/1.png")
    refused("extra", files | {"test/eel/1.png": b"x"}, "different classes.*only in test: eel")


def test_missing_paths_say_where_they_break_off(settings, image_files, write_folder, tmp_path):
    write_folder(tmp_path / "set", image_files())
    (tmp_path / "note.txt").write_text("hello")
    with pytest.raises(UserError, match=r"no .*sett\. In .* there is: note.txt, set"):
        open_dataset(settings(path=tmp_path / "sett"))
    with pytest.raises(UserError, match=r"lies below .*note.txt, which is a file"):
        open_dataset(settings(path=tmp_path / "note.txt" / "train"))
    with pytest.raises(UserError, match=r"note.txt is a file, but no .tar"):
        open_dataset(settings(path=tmp_path / "note.txt"))
    with pytest.raises(UserError, match=r"data.path is empty"):
        open_dataset(settings(path=""))
