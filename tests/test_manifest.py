"""The manifest: what makes two runs the same run."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from jkd import config as configs
from jkd import files, manifest
from jkd.data import DataSet, open_dataset
from jkd.errors import UserError


@pytest.fixture(scope="module")
def dataset(tiny: Any) -> DataSet:
    return open_dataset(tiny.config().data)


def _open(workdir: Path, config: Any, dataset: DataSet) -> dict[str, Any]:
    manifest.open_run(workdir, configs.resolve(config), dataset)
    return json.loads((workdir / "manifest.json").read_text())


def test_it_holds_config_versions_and_data_and_reads_back(tiny: Any, dataset: DataSet, tmp_path: Path):
    written = _open(tmp_path / "run", tiny.config(), dataset)
    assert {"python", "jkd", "jax", "flax"} <= set(written["versions"])
    assert written["data"]["fingerprint"] == dataset.fingerprint and written["data"]["train"] == 300
    assert written["differs"]["graph.folds"] == 2 and "graph.k" not in written["differs"]
    config, whole = manifest.read(tmp_path / "run")
    assert configs.as_dict(config) == configs.as_dict(configs.resolve(tiny.config())) and whole == written


def test_the_same_run_leaves_it_untouched(tiny: Any, dataset: DataSet, tmp_path: Path):
    _open(tmp_path, tiny.config(), dataset)
    before = (tmp_path / "manifest.json").stat().st_mtime_ns
    _open(tmp_path, tiny.config(), dataset)
    assert (tmp_path / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": (0, 1, 2)},
        {"replicates": 5},
        {"report__cards": 3},
        {"name": "other"},
        {"devices": 0},
        {"data__workers": 2},
        {"students__more": {"objective": {"kd": 1.0}}},
        {"students__kd__objective__kd": 0.5},  # not begun yet
    ],
)
def test_what_only_adds_to_a_run_is_taken_in(tiny: Any, dataset: DataSet, tmp_path: Path, changes: dict[str, Any]):
    _open(tmp_path, tiny.config(), dataset)
    config = tiny.config(**changes)
    assert _open(tmp_path, config, dataset)["config"] == configs.as_dict(configs.resolve(config))


def test_a_student_that_has_begun_keeps_its_settings(tiny: Any, dataset: DataSet, tmp_path: Path):
    _open(tmp_path, tiny.config(), dataset)
    before = (tmp_path / "manifest.json").read_bytes()
    (tmp_path / "replicates" / "1" / "students" / "kd" / "0").mkdir(parents=True)
    with pytest.raises(UserError, match=r"students\.kd\.width: 16 -> 8\. .* name of its own") as caught:
        _open(tmp_path, tiny.config(students__kd={"objective": {"kd": 0.9, "cross_entropy": 0.1}, "width": 8}), dataset)
    assert "depth" not in str(caught.value)
    assert (tmp_path / "manifest.json").read_bytes() == before
    without = tiny.config()
    del without.students["kd"]
    _open(tmp_path, without, dataset)  # a student may go


def test_other_data_is_another_run(tiny: Any, dataset: DataSet, tmp_path: Path):
    _open(tmp_path, tiny.config(), dataset)
    with pytest.raises(UserError, match=r"a run on other data \(digits\)"):
        _open(tmp_path, tiny.config(), open_dataset(tiny.config(data__limit=299).data))


def test_a_place_that_others_are_about_to_use_is_free(tiny: Any, dataset: DataSet, tmp_path: Path):
    """The lock and the draft of a process that starts the same run are no reason to refuse."""
    (tmp_path / ".lock").write_text("")
    (tmp_path / ".manifest.json.host.1.tmp").write_text("{")
    assert _open(tmp_path, tiny.config(), dataset)["name"] == "tiny"


def test_processes_that_start_together_do_not_refuse_each_other(tiny: Any, dataset: DataSet, tmp_path: Path):
    errors: list[BaseException] = []

    def start() -> None:
        try:
            barrier.wait()
            _open(tmp_path / "run", tiny.config(), dataset)
        except BaseException as error:
            errors.append(error)

    barrier = threading.Barrier(4)
    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


@pytest.mark.parametrize("text", ["{", "[]", '{"config": 3}'])
def test_a_manifest_of_something_else_is_refused(tmp_path: Path, text: str):
    (tmp_path / "manifest.json").write_text(text)
    for look in (manifest.check_place, manifest.read):
        with pytest.raises(UserError, match=r"manifest\.json is not"):
            look(tmp_path)
    assert (tmp_path / "manifest.json").read_text() == text


def test_the_data_may_move(tiny: Any, dataset: DataSet, tmp_path: Path):
    _open(tmp_path, tiny.config(), dataset)
    assert _open(tmp_path, tiny.config(data__path="elsewhere"), dataset)["config"]["data"]["path"] == "elsewhere"
    assert files.read_json(tmp_path / "manifest.json")["data"]["fingerprint"] == dataset.fingerprint
