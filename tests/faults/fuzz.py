"""Mutants of weights, graphs and records: each is loaded, or refused in one message; no crash, no hang, little memory.

    python fuzz.py GRAPH_FOLDER SCRATCH COUNT SEED

prints `{kind: {"tried", "passed", "accepted", "failures", "memory"}}`, memory in bytes above what was used before.
"""

import contextlib
import io
import itertools
import json
import random
import signal
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load, save

from jkd import digest, files
from jkd.data import npz
from jkd.errors import UserError
from jkd.graph import show, store, taxonomy, views
from jkd.graph.export import to_json
from jkd.models.vgg import STAGES, CifarVgg
from jkd.pretrained import torch_images
from jkd.pretrained.tensors import read_tree
from jkd.train import metrics, record

SECONDS, MEMORY = 5, 2**28
NUMBERS = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
TEXTS = (
    b"null",
    b"NaN",
    b"1e999",
    b"-1",
    b"[]",
    b"{}",
    b'""',
    b"true",
    b"9" * 5000,
    b"[" * 3000,
    b'"\\ud800"',
    b"\xff\xfe",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    10**30,
    0.5,
    1e300,
    "",
    "x",
    "\u202e\n",
    [],
    {},
    [[]],
    [None],
)
IDS = [f"train/{number:03d}.png" for number in range(40)]
CLASSES = ("cat", "dog", "bus")
NETWORK = CifarVgg(3, STAGES["vgg8"], (2, 3, 4, 5, 6))


class Hang(BaseException):
    """A mutant took too long."""


def changed(data: bytes, chance: random.Random) -> bytes:
    """Bytes turned, cut, inserted, doubled, replaced by numbers and texts that are hard to take."""
    new = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        at, kind = chance.randrange(len(new) + 1), chance.randrange(8)
        if kind == 0 and new:
            new[min(at, len(new) - 1)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del new[at:]
        elif kind == 2:
            new[at:at] = bytes(chance.randrange(256) for _ in range(chance.choice((1, 7, 300))))
        elif kind == 3:
            del new[at : at + chance.choice((1, 2, 8, 500))]
        elif kind == 4:
            new[at:at] = new[at : at + chance.choice((1, 40, 2000))]
        elif kind == 5:
            new[at : at + 8] = struct.pack("<Q", chance.choice(NUMBERS))
        elif kind == 6:
            new[at : at + chance.choice((1, 4, 20))] = chance.choice(TEXTS)
        else:
            new[at : at + chance.choice((1, 3))] = str(chance.choice(NUMBERS)).encode()
    return bytes(new)


def member_changed(data: bytes, chance: random.Random) -> bytes:
    """An npz of which one array is changed, or its name, in an archive whose own sums are right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = chance.choice(sorted(members))
    head, _, body = members[name].partition(b"\n")
    if chance.random() < 0.6:  # the header, at the length that it says
        text = (
            changed(head[10:], chance)[: len(head) - 10].ljust(len(head) - 10) if chance.random() < 0.7 else head[10:]
        )
        magic = head[:10] if chance.random() < 0.7 else changed(head[:10], chance)
        members[name] = magic + text + b"\n" + body
    elif chance.random() < 0.8:
        members[name] = head + b"\n" + changed(body, chance)
    else:
        members[chance.choice(("ids.npy", "weight.npy", "../up.npy", "train_images", "x" * 3000))] = members.pop(name)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def header_changed(data: bytes, chance: random.Random) -> bytes:
    """A safetensors file whose header lies: its length, types, shapes, offsets, a name twice."""
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    for _ in range(chance.choice((1, 1, 2, 3))):
        name = chance.choice([key for key in header if isinstance(header[key], dict)] or ["x"])
        entry = header.setdefault(name, {})
        field = chance.choice(("dtype", "shape", "data_offsets", "gone", "more"))
        if field == "dtype":
            entry["dtype"] = chance.choice(("F64", "F16", "BF16", "I64", "BOOL", "F8_E4M3", "F4", "C64", "", None, 3))
        elif field == "shape":
            entry["shape"] = chance.choice(([2**62, 4], [-1], [0], [2**31, 2**31], [], "x", [1] * 500, [1.5]))
        elif field == "data_offsets":
            other = chance.choice(list(header.values()))
            whole = [0, len(body)]
            overlap = other.get("data_offsets", whole) if isinstance(other, dict) else whole
            entry["data_offsets"] = chance.choice((overlap, whole, [8, 0], [0, 2**63], [-8, 0], [0], None))
        elif field == "gone":
            header.pop(name)
        else:
            header[chance.choice(("__metadata__", "a/b", "", "\n"))] = chance.choice(({"x": 1}, {}, entry, 5))
    text = json.dumps(header).encode()
    if chance.random() < 0.2:
        text = text[:-1] + b"," + text[1:]  # every name twice
    claimed = len(text) if chance.random() < 0.8 else chance.choice(NUMBERS)
    return struct.pack("<Q", claimed) + text + body


def value_changed(value: Any, chance: random.Random) -> Any:
    """A JSON value with something in it replaced, left out, or doubled."""
    if chance.random() < 0.25 or not isinstance(value, dict | list) or not value:
        return chance.choice(VALUES)
    if isinstance(value, dict):
        key = chance.choice(sorted(value))
        rest = {other: entry for other, entry in value.items() if other != key}
        return rest if chance.random() < 0.1 else rest | {key: value_changed(value[key], chance)}
    index = chance.randrange(len(value))
    if chance.random() < 0.2:
        return [*value[:index], value[index], *value[index:]]
    return [*value[:index], value_changed(value[index], chance), *value[index + 1 :]]


def resigned(folder: Path, source: Path, chance: random.Random) -> None:
    """A graph that is no graph, but signed as one: what a hostile program would write."""
    signed = json.loads((source / "graph.json").read_text())
    arrays = load((source / "arrays.safetensors").read_bytes())
    if chance.random() < 0.5:
        signed["manifest"] = value_changed(signed["manifest"], chance)
    if chance.random() < 0.6:
        name = chance.choice(sorted(arrays))
        array = arrays[name].copy()
        kind = chance.randrange(5)
        if kind == 0 and array.size:
            hard = (np.nan, np.inf, -1.0, 1e30) if array.dtype.kind == "f" else (-1, -2, 2**31 - 1, 0, 5)
            array.reshape(-1)[chance.randrange(array.size)] = chance.choice(hard)
        elif kind == 1:
            array = array[: len(array) // 2]
        elif kind == 2:
            array = array.astype(chance.choice((np.float64, np.int64, np.uint8)))
        elif kind == 3:
            array = array.reshape(-1)
        else:
            array = array[..., None]
        arrays[name] = np.ascontiguousarray(array)
        with contextlib.suppress(Exception):
            signed["manifest"]["arrays"][name] = {
                "sha256": digest.of_array(array),
                "dtype": array.dtype.name,
                "shape": list(array.shape),
            }
    (folder / "arrays.safetensors").write_bytes(save(arrays))
    with contextlib.suppress(ValueError, OverflowError):
        signed["sha256"] = digest.of_json(signed["manifest"])
        signed["arrays_sha256"] = digest.of_file(folder / "arrays.safetensors")
        signed = digest.signed(signed)
    (folder / "graph.json").write_bytes(files.json_bytes(signed))


def use_graph(folder: Path) -> None:
    graph = store.load(folder)
    show.describe(graph)
    to_json(graph)


def packed(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def kinds(
    source: Path, scratch: Path, chance: random.Random
) -> dict[str, tuple[int, Callable[[], Path], Callable[[Path], Any]]]:
    """kind -> (share of the mutants, write one and say where, load it)."""
    weights = scratch / "whole.safetensors"
    torch_images.save(weights, NETWORK.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32)), NETWORK)
    tree = save({"params/a/kernel": np.ones((3, 4), np.float32), "params/a/bias": np.arange(4)})
    rng = np.random.default_rng(0)
    edges = "source,target,weight\n" + "".join(f"{a},{b},{rng.random():.3f}\n" for a, b in itertools.pairwise(IDS))
    concepts = {
        "classes": list(CLASSES),
        "concepts": ["animal", "thing"],
        "is_a": {"cat": ["animal"], "animal": "thing"},
    }
    named = {"ids": np.array(IDS), "features": rng.normal(size=(40, 5)).astype(np.float32)}
    listed = {"source": np.array(IDS[:-1]), "target": np.array(IDS[1:]), "weight": rng.random(39)}
    splits = {
        f"{split}_{what}": array
        for split in ("train", "test")
        for what, array in (("images", np.zeros((6, 4, 4), np.uint8)), ("labels", np.arange(6) % 2))
    }

    def bytes_of(
        data: bytes, name: str, change: Callable[[bytes, random.Random], bytes] = changed
    ) -> Callable[[], Path]:
        def write() -> Path:
            (scratch / name).write_bytes(change(data, chance))
            return scratch / name

        return write

    def either(*ways: Callable[[], Path]) -> Callable[[], Path]:
        return lambda: chance.choice(ways)()

    def json_of(value: Any, name: str) -> Callable[[], Path]:
        return bytes_of(b"", name, lambda _, chance: json.dumps(value_changed(value, chance)).encode())

    def graph_file() -> Path:
        name, other = chance.sample(("graph.json", "arrays.safetensors"), 2)
        (scratch / "graph").mkdir(exist_ok=True)
        change = header_changed if name != "graph.json" and chance.random() < 0.3 else changed
        (scratch / "graph" / name).write_bytes(change((source / name).read_bytes(), chance))
        (scratch / "graph" / other).write_bytes((source / other).read_bytes())
        return scratch / "graph"

    part = source.parent / "teacher"
    names = record.FILES

    def record_file() -> Path:
        (scratch / "record").mkdir(exist_ok=True)
        for name in names:
            (scratch / "record" / name).write_bytes((part / name).read_bytes())
        name = chance.choice(names)
        (scratch / "record" / name).write_bytes(changed((part / name).read_bytes(), chance))
        return scratch / "record"

    def graph_signed() -> Path:
        (scratch / "graph").mkdir(exist_ok=True)
        resigned(scratch / "graph", source, chance)
        return scratch / "graph"

    def view(path: Path) -> Any:
        return views.file_view(path, IDS, 4, known=frozenset(IDS))

    def dataset(path: Path) -> Any:
        return npz.load(str(path), ("train", "test"), max_pixels=10**6, image_size=0, limits=(0, 0))

    whole = weights.read_bytes()
    return {
        "weights of a vgg": (
            10,
            either(bytes_of(whole, "w.safetensors"), bytes_of(whole, "w.safetensors", header_changed)),
            lambda path: torch_images.load(path, NETWORK, (32, 32, 3)),
        ),
        "variables": (
            12,
            either(bytes_of(tree, "v.safetensors"), bytes_of(tree, "v.safetensors", header_changed)),
            read_tree,
        ),
        "graph": (10, graph_file, use_graph),
        "graph, signed anew": (11, graph_signed, use_graph),
        "taxonomy": (
            11,
            either(bytes_of(json.dumps(concepts).encode(), "t.json"), json_of(concepts, "t.json")),
            lambda path: taxonomy.load(path, CLASSES),
        ),
        "edge list": (10, bytes_of(edges.encode(), "e.csv"), view),
        "embeddings in npz": (
            7,
            either(bytes_of(packed(**named), "f.npz"), bytes_of(packed(**named), "f.npz", member_changed)),
            view,
        ),
        "edges in npz": (
            6,
            either(bytes_of(packed(**listed), "l.npz"), bytes_of(packed(**listed), "l.npz", member_changed)),
            view,
        ),
        "data set in npz": (
            7,
            either(bytes_of(packed(**splits), "d.npz"), bytes_of(packed(**splits), "d.npz", member_changed)),
            dataset,
        ),
        "metrics of a part": (8, bytes_of((part / "metrics.jsonl").read_bytes(), "metrics.jsonl"), metrics.read),
        "record of a part": (8, record_file, record.read),
    }


def size_of(path: Path) -> int:
    return sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else (path,)))


def peak() -> int:
    """The most memory that this program has had; `ru_maxrss` would keep what its parent had before the fork."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def late(number: int, frame: Any) -> None:
    raise Hang(f"over {SECONDS} s")


def main(source: Path, scratch: Path, count: int, seed: int) -> None:
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, late)
    chance = random.Random(seed)
    found = {}
    prepared = kinds(source, scratch, chance)
    torch_images.load(scratch / "whole.safetensors", NETWORK, (32, 32, 3))
    use_graph(source)
    start = peak()
    for kind, (share, write, use) in prepared.items():
        line: dict[str, Any] = {"tried": 0, "passed": 0, "accepted": 0, "failures": [], "memory": 0}
        for _ in range(max(1, count * share // 100)):
            path = write()
            line["tried"] += 1
            signal.alarm(SECONDS)
            try:
                use(path)
                line["accepted"] += 1
            except UserError as error:
                if not str(error):
                    line["failures"].append("an empty message")
                    continue
            except (Exception, Hang) as error:
                line["failures"].append(f"{type(error).__name__}: {str(error)[:200]}")
                (scratch / f"failed-{kind.replace(' ', '_')}-{line['tried']}").write_bytes(
                    b"".join(file.read_bytes() for file in (sorted(path.iterdir()) if path.is_dir() else (path,)))
                )
                continue
            finally:
                signal.alarm(0)
            line["memory"] = max(line["memory"], peak() - start)
            if peak() - start > 2 * size_of(path) + MEMORY:
                line["failures"].append(f"{peak() - start} bytes for a file of {size_of(path)}")
                continue
            line["passed"] += 1
        found[kind] = line
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
