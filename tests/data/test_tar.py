import gzip
import os
import tarfile

import numpy as np
import pytest

from jkd.data import open_dataset
from jkd.errors import UserError


def _member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz"])
def test_one_tar_gives_what_the_folder_gives(settings, image_files, write_folder, write_tar, tmp_path, suffix):
    files = image_files()
    folder = open_dataset(settings(path=write_folder(tmp_path / "set", files)))
    tar = open_dataset(settings(path=write_tar(tmp_path / f"set{suffix}", files)))
    assert tar.fingerprint == folder.fingerprint
    assert tar.classes == folder.classes


def test_a_folder_of_split_tars_gives_the_same(settings, image_files, write_folder, write_tar, tmp_path):
    files = image_files()
    folder = open_dataset(settings(path=write_folder(tmp_path / "set", files)))
    (tmp_path / "tars").mkdir()
    for split, suffix in (("train", ".tar.gz"), ("test", ".tar")):
        mine = {f"./{name}": data for name, data in files.items() if name.startswith(split)}
        write_tar(tmp_path / "tars" / f"{split}{suffix}", mine)
    assert open_dataset(settings(path=tmp_path / "tars")).fingerprint == folder.fingerprint


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_a_large_tar_is_decoded_on_demand(settings, image_files, write_tar, tmp_path, monkeypatch, suffix):
    path = write_tar(tmp_path / f"set{suffix}", image_files())
    whole = open_dataset(settings(path=path)).train
    monkeypatch.setattr("jkd.data.images.IN_MEMORY_BYTES", 0)
    lazy = open_dataset(settings(path=path)).train
    at = np.arange(6)[::-1]
    assert not lazy.in_memory
    np.testing.assert_array_equal(lazy.images(at), whole.images(at))


@pytest.mark.parametrize(
    "member",
    [
        _member("../outside.png", tarfile.REGTYPE),
        _member("train/cat/../../../outside.png", tarfile.REGTYPE),
        _member("/tmp/outside.png", tarfile.REGTYPE),
        _member("train/cat/link.png", tarfile.SYMTYPE, "/etc/passwd"),
        _member("train/cat/hard.png", tarfile.LNKTYPE, "train/cat/00.png"),
        _member("train/cat/device.png", tarfile.CHRTYPE),
        _member("train/cat/pipe.png", tarfile.FIFOTYPE),
    ],
    ids=lambda member: member.name.rsplit("/", 1)[-1],
)
@pytest.mark.fault(23)
def test_unsafe_members_are_refused_by_name_and_nothing_is_extracted(
    settings, image_files, write_tar, tmp_path, member
):
    path = write_tar(tmp_path / "set.tar.gz", image_files(), (member,))
    with pytest.raises(UserError, match=rf"1 unsafe members.*{member.name.rsplit('/', 1)[-1]}"):
        open_dataset(settings(path=path))
    assert os.listdir(tmp_path) == ["set.tar.gz"]


def test_the_same_name_twice_is_refused(settings, image_files, write_tar, tmp_path):
    path = write_tar(tmp_path / "set.tar", image_files(), (tarfile.TarInfo("train/cat/00.png"),))
    with pytest.raises(UserError, match=r"two files are named train/cat/00.png"):
        open_dataset(settings(path=path))


def test_an_empty_class_folder_is_refused(settings, image_files, write_tar, tmp_path):
    path = write_tar(tmp_path / "set.tar.gz", image_files(), (_member("train/bird/", tarfile.DIRTYPE),))
    with pytest.raises(UserError, match="no images in class folder train/bird"):
        open_dataset(settings(path=path))


@pytest.mark.parametrize("name", ["set.tar.gz", "set.tar"])
def test_a_text_file_named_tar_is_refused(settings, tmp_path, name):
    (tmp_path / name).write_text("hello, I am a text file\n" * 50)
    with pytest.raises(UserError, match=r"expected a (gzipped )?tar, but it starts with b'hello"):
        open_dataset(settings(path=tmp_path / name))


def test_a_gzip_of_no_tar_is_refused(settings, tmp_path):
    (tmp_path / "set.tar.gz").write_bytes(gzip.compress(b"hello" * 500))
    with pytest.raises(UserError, match="truncated or damaged"):
        open_dataset(settings(path=tmp_path / "set.tar.gz"))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.9999])
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
@pytest.mark.fault(22)
def test_a_truncated_tar_is_refused(settings, image_files, write_tar, tmp_path, share, suffix):
    path = write_tar(tmp_path / f"set{suffix}", image_files())
    data = path.read_bytes()
    if suffix == ".tar":  # what follows the end mark is padding
        data = data[: len(data.rstrip(b"\0")) + 100]
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match=r"truncated or damaged|expected a tar"):
        open_dataset(settings(path=path))


@pytest.mark.fault(22)
def test_a_tar_cut_between_two_members_is_refused(settings, image_files, write_tar, tmp_path):
    path = write_tar(tmp_path / "set.tar", image_files())
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    path.write_bytes(path.read_bytes()[: last.offset])
    with pytest.raises(UserError, match="no end mark"):
        open_dataset(settings(path=path))


@pytest.mark.fault(24)
def test_a_member_that_claims_too_much_is_refused_before_it_is_read(settings, image_files, tmp_path):
    huge = tarfile.TarInfo("train/cat/huge.png")
    huge.size = 2**40
    (tmp_path / "set.tar.gz").write_bytes(gzip.compress(huge.tobuf() + bytes(1024)))
    with pytest.raises(UserError, match=r"huge.png has 1099511627776 bytes"):
        open_dataset(settings(path=tmp_path / "set.tar.gz"))


@pytest.mark.fault(24)
def test_a_long_name_header_that_claims_too_much_is_refused(settings, tmp_path):
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 2**36
    (tmp_path / "set.tar.gz").write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(4096)))
    with pytest.raises(UserError, match="a header claims"):
        open_dataset(settings(path=tmp_path / "set.tar.gz"))


@pytest.mark.slow
def test_cifar10_opens_once_into_memory_with_all_its_images(settings, shared):
    data = open_dataset(settings(path=shared / "data" / "cifar10"))
    assert (len(data.train), len(data.test), data.shape) == (50_000, 10_000, (32, 32, 3))
    assert data.train.in_memory
    np.testing.assert_array_equal(np.bincount(data.train.labels), np.full(10, 5000))
    assert data.train.id(0) == "train/airplane/0000.jpg"
