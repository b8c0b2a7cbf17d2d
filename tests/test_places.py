"""Paths of object stores: the same files, manifests, graphs and reports under `gs://` as on the disk.

The store is a folder, put in its place below `etils.epath`. What goes round epath is not tried here: orbax's
checkpoints (tensorstore has a driver of its own for `gs://`) and TensorBoard's events.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from etils import epath
from etils.epath import testing
from PIL import Image

from jkd import compress, digest, files, manifest, places, run
from jkd import config as configs
from jkd.data import open_dataset
from jkd.errors import UserError
from jkd.graph import store, views
from jkd.train import metrics, record
from jkd.train.metrics import MetricsLog
from jkd.train.state import TrainState


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Path]:
    """The folder in which the objects of `gs://bucket/` are."""
    folder = tmp_path / "store" / "bucket"
    folder.mkdir(parents=True)

    def here(path: Any) -> str:
        text = os.fspath(path)  # jax's cache of programs goes through epath, too
        return str(folder.parent / text.removeprefix("gs://")) if text.startswith("gs://") else text

    def back(path: str) -> str:
        place = Path(path)
        return f"gs://{place.relative_to(folder.parent)}" if place.is_relative_to(folder.parent) else path

    def walk(old: Any, top: Any, **options: Any) -> Iterator[Any]:
        for place, names, found in os.walk(here(top)):
            yield back(place), names, found

    simple = ("exists", "isdir", "listdir", "makedirs", "mkdir", "remove", "rmtree", "stat", "open")
    mocked: dict[str, Any] = {
        name: lambda old, path, *given, **options: old(here(path), *given, **options) for name in simple
    }
    mocked["glob"] = lambda old, path: [back(found) for found in old(here(path))]
    with testing.mock_epath(**mocked, walk=walk):
        yield folder


def _at(path: str) -> Any:
    return places.path_of(f"gs://bucket/{path}")


def test_a_text_names_a_path_of_the_disk_or_of_a_store():
    assert isinstance(places.path_of("runs/x"), Path) and isinstance(places.path_of(Path("x")), Path)
    remote = places.path_of("gs://bucket/x")
    assert isinstance(remote, epath.Path) and str(places.path_of(remote)) == "gs://bucket/x"
    assert places.absolute(remote) == remote and places.absolute(places.path_of("x")) == Path.cwd() / "x"


def test_json_bytes_and_arrays_round_trip(bucket: Path):
    files.write_json(_at("a/b.json"), {"é": 1})
    assert files.read_json(_at("a/b.json")) == {"é": 1} and (bucket / "a" / "b.json").is_file()
    files.write_arrays(_at("a/x.safetensors"), {"x": np.arange(6, dtype=np.int32)})
    assert np.array_equal(files.read_arrays(_at("a/x.safetensors"))["x"], np.arange(6))
    assert digest.of_file(_at("a/b.json")) == digest.of_file(bucket / "a" / "b.json")
    assert places.size(_at("a/b.json")) == (bucket / "a" / "b.json").stat().st_size
    assert sorted(os.listdir(bucket / "a")) == ["b.json", "x.safetensors"]
    with pytest.raises(UserError, match=r"gs://bucket/none\.json is missing"):
        files.read_json(_at("none.json"))
    with pytest.raises(UserError, match="is missing"):
        files.read_arrays(_at("none.safetensors"))


def test_a_lock_is_none_and_leaves_nothing(bucket: Path):
    with files.lock(_at("part"), "it"), files.lock(_at("part"), "it"):
        files.remove_drafts(_at("part"))
    assert os.listdir(bucket) == []


def test_a_store_without_its_package_is_a_message(tmp_path: Path):
    with pytest.raises(UserError, match="az://bucket/run cannot be reached"):
        manifest.check_place(places.path_of("az://bucket/run"))


def test_variables_and_a_local_copy_for_readers_that_know_no_store(bucket: Path):
    compress.save_variables("gs://bucket/w.safetensors", {"params": {"a": np.ones((2, 3), np.float32)}})
    assert compress.load_variables("gs://bucket/w.safetensors")["params"]["a"].shape == (2, 3)
    with places.local(_at("w.safetensors")) as copy:
        assert copy.read_bytes() == (bucket / "w.safetensors").read_bytes()
    assert not copy.exists()
    with places.local(bucket / "w.safetensors") as same:
        assert same == bucket / "w.safetensors"


def test_lines_are_kept_and_the_object_is_written_anew(bucket: Path):
    lines = files.appender(_at("x.jsonl"))
    lines.write(b"1\n")
    assert (bucket / "x.jsonl").read_text() == "1\n"
    lines.write(b"2\n")  # too soon after the first
    assert (bucket / "x.jsonl").read_text() == "1\n"
    lines.write(b"3\n")
    lines.flush()
    assert (bucket / "x.jsonl").read_text() == "1\n2\n3\n"
    before = (bucket / "x.jsonl").stat().st_mtime_ns
    lines.close()
    assert (bucket / "x.jsonl").stat().st_mtime_ns == before  # nothing was left to write
    more = files.appender(_at("x.jsonl"))
    more.write(b"4\n")
    more.close()
    assert (bucket / "x.jsonl").read_text() == "1\n2\n3\n4\n"


def test_metrics_go_on_in_a_store_and_events_are_left_out_with_a_warning(bucket: Path):
    values = {key: np.ones(2, np.float32) for key in ("loss", "gradient_norm")}
    with pytest.warns(UserWarning, match="no TensorBoard events in gs://bucket/part"):
        log = MetricsLog(_at("part"), every=1, steps=4, start=0)
    log.add(0, values)
    log.close()
    with pytest.warns(UserWarning):
        log = MetricsLog(_at("part"), every=1, steps=4, start=1)  # step 2 is dropped and done again
    log.add(1, values)
    log.close()
    assert [line["step"] for line in metrics.read(_at("part/metrics.jsonl"))] == [1, 2, 3]


def test_metrics_and_record_of_a_checkpoint_are_in_the_store_before_it(bucket: Path):
    """A kill right after it costs neither."""
    state = TrainState(np.uint32(3), {"w": np.ones(2, np.float32)}, {}, {}, {}, {})
    with pytest.warns(UserWarning, match="no TensorBoard events"):
        log = MetricsLog(_at("part"), every=1, steps=9, start=0)
    book = record.Record(_at("part"), (("params/w", "float32[2]"),), {}, start=0)
    for step in (1, 2, 3):
        log.write(step, {"loss": 1.0})
        book.add(np.full((1, 1), step, np.uint32))
    book.digest(state, 1.0)
    assert len(record.read(_at("part")).rows) < 3
    log.sync()
    book.sync()
    assert [line["step"] for line in metrics.read(_at("part/metrics.jsonl"))] == [1, 2, 3]
    kept = record.read(_at("part"))
    assert kept.rows[:, 0].tolist() == [1, 2, 3] and [line["step"] for line in kept.lines] == [3]
    book.close()
    log.close()


def test_a_manifest_is_opened_and_compared(bucket: Path, tiny: Any):
    config = configs.resolve(tiny.config())
    dataset = open_dataset(config.data)
    manifest.check_place(_at("run"))
    manifest.open_run(_at("run"), config, dataset)
    manifest.open_run(_at("run"), config, dataset)
    with pytest.raises(UserError, match=r"graph\.k: 8 -> 4"):
        manifest.open_run(_at("run"), configs.resolve(tiny.config(graph__k=4)), dataset)
    assert manifest.read(_at("run"))[1] == json.loads((bucket / "run" / "manifest.json").read_text())
    with pytest.raises(UserError, match="there is no folder gs://bucket/nothing"):
        manifest.read(_at("nothing"))
    (bucket / "other").mkdir()
    (bucket / "other" / "x.txt").write_text("")
    with pytest.raises(UserError, match=r"gs://bucket/other is not empty and holds no run \(x\.txt\)"):
        manifest.check_place(_at("other"))


def test_a_finished_run_is_read_reported_and_evaluated_there(bucket: Path, done: Any):
    shutil.copytree(done.workdir, bucket / "run")
    shutil.rmtree(bucket / "run" / "report")
    assert run.report("gs://bucket/run") == done.summary
    there = {path.name for path in (bucket / "run" / "report").iterdir()}
    assert there == {path.name for path in (done.workdir / "report").iterdir()}
    assert run.graph("check", "gs://bucket/run").endswith(f"({done.summary['graph']['sha256']})")
    assert run.graph("export", "gs://bucket/run", to="gs://bucket/graph.json") == "wrote gs://bucket/graph.json"
    assert run.evaluate("gs://bucket/run", "kd/0")["accuracy"] is not None


def test_a_graph_is_stored_and_loaded(bucket: Path, done: Any):
    graph = store.load(done.workdir / "replicates" / "0" / "graph")
    store.save(graph, "gs://bucket/graph")
    assert store.load("gs://bucket/graph").digest == graph.digest
    data = bytearray((bucket / "graph" / "arrays.safetensors").read_bytes())
    data[-3] ^= 1
    (bucket / "graph" / "arrays.safetensors").write_bytes(data)
    with pytest.raises(UserError, match=r"gs://bucket/graph/arrays\.safetensors: array .* is not what was saved"):
        store.load("gs://bucket/graph")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Image folders of two splits and two classes."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for index in range(2):
                Image.fromarray(rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)).save(folder / f"{index}.png")
    return tmp_path / "pictures"


def _data(source: str, path: str) -> Any:
    config = configs.default().data
    config.update(source=source, path=path)
    return config


@pytest.mark.parametrize("form", ["folder", "tar", "gztar"])
def test_images_in_a_store_are_those_on_the_disk(bucket: Path, pictures: Path, form: str):
    place = "set"
    if form == "folder":
        shutil.copytree(pictures, bucket / "set")
    else:
        place = Path(shutil.make_archive(str(bucket / "set"), form, pictures)).name
    here = open_dataset(_data("images", str(pictures)))
    there = open_dataset(_data("images", f"gs://bucket/{place}"))
    assert there.fingerprint == here.fingerprint
    index = np.arange(4)
    assert np.array_equal(there.train.images(index), here.train.images(index))
    with pytest.raises(UserError, match="there is no gs://bucket/none"):
        open_dataset(_data("images", "gs://bucket/none"))


def test_arrays_and_views_in_a_store_are_those_on_the_disk(bucket: Path, tmp_path: Path):
    arrays = {
        f"{s}_{w}": np.zeros((4, 5, 5), np.uint8) if w == "images" else np.array([0, 1, 0, 1])
        for s in ("train", "test")
        for w in ("images", "labels")
    }
    np.savez(bucket / "set.npz", **arrays)
    np.savez(bucket / "view.npz", ids=np.array(["a", "b"]), features=np.eye(2, dtype=np.float32))
    (bucket / "edges.csv").write_text("source,target,weight\na,b,0.5\n")
    assert len(open_dataset(_data("npz", "gs://bucket/set.npz")).train) == 4
    assert np.array_equal(views.file_view("gs://bucket/view.npz", ["a", "b"], 1), np.eye(2))
    assert views.file_view("gs://bucket/edges.csv", ["a", "b"], 1).ids.tolist() == [[1], [-1]]
