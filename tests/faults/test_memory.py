"""Small files that claim much: refused before they are in memory, measured in a process of their own."""

import json
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jkd import digest, files

# `VmHWM` begins with the program; what it has used before it reads is not the file's.
READ = """
import json, sys, time
from pathlib import Path
from jkd import files
from jkd.data import coco
from jkd.errors import UserError
from jkd.graph import store, taxonomy
from jkd.graph.views import file_view
from jkd.pretrained.shards import read_object
from jkd.pretrained.tensors import read_tree
peak = lambda: 1024 * int(next(line for line in open("/proc/self/status") if line[:5] == "VmHWM").split()[1])
path = Path(sys.argv[2])
read = {
    "arrays": files.read_arrays,
    "tree": read_tree,
    "graph": lambda path: store.load(path.parent),
    "manifest": lambda path: store.read_manifest(path.parent),
    "signed": files.read_signed,
    "taxonomy": lambda path: taxonomy.load(path, ("a", "b")),
    "object": read_object,
    "coco": lambda path: coco.listings(path.parent, ["train"], 10**6),
    "view": lambda path: file_view(path, ["a"], 1),
}[sys.argv[1]]
start, begun, said = peak(), time.monotonic(), ""
try:
    read(path)
except UserError as error:
    said = str(error)
print(json.dumps([said, peak() - start, time.monotonic() - begun]))
"""


def _read(root: Path, how: str, path: Path, most: int = 2**28) -> str:
    """What is said of a file, after a look at the memory and the time that it took."""
    done = subprocess.run(
        [sys.executable, "-c", READ, how, str(path)],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said, memory, seconds = json.loads(done.stdout)
    assert memory < 2 * path.stat().st_size + most and seconds < 30
    return said


def _tensors(names: int, name: Callable[[int], str]) -> bytes:
    """A safetensors file of tensors without values."""
    entries = (f'"{name(number)}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for number in range(names))
    header = f"{{{','.join(entries)}}}".encode()
    return struct.pack("<Q", len(header)) + header


@pytest.mark.fault(22)
@pytest.mark.parametrize("how", ["arrays", "tree", "graph"])
def test_a_header_is_weighed_before_its_reader_takes_it_apart(root: Path, tmp_path: Path, how: str):
    path = tmp_path / "arrays.safetensors"
    path.write_bytes(_tensors(600_000, str))
    assert path.stat().st_size > 10 * files.HEADER
    manifest = {"schema": _schema(), "arrays": {}, "material": None}
    signed = {"sha256": digest.of_json(manifest), "arrays_sha256": digest.of_file(path), "manifest": manifest}
    files.write_signed(tmp_path / "graph.json", signed)
    said = _read(root, how, path)
    assert f"{path} is not a readable safetensors file (its header has " in said


def _schema() -> int:
    from jkd.graph.knowledge_graph import SCHEMA

    return SCHEMA


@pytest.mark.fault(22)
@pytest.mark.parametrize("how", ["arrays", "tree"])
def test_the_largest_headers_that_are_read_take_little_memory(root: Path, tmp_path: Path, how: str):
    for number, name in enumerate((str, lambda number: "/".join([f"{number:x}", *"a" * 32]))):
        path = tmp_path / f"{number}.safetensors"
        many = files.HEADER // (len(_tensors(1000, name)) // 1000 + 4)
        path.write_bytes(_tensors(many, name))
        assert files.HEADER * 0.8 < path.stat().st_size - 8 <= files.HEADER
        assert _read(root, how, path) == ""
    path.write_bytes(_tensors(1, lambda _: "a" + "/a" * 33))
    if how == "tree":
        assert "lies below 33 others; expected at most 32" in _read(root, how, path)


JSON: dict[str, tuple[bytes, str]] = {
    "lists": (b'{"a": [' + b"[]," * 5_000_000 + b"[]]}", "values in "),
    "objects": (b'{"a": [' + b'{"":0},' * 2_000_000 + b"[]]}", "values in "),
    "more bytes than there are in such a file": (b'"' + b"x" * 2**24 + b'"', "bytes"),
    "texts of wide characters": (b'{"a": ["' + "é😀".encode() * 2_700_000 + b'"]}', ""),
    "as many objects as may be": (b'{"a": [' + b'{"":0},' * 340_000 + b"[]]}", ""),
    "as many keys as may be": (b"{%s}" % b",".join(b'"%x":1.5' % number for number in range(500_000)), ""),
}


@pytest.mark.fault(22)
@pytest.mark.parametrize("name", JSON)
@pytest.mark.parametrize("how", ["taxonomy", "object", "manifest"])
def test_json_is_weighed_before_it_is_taken_apart(root: Path, tmp_path: Path, how: str, name: str):
    path, (content, message) = tmp_path / "graph.json", JSON[name]
    path.write_bytes(content)
    said = _read(root, how, path)
    assert message in said and (not said or str(path) in said)


ANNOTATION = b'{"image_id":1,"category_id":1,"bbox":[1,2,3,4]},'
COCO = {
    "lists that nobody wants": (b'"x": [' + b"[]," * 1_000_000 + b"[]]", "'images' is not"),
    "lists that are no objects": (b'"images": [' + b"[]," * 7_000_000 + b"[]]", "'images' is not"),
    "a value of lists": (b'"x": {"y": [' + b"[]," * 7_000_000 + b"[]]}", "is no value of at most"),
    "objects without an image": (b'"annotations": [' + b'{"":0},' * 3_000_000 + b"{}]", "image_id should be"),
    "as many objects as can be": (
        b'"images":[{"id":1,"file_name":"a.png","width":9,"height":9}],"categories":[{"id":1,"name":"a"},'
        b'{"id":2,"name":"b"}],"annotations":[%s]' % (ANNOTATION * 400_000)[:-1],
        "",
    ),
}


@pytest.mark.fault(22)
@pytest.mark.parametrize("name", COCO)
def test_annotations_are_read_without_being_all_in_memory(root: Path, tmp_path: Path, name: str):
    path, (content, message) = tmp_path / "train.json", COCO[name]
    path.write_bytes(b"{%s}" % content)
    (tmp_path / "train").mkdir()
    Image.new("L", (9, 9)).save(tmp_path / "train/a.png")
    said = _read(root, "coco", path, 2**27)
    assert message in said and (not said or str(path) in said)


@pytest.mark.fault(22)
def test_what_is_signed_is_compared_without_being_written_again(root: Path, tmp_path: Path):
    """Indented, each of its many lists would stand behind hundreds of blanks."""
    deep: list = [[] for _ in range(500_000)]
    for _ in range(600):
        deep = [deep]
    path = tmp_path / "it.json"
    value = {"a": deep}
    path.write_text(json.dumps(digest.signed(value)))
    assert "is not what its digest says" in _read(root, "signed", path)
    path.write_text('{"a":' + "[" * 900 + "]" * 900 + ', "digest": ""}')
    assert "is not what its digest says" in _read(root, "signed", path)


@pytest.mark.fault(24)
def test_arrays_of_a_view_that_unpack_to_much_together_are_refused_and_others_not_read(root: Path, tmp_path: Path):
    path = tmp_path / "view.npz"
    arrays = {name: np.zeros(30_000_000, np.uint8) for name in ("features", "ids", "a", "b", "c", "d", "e", "f", "g")}
    arrays |= {"features": np.ones((1, 3)), "ids": np.array(["a"])}
    np.savez_compressed(path, **arrays)
    assert _read(root, "view", path, 2**26) == ""
    zeros = {name: np.zeros(50_000_000, np.int8) for name in ("source", "target", "weight")}
    np.savez_compressed(path, **zeros)
    assert f"{path}: its arrays would unpack to 150000" in _read(root, "view", path)


@pytest.mark.fault(24)
def test_an_archive_of_very_many_members_is_not_opened(root: Path, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "view.npz", "w") as archive:
        for number in range(30_000):
            archive.writestr(f"{number}.npy", b"")
    assert "is not a readable npz of plain arrays (ValueError: its directory has " in _read(
        root, "view", tmp_path / "view.npz", 2**26
    )
