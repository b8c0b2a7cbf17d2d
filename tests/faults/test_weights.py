"""Weights and graphs from elsewhere: nothing in them runs, and none of their lies is believed."""

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from jkd import compress, files
from jkd.config import default
from jkd.data import open_dataset
from jkd.errors import UserError
from jkd.graph import taxonomy
from jkd.graph.views import file_view
from jkd.models.vgg import STAGES, CifarVgg
from jkd.pretrained import torch_images
from jkd.pretrained.tensors import read_tree


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return Path.write_text, (self.canary, "sung")


def _torch(payload: Any) -> bytes:
    """The zip that `torch.save` writes: a pickle beside raw tensors."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(payload, 2))
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def _npy(payload: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([payload], object), allow_pickle=True)
    return buffer.getvalue()


def _npz(payload: Any) -> bytes:
    buffer = io.BytesIO()
    hidden = np.array([payload], object)
    names = ("train_images", "train_labels", "test_images", "test_labels", "ids", "features", "classes")
    np.savez(buffer, allow_pickle=True, **{name: hidden for name in names})
    return buffer.getvalue()


PICKLES: dict[str, Callable[[Any], bytes]] = {
    "weights.pt": _torch,
    "old.pth": lambda payload: pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(payload, 2),
    "weights.pkl": pickle.dumps,
    "protocol 0.pickle": lambda payload: pickle.dumps(payload, 0),
    "array.npy": _npy,
    "arrays.npz": _npz,
    "renamed.safetensors": pickle.dumps,
    "renamed torch.safetensors": _torch,
}


def _data(path: Path) -> Any:
    data = default().data
    data.source, data.path = "npz", str(path)
    return open_dataset(data)


READERS: dict[str, Callable[[Path], Any]] = {
    "teacher.weights": lambda path: torch_images.load(path, NETWORK, (32, 32, 3)),
    "teacher.variables": read_tree,
    "finished variables": compress.load_variables,
    "predictions": files.read_arrays,
    "graph.files": lambda path: file_view(path, ["a"], 1),
    "graph.taxonomy": lambda path: taxonomy.load(path, ("a", "b")),
    "data.path": _data,
}
NETWORK = CifarVgg(3, STAGES["vgg8"], (2, 3, 4, 5, 6))


@pytest.mark.fault(21)
@pytest.mark.parametrize("reader", READERS)
def test_no_pickle_is_ever_loaded_and_the_message_says_what_to_do(tmp_path: Path, tries: Any, reader: str):
    canary = tmp_path / "canary"
    for name, make in PICKLES.items():
        path = tmp_path / name
        path.write_bytes(make(Payload(canary)))
        with tries(name):
            with pytest.raises(UserError) as caught:
                READERS[reader](path)
            assert str(path) in str(caught.value) and not canary.exists()
            if reader.startswith("teacher"):
                assert "pickle" in str(caught.value) and "safetensors.torch" in str(caught.value)
    pickle.loads(pickle.dumps(Payload(canary)))  # the canary can sing
    assert canary.read_text() == "sung"


def _header(header: Any, body: bytes = b"", claimed: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if claimed is None else claimed) + text + body


def _entry(*offsets: int, shape: tuple[int, ...] = (1,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


MALFORMED = {
    "length 2^63": _header({}, claimed=2**63),
    "length 2^64 - 1": _header({}, claimed=2**64 - 1),
    "length beyond the file": _header({}, claimed=1000),
    "overlap": _header({"a": _entry(0, 8, shape=(2,)), "b": _entry(4, 12, shape=(2,))}, bytes(12)),
    "gap": _header({"a": _entry(0, 4), "b": _entry(8, 12)}, bytes(12)),
    "a name twice": _header(b'{"a":%s,"a":%s}' % ((json.dumps(_entry(0, 4)).encode(),) * 2), bytes(4)),
    "a name twice, two places": _header(
        b'{"a":%s,"a":%s}' % (json.dumps(_entry(0, 4)).encode(), json.dumps(_entry(4, 8)).encode()), bytes(8)
    ),
    "offsets backwards": _header({"a": _entry(4, 0)}, bytes(4)),
    "offset beyond the file": _header({"a": _entry(0, 2**40, shape=(2**38,))}, bytes(4)),
    "shape that overflows": _header({"a": _entry(0, 4, shape=(2**62, 8))}, bytes(4)),
    "negative shape": _header({"a": _entry(0, 4, shape=(-1,))}, bytes(4)),
    "unknown type": _header({"a": _entry(0, 4, dtype="F128")}, bytes(4)),
    "trailing bytes": _header({"a": _entry(0, 4)}, bytes(9)),
    "no json": _header(b"not json", bytes(4)),
    "deep json": _header(b'{"a":' + b"[" * 50_000),
    "empty": b"",
    "seven bytes": bytes(7),
}


@pytest.mark.fault(22)
@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_header_is_refused(tmp_path: Path, name: str):
    path = tmp_path / "w.safetensors"
    path.write_bytes(MALFORMED[name])
    for read in (read_tree, files.read_arrays):
        with pytest.raises(UserError, match=rf"{path} is not a readable safetensors file"):
            read(path)


@pytest.mark.fault(22)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named(tmp_path: Path, value: float):
    save_file({"params/a": np.array([1, value, 3], np.float32)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"'params/a' has 1 of 3 values that are NaN or infinite"):
        read_tree(tmp_path / "w.safetensors")


@pytest.mark.long
@pytest.mark.fault(22)
@pytest.mark.timeout(1800)
def test_mutants_are_loaded_or_refused_without_a_crash_a_hang_or_much_memory(
    tries: Any, root: Path, done: Any, tmp_path: Path
):
    graph = done.workdir / "replicates/0/graph"
    command = [sys.executable, "-X", "faulthandler", str(root / "tests/faults/fuzz.py"), str(graph), str(tmp_path)]
    finished = subprocess.run(
        [*command, str(tries.count(300, 20_000)), "11"],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    found = json.loads(finished.stdout)
    for kind, line in found.items():
        tries.tried += line["tried"]
        tries.passed += line["passed"]
        tries.failures += [f"{kind}: {failure}" for failure in line["failures"]]
    assert tries.tried >= tries.count(290, 19_990) and len(found) == 11
