"""A run that goes on under a changed setting: only by name, and the parts say so."""

from pathlib import Path
from typing import Any

import pytest

from jkd import cli, digest, files, manifest, parts, replay, run
from jkd.environment import describe_environment
from jkd.errors import UserError
from jkd.parts import part

KD = {"objective": {"cross_entropy": 0.1, "kd": 0.9}}
CHANGE = {"key": "students.kd.train.batch", "old": 16, "new": 8}


@pytest.fixture
def unfinished(copied: Path) -> Path:
    """A finished run but for kd/0 of replicate 0, which stands at its checkpoint of step 20."""
    folder = parts.Place(copied, 0).student("kd", 0)
    for path in folder.iterdir():
        if path.name in ("result.json", "variables.safetensors", "predictions.safetensors"):
            path.unlink()
    assert (folder / "checkpoints" / "20.json").exists()
    return copied


def test_it_goes_on_by_name_only_and_finished_parts_stay(tiny: Any, unfinished: Path):
    place = parts.Place(unfinished, 0)
    finished = (place.student("kd", 1) / "result.json").read_bytes()
    config = tiny.config(students__kd=KD | {"train": {"batch": 8}})
    with pytest.raises(UserError, match=r"batch: 16 -> 8.* give --allow-change=students\.kd\.train\.batch"):
        run.distill(config, unfinished, only="kd", quiet=True)
    run.distill(config, unfinished, only="kd", quiet=True, allow_change=["student.train"])
    result = files.read_json(place.student("kd", 0) / "result.json")
    assert result["changes"] == [{"step": 20} | CHANGE] and result["made_of"]["network"]["train"]["batch"] == 8
    assert (place.student("kd", 1) / "result.json").read_bytes() == finished
    run.distill(config, unfinished, only="kd", quiet=True)  # the manifest knows by now
    assert files.read_json(unfinished / "manifest.json")["changes"] == [CHANGE]
    summary = run.report(unfinished)
    assert summary["parts"]["replicates/0/students/kd/0"]["changes"] == result["changes"]
    assert set(summary["parts"]["replicates/1/graph"]) == {"inputs", "sha256"}
    assert summary["manifest"] == files.read_json(unfinished / "manifest.json")["digest"]


def test_checkpoints_after_a_change_remember_it(tiny: Any, unfinished: Path):
    config = tiny.config(students__kd=KD | {"train": {"batch": 8, "checkpoint_every": 10}})
    run.distill(config, unfinished, only="kd/0", replicate=0, quiet=True, allow_change=["students.kd.train"])
    sidecar = files.read_json(parts.Place(unfinished, 0).student("kd", 0) / "checkpoints" / "30.json")
    keys = [change["key"].removeprefix("students.kd.train.") for change in sidecar["changes"]]
    assert keys == ["batch", "checkpoint_every"] and {change["step"] for change in sidecar["changes"]} == {20}


def test_when_something_is_written_moves_no_bit_of_a_replay(tiny: Any, unfinished: Path, done: Any):
    times = {"log_every": 3, "digest_every": 7, "checkpoint_every": 10}
    config = tiny.config(students__kd=KD | {"train": times})
    run.distill(config, unfinished, only="kd/0", replicate=0, quiet=True)  # nor has it to be allowed
    assert len(files.read_json(parts.Place(unfinished, 0).student("kd", 0) / "result.json")["changes"]) == 3
    for against in ("", done.workdir):
        (found,) = replay.replay(unfinished, student="kd/0", replicate=0, quiet=True, against=against)
        assert found.code == replay.SAME and found.outcome and found.outcome.rows == 40, str(found)


def test_fewer_steps_than_are_done_are_no_change_to_allow(tiny: Any, unfinished: Path):
    config = tiny.config(students__kd=KD | {"train": {"steps": 10}})
    with pytest.raises(UserError, match=r"students\.kd\.train: 10 steps, but .* a checkpoint of step 20"):
        run.distill(config, unfinished, only="kd/0", replicate=0, quiet=True, allow_change=["students.kd.train.steps"])


def test_another_environment_computes_nothing_but_reads(tiny: Any, unfinished: Path, monkeypatch: pytest.MonkeyPatch):
    def elsewhere(*of: Any) -> Any:
        found = describe_environment(*of)
        return found | {"devices": found["devices"] | {"kind": "another"}}

    for module in (manifest, part):
        monkeypatch.setattr(module, "describe_environment", elsewhere)
    with pytest.raises(
        UserError, match=r"The devices' kind was 'cpu' and is 'another'\. .*=environment\.devices\.kind"
    ):
        run.distill(tiny.config(), unfinished, only="kd", quiet=True)
    assert run.evaluate(unfinished, "kd/1")["accuracy"]
    run.distill(tiny.config(), unfinished, only="kd", quiet=True, allow_change=["environment.devices"])
    (change,) = files.read_json(unfinished / "manifest.json")["changes"]
    assert change == {"key": "environment.devices.kind", "old": "cpu", "new": "another"}
    resumed, finished = (
        files.read_json(parts.Place(unfinished, 0).student("kd", seed) / "result.json") for seed in (0, 1)
    )
    assert resumed["changes"] == [{"step": 20} | change] and "changes" not in finished
    kinds = [result["made_of"]["environment"]["devices"]["kind"] for result in (resumed, finished)]
    assert kinds == ["another", "cpu"] and resumed["inputs"] == digest.of_json(
        {key: value for key, value in resumed["made_of"].items() if key != "environment"}
    )


@pytest.mark.parametrize("verb", [["distill"], ["graph", "build"]])
def test_the_flag_can_be_given_several_times(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: list[str]
):
    given: dict[str, Any] = {}
    monkeypatch.setattr(run, "distill", lambda *of, **options: given.update(options))
    monkeypatch.setattr(run, "graph", lambda *of: "")
    flags = ["--allow-change=graph.k", "--allow-change", "environment.versions.jax"]
    assert cli.main([*verb, f"--config={tiny.file}", f"--workdir={tmp_path}", *flags]) == 0
    assert given["allow_change"] == ["graph.k", "environment.versions.jax"]
