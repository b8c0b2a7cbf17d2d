"""The manifest: what makes two runs the same run."""

import hashlib
import json
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

from jkd import changes, digest, files, manifest, sharding
from jkd import config as configs
from jkd.data import DataSet, open_dataset
from jkd.environment import describe_environment
from jkd.errors import Notice, UserError


@pytest.fixture(scope="module")
def dataset(tiny: Any) -> DataSet:
    return open_dataset(tiny.config().data)


def _open(workdir: Path, config: Any, dataset: DataSet, allow: tuple[str, ...] = ()) -> dict[str, Any]:
    manifest.open_run(workdir, configs.resolve(config), dataset, allow=allow)
    return json.loads((workdir / "manifest.json").read_text())


def test_it_holds_config_versions_and_data_and_reads_back(tiny: Any, dataset: DataSet, tmp_path: Path):
    written = _open(tmp_path / "run", tiny.config(), dataset)
    assert {"python", "jkd", "jax", "flax"} <= set(written["environment"]["versions"])
    assert written["data"]["fingerprint"] == dataset.fingerprint and written["data"]["train"] == 300
    assert written["differs"]["graph.folds"] == 2 and "graph.k" not in written["differs"]
    assert written["seeds"] == {"teacher": 0, "students": [0, 1], "replicates": 2}
    assert written["arithmetic"]["reduction"] == "plain" and written["arithmetic"]["dtypes"]["students.kd"] == "float32"
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


def test_an_allowed_change_is_recorded_and_from_then_on_the_runs(tiny: Any, dataset: DataSet, tmp_path: Path):
    _open(tmp_path, tiny.config(), dataset)
    changed = tiny.config(graph__k=4, teacher__train__batch=8)
    with pytest.raises(UserError, match=r"--allow-change=graph\.k --allow-change=teacher\.train\.batch"):
        _open(tmp_path, changed, dataset)
    with pytest.raises(UserError, match=r"differs in graph\.k: 8 -> 4\. .* give --allow-change=graph\.k\."):
        _open(tmp_path, changed, dataset, ("teacher.train",))
    written = _open(tmp_path, changed, dataset, ("graph.k", "teacher.train"))
    recorded = [
        {"key": "graph.k", "old": 8, "new": 4},
        {"key": "teacher.train.batch", "old": 16, "new": 8},
    ]
    assert written["changes"] == recorded and written["config"]["graph"]["k"] == 4
    assert _open(tmp_path, changed, dataset) == written  # without the flag
    allowed = manifest.open_run(tmp_path, configs.resolve(changed), dataset)
    assert "graph.k" in allowed and "teacher.train.batch" in allowed and "teacher.train.steps" not in allowed
    with pytest.raises(UserError, match=r"graph\.k: 4 -> 5"):  # allowed once is not allowed for ever
        _open(tmp_path, tiny.config(graph__k=5, teacher__train__batch=8), dataset)


def test_a_setting_that_goes_back_and_forth_is_recorded_each_time(tiny: Any, dataset: DataSet, tmp_path: Path):
    for k in (8, 4, 8, 4):
        written = _open(tmp_path, tiny.config(graph__k=k), dataset, ("graph.k",))
        assert _open(tmp_path, tiny.config(graph__k=k), dataset) == written
    assert [(change["old"], change["new"]) for change in written["changes"]] == [(8, 4), (4, 8), (8, 4)]


def test_the_devices_that_compute_for_an_elastic_run_are_counted(tiny: Any, dataset: DataSet):
    def devices(**changes: Any) -> dict[str, Any]:
        config = configs.resolve(tiny.config(reduction="elastic", **changes))
        return manifest.describe(config, dataset, sharding.one_device())["environment"]["devices"]

    one = {f"{which}__train__steps_per_call": 1 for which in ("teacher", "student")}
    there = devices(devices=0, shards=8, **one)
    assert (there["count"], there["mesh"], there["computing"]) == (1, {"data": 1}, 4)
    assert devices(devices=0, shards=2, **one)["computing"] == 2
    assert devices(devices=3, shards=8, **one)["computing"] == 3
    assert devices(devices=0, shards=8)["computing"] == 1  # with several steps a call, all are one device's


@pytest.mark.parametrize("changes", [{"data__pool": 100}, {"teacher__width": 8}, {"graph__views": ("teacher",)}])
def test_what_parts_could_not_be_read_with_can_never_change(
    tiny: Any, dataset: DataSet, tmp_path: Path, changes: dict[str, Any]
):
    _open(tmp_path, tiny.config(), dataset)
    key = next(iter(changes)).replace("__", ".")
    with pytest.raises(UserError, match=f"{key}: .* Choose another --workdir") as caught:
        _open(tmp_path, tiny.config(**changes), dataset, (key, key.split(".")[0]))
    assert "--allow-change" not in str(caught.value)


@pytest.mark.parametrize(("key", "meant"), [("student.train.bacth", "student.train.batch"), ("environment.cup", "cpu")])
def test_a_key_that_there_is_not_cannot_be_allowed(tiny: Any, dataset: DataSet, tmp_path: Path, key: str, meant: str):
    with pytest.raises(UserError, match=f"--allow-change={key}: there is no such key.* '.*{meant}'"):
        _open(tmp_path, tiny.config(), dataset, (key,))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the next environments differ: `elsewhere(**{"versions.jax": "9"})`."""

    def move(**changes: Any) -> None:
        def described(*of: Any) -> Any:
            found = describe_environment(*of)
            for path, value in changes.items():
                group, _, key = path.partition(".")
                found[group] = {**found[group], key: value} if key else value
            return found

        monkeypatch.setattr(manifest, "describe_environment", described)

    return move


def test_another_environment_is_refused_by_name_or_recorded(
    tiny: Any, dataset: DataSet, tmp_path: Path, elsewhere: Any
):
    before = _open(tmp_path, tiny.config(), dataset)
    elsewhere(**{"versions.jax": "9.9", "threads.pool": 96, "cpu.model": "another"})
    with pytest.raises(UserError) as caught:
        _open(tmp_path, tiny.config(), dataset)
    assert "another environment" in str(caught.value) and "The version of jax was '" in str(caught.value)
    assert "--allow-change=environment.threads.pool --allow-change=environment.versions.jax" in str(caught.value)
    after = _open(tmp_path, tiny.config(), dataset, ("environment",))
    assert [change["key"] for change in after["changes"]] == ["environment.threads.pool", "environment.versions.jax"]
    assert after["environment"]["versions"]["jax"] == "9.9" and before["changes"] == []
    assert _open(tmp_path, tiny.config(), dataset) == after


def test_what_does_not_move_bits_leaves_the_manifest_as_it_was(
    tiny: Any, dataset: DataSet, tmp_path: Path, elsewhere: Any
):
    before = _open(tmp_path, tiny.config(), dataset)
    elsewhere(**{"cpu.model": "another"})
    assert _open(tmp_path, tiny.config(), dataset) == before


def test_another_source_is_told_and_recorded_with_its_patch(
    tiny: Any, dataset: DataSet, tmp_path: Path, elsewhere: Any, monkeypatch: pytest.MonkeyPatch
):
    def edit(text: bytes) -> None:
        sha = hashlib.sha256(text).hexdigest()
        monkeypatch.setattr(manifest, "source", lambda: {"commit": "c", "patch": sha, "whole": True, "text": text})
        elsewhere(source={"commit": "c", "patch": sha, "whole": True})

    edit(b"first")
    written = _open(tmp_path, tiny.config(), dataset)
    assert digest.of_file(tmp_path / "source.patch") == written["environment"]["source"]["patch"]
    edit(b"second")
    for _ in range(2):  # with --strict it ends each time, and nothing is recorded
        with warnings.catch_warnings(), pytest.raises(Notice, match="the source of jkd is not what"):
            warnings.simplefilter("error", Notice)
            _open(tmp_path, tiny.config(), dataset)
    with pytest.warns(UserWarning, match="the source of jkd is not what"):
        after = _open(tmp_path, tiny.config(), dataset)
    assert [change["key"] for change in after["changes"]] == ["environment.source"]
    later = tmp_path / f"source-{after['environment']['source']['patch'][:12]}.patch"
    assert later.read_bytes() == b"second" and (tmp_path / "source.patch").read_bytes() == b"first"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _open(tmp_path, tiny.config(), dataset) == after


def test_digests_of_teachers_and_graphs_are_added_and_the_runs_own_stays(tiny: Any, dataset: DataSet, tmp_path: Path):
    before = _open(tmp_path, tiny.config(), dataset)
    for part, result in (("0/teacher", {"params": "a"}), ("0/graph", {"sha256": "b"}), ("1/teacher", {"params": "c"})):
        files.write_signed(tmp_path / "replicates" / part / "result.json", result)
    manifest.record_parts(tmp_path)
    after = files.read_json(tmp_path / "manifest.json")
    table = {"replicates/0/teacher": "a", "replicates/0/graph": "b", "replicates/1/teacher": "c"}
    assert after == before | {"parts": digest.signed(table)} and manifest.read(tmp_path)[1] == after
    assert _open(tmp_path, tiny.config(), dataset) == after
    assert _open(tmp_path, tiny.config(graph__k=4), dataset, ("graph.k",))["parts"] == after["parts"]
    files.write_json(tmp_path / "manifest.json", after | {"parts": after["parts"] | {"replicates/0/graph": "other"}})
    with pytest.raises(UserError, match=r"manifest\.json is not what was saved"):
        manifest.read(tmp_path)


def test_a_manifest_that_was_edited_is_refused(tiny: Any, dataset: DataSet, tmp_path: Path):
    written = _open(tmp_path, tiny.config(), dataset)
    written["config"]["graph"]["k"] = 4
    files.write_json(tmp_path / "manifest.json", written)
    with pytest.raises(UserError, match=r"manifest\.json is not what was saved"):
        manifest.read(tmp_path)


def test_other_data_is_another_run(tiny: Any, dataset: DataSet, tmp_path: Path):
    _open(tmp_path, tiny.config(), dataset)
    with pytest.raises(UserError, match=r"a run on other data \(digits\)"):
        _open(tmp_path, tiny.config(), open_dataset(tiny.config(data__limit=299).data))


def test_a_place_that_others_are_about_to_use_is_free(tiny: Any, dataset: DataSet, tmp_path: Path):
    """The lock and the draft of a process that starts the same run are no reason to refuse."""
    (tmp_path / ".lock").write_text("")
    (tmp_path / ".manifest.json.host.1.tmp").write_text("{")
    (tmp_path / "source.patch").write_text("")
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


@pytest.mark.fault(20)
@pytest.mark.parametrize("finished", [True, False])
def test_what_is_half_trained_goes_on_with_its_own_source_alone(
    tiny: Any, dataset: DataSet, tmp_path: Path, elsewhere: Any, finished: bool
):
    written = _open(tmp_path, tiny.config(), dataset)
    part = tmp_path / "replicates/0/students/kd/0"
    (part / "checkpoints").mkdir(parents=True)
    (part / "checkpoints/20.json").write_text("{}")
    if finished:
        (part / "result.json").write_text("{}")
    elsewhere(package="another")
    if not finished:
        said = rf"another source of jkd, and is not finished, in {part.relative_to(tmp_path)}\. .*{changes.PACKAGE}\."
        with pytest.raises(UserError, match=said):
            _open(tmp_path, tiny.config(), dataset)
        assert files.read_json(tmp_path / "manifest.json") == written
    with pytest.warns(UserWarning, match="the source of jkd is not what"):
        after = _open(tmp_path, tiny.config(), dataset, () if finished else (changes.PACKAGE,))
    assert [change["key"] for change in after["changes"]] == [changes.PACKAGE]


@pytest.mark.parametrize(
    ("group", "change"), [("cpu", {"isa": ["avx"]}), ("variables", {"NVIDIA_TF32_OVERRIDE": "1"}), ("package", "x")]
)
def test_processes_must_agree_in_all_that_moves_bits(
    tiny: Any, dataset: DataSet, group: str, change: Any, monkeypatch: pytest.MonkeyPatch
):
    config = configs.resolve(tiny.config(reduction="elastic", shards=4))
    ours = manifest.same_everywhere(config, dataset)
    here = describe_environment()
    there = here | {group: here[group] | change if isinstance(change, dict) else change}
    monkeypatch.setattr(manifest, "describe_environment", lambda: there)
    assert manifest.same_everywhere(config, dataset) != ours
    others = here | {"cpu": here["cpu"] | {"model": "another of the same kind"}}
    monkeypatch.setattr(manifest, "describe_environment", lambda: others)
    assert manifest.same_everywhere(config, dataset) == ours
