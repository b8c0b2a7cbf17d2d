"""Archives that reach outside, pretend, or unpack without end: refused by name, nothing written, memory kept."""

import gzip
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jkd.config import default
from jkd.data import open_dataset
from jkd.errors import UserError
from jkd.graph.views import file_view


def _png(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (4, 4), value).save(buffer, "PNG")
    return buffer.getvalue()


NAMES = [f"{split}/{name}/{number}.png" for split in ("train", "test") for name in "ab" for number in "01"]
HONEST = {path: _png(index) for index, path in enumerate(NAMES)}


def _settings(path: Path, source: str = "images", **differs: Any) -> Any:
    data = default().data
    data.source, data.path = source, str(path)
    data.update(differs)
    return data


def _tar(path: Path, *extra: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, data in HONEST.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member, data in extra:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def _member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644
) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = kind, link, mode
    return member, _png() if kind == tarfile.REGTYPE else b""


EVIL = {
    "up": _member("train/a/../../../evil.png"),
    "up at once": _member("../evil.png"),
    "absolute": _member("/tmp/evil.png"),
    "symlink out": _member("train/a/evil.png", tarfile.SYMTYPE, "/etc/passwd"),
    "symlink folder": _member("train/evil", tarfile.SYMTYPE, ".."),
    "hard link out": _member("train/a/evil.png", tarfile.LNKTYPE, "../../../etc/passwd"),
    "character device": _member("train/a/evil.png", tarfile.CHRTYPE),
    "block device": _member("train/a/evil.png", tarfile.BLKTYPE),
    "pipe": _member("train/a/evil.png", tarfile.FIFOTYPE),
    "setuid": _member("train/a/evil.png", mode=0o4755),
    "setgid": _member("notes/evil.txt", mode=0o2755),
    "escape in a name": _member("train/a/evil\x1b[31m\u202e.png", tarfile.SYMTYPE, "/etc/passwd"),
}


@pytest.mark.fault(23)
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_members_that_reach_outside_are_refused_by_name_and_nothing_is_written(tmp_path: Path, tries: Any, suffix: str):
    assert len(open_dataset(_settings(_tar(tmp_path / f"good{suffix}"))).train) == 4
    for what, member in EVIL.items():
        path = _tar(tmp_path / f"set{suffix}", member)
        with tries(what):
            with pytest.raises(UserError, match=r"1 unsafe members .*evil") as caught:
                open_dataset(_settings(path))
            assert str(caught.value).isprintable()
        path.unlink()
    assert os.listdir(tmp_path) == [f"good{suffix}"] and not Path("/tmp/evil.png").exists()


@pytest.mark.fault(23)
def test_names_in_an_npz_that_reach_outside_are_no_arrays_and_nothing_is_written(tmp_path: Path):
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../evil.npy", b"")
        archive.writestr("/tmp/evil.npy", b"")
    with pytest.raises(UserError, match=r"no array train_images"):
        open_dataset(_settings(path, "npz"))
    assert os.listdir(tmp_path) == ["set.npz"]


OPEN = """
import json, sys, time
from jkd.config import default
from jkd.data import open_dataset, tar
from jkd.errors import UserError
from PIL import Image
tar.MEMBERS = int(sys.argv[3])
data = default().data
data.path, data.source = sys.argv[1:3]
peak = lambda: 1024 * int(next(line for line in open("/proc/self/status") if line[:5] == "VmHWM").split()[1])
start, begun, said = peak(), time.monotonic(), ""
try:
    open_dataset(data)
except UserError as error:
    said = str(error)
taken = peak() - start
print(json.dumps([said, time.monotonic() - begun, taken]))
"""


def _opened(root: Path, path: Path, source: str = "images", members: int = 10**9) -> tuple[str, float, int]:
    """What opening a set said, how long it took, and how much memory more it used, in a process of its own."""
    command = [sys.executable, "-c", OPEN, str(path), source, str(members)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return tuple(json.loads(done.stdout))


def _zeros_tar(path: Path, name: str, size: int) -> Path:
    """A member of zeros that hardly takes space: a bomb."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        member = tarfile.TarInfo(name)
        member.size = size
        file.write(member.tobuf())
        for _ in range(size >> 20):
            file.write(bytes(2**20))
        file.write(bytes(10240))
    return path


@pytest.mark.fault(24)
@pytest.mark.parametrize("name", ["train/a/0.png", "notes/zeros.bin"])
def test_a_tar_that_unpacks_to_far_more_than_it_is_stops_at_the_budget(
    tmp_path: Path, root: Path, tries: Any, name: str
):
    path = _zeros_tar(tmp_path / "bomb.tar.gz", name, tries.count(2**27, 2**31))
    said, seconds, memory = _opened(root, path)
    assert re.search(r"bomb\.tar\.gz.*(would unpack to over \d+ bytes|has 2147483648 bytes, too many)", said)
    assert seconds < 10 and memory < 2**28


@pytest.mark.fault(24)
def test_a_tar_of_more_members_than_the_budget_stops_there(tmp_path: Path, root: Path, tries: Any):
    path, members = tmp_path / "many.tar", tries.count(3_000, 200_000)
    with open(path, "wb") as file:
        for number in range(members):
            file.write(tarfile.TarInfo(f"notes/{number}").tobuf(tarfile.USTAR_FORMAT))
        file.write(bytes(10240))
    said, seconds, memory = _opened(root, path, members=members // 2)
    assert f"over {members // 2} members" in said and seconds < 60 and memory < 2**28
    said, _, memory = _opened(root, path)
    assert "there is no split 'train'" in said and memory < 2**28  # what is passed over is not kept


@pytest.mark.fault(24)
def test_a_compressed_tar_of_very_many_empty_members_stops_at_the_ratio(tmp_path: Path, root: Path):
    path = tmp_path / "many.tar.gz"
    block = 4096 * tarfile.TarInfo("notes/0").tobuf(tarfile.USTAR_FORMAT)
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(40):
            file.write(block)
        file.write(bytes(10240))
    packed = path.stat().st_size
    assert 40 * len(block) > 2**26 and packed < 2**26 // 100
    said, seconds, memory = _opened(root, path)
    assert "would unpack to over 67108864 bytes" in said and memory < 2**28 and seconds < 60


@pytest.mark.fault(24)
def test_an_npz_that_unpacks_to_far_more_than_it_is_is_refused(tmp_path: Path, root: Path):
    path, rows = tmp_path / "bomb.npz", 2**23
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (rows, 8, 8)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for split in ("train", "test"):
            with archive.open(f"{split}_images.npy", "w", force_zip64=True) as file:
                file.write(header.getvalue())
                for _ in range(rows * 64 >> 24):
                    file.write(bytes(2**24))
            labels = io.BytesIO()
            np.save(labels, np.zeros(rows, np.int8))
            archive.writestr(f"{split}_labels.npy", labels.getvalue())
    said, seconds, memory = _opened(root, path, "npz")
    assert "train_images.npy would unpack to 5368" in said and seconds < 5 and memory < 2**27
    with pytest.raises(UserError, match=r"expected arrays ids \+ features"):  # none of these is even looked at
        file_view(path, ["a"], 1)


@pytest.mark.fault(24)
def test_zips_within_zips_are_not_followed(tmp_path: Path):
    """As in 42.zip: a level down is bytes, and no array."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(2**20))
    with zipfile.ZipFile(tmp_path / "42.npz", "w") as archive:
        for name in ("train_images", "train_labels", "test_images", "test_labels"):
            archive.writestr(f"{name}.npy", inner.getvalue())
    with pytest.raises(UserError, match=r"42\.npz is not a readable npz"):
        open_dataset(_settings(tmp_path / "42.npz", "npz"))
