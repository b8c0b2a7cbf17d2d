"""What makes a part finished, and how its lock is waited for."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from jkd import digest, files, processes
from jkd.changes import Allowed, Inputs
from jkd.errors import Locked, UserError
from jkd.parts.part import check_steps, finished, hold
from jkd.progress import RunProgress
from jkd.train import interrupt

MADE_OF = {"network": {"width": 16, "depth": 2}, "seed": 0, "teacher": "t"}


def _inputs(made_of: dict[str, object], *allowed: str) -> Inputs:
    return Inputs.of(made_of, Allowed(allowed), {"network.": "students.kd."})


def _finish(folder: Path, made_of: dict[str, object]) -> None:
    files.write_signed(folder / "result.json", {"inputs": digest.of_json(made_of), "made_of": made_of, "steps": 0})


def test_a_folder_alone_is_no_finished_part(tmp_path: Path):
    (tmp_path / "variables.safetensors").write_bytes(b"")
    assert finished(tmp_path, _inputs(MADE_OF)) is None


def test_a_part_of_the_same_inputs_is_finished(tmp_path: Path):
    _finish(tmp_path, MADE_OF)
    result = finished(tmp_path, _inputs(dict(reversed(MADE_OF.items()))))  # the order of keys is no difference
    assert result is not None and result["made_of"] == MADE_OF


def test_a_part_of_other_inputs_is_refused_with_every_difference(tmp_path: Path):
    _finish(tmp_path, MADE_OF | {"extra": 1})
    with pytest.raises(UserError) as caught:
        finished(tmp_path, _inputs(MADE_OF | {"network": {"width": 8, "depth": 2}, "seed": 3}))
    assert "extra: 1 -> 'absent'; seed: 0 -> 3; students.kd.width: 16 -> 8." in str(caught.value)
    assert "depth" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_part_that_may_differ_stays_what_it_is(tmp_path: Path):
    old, new = MADE_OF | {"network": {"train": {"batch": 16}}}, MADE_OF | {"network": {"train": {"batch": 32}}}
    _finish(tmp_path, old)
    with pytest.raises(UserError, match=r"--allow-change=students\.kd\.train\.batch"):
        finished(tmp_path, _inputs(new))
    for allowed in ("students.kd.train.batch", "student.train", "students"):
        result = finished(tmp_path, _inputs(new, allowed))
        assert result is not None and result["made_of"] == old


def test_where_several_processes_compute_a_run_they_wait_for_a_lock_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[bool] = []

    @contextlib.contextmanager
    def lock(folder: Path, what: str, wait: bool, waiting: object) -> Iterator[None]:
        asked.append(wait)
        yield

    monkeypatch.setattr(files, "lock", lock)
    monkeypatch.setattr(processes, "wait", lambda what: None)
    for count in (1, 2):
        monkeypatch.setattr(processes, "count", lambda count=count: count)
        with RunProgress(1, quiet=True) as progress, hold(tmp_path, "it", progress, wait=False):
            pass
    assert asked == [False, True]


def test_fewer_steps_than_a_checkpoint_has_done_are_refused(tmp_path: Path):
    (tmp_path / "checkpoints" / "20").mkdir(parents=True)
    (tmp_path / "checkpoints" / "20.json").write_text("{}")
    check_steps(tmp_path, 20, "students.kd")
    with pytest.raises(UserError, match=r"students\.kd\.train: 19 steps, but .* a checkpoint of step 20"):
        check_steps(tmp_path, 19, "students.kd")


def test_a_result_without_its_variables_is_no_finished_part(tmp_path: Path):
    files.write_signed(
        tmp_path / "result.json", {"inputs": digest.of_json(MADE_OF), "made_of": MADE_OF, "steps": 9, "params": "p"}
    )
    with pytest.raises(UserError, match=r"variables\.safetensors"):
        finished(tmp_path, _inputs(MADE_OF))


@pytest.mark.parametrize("text", ["[]", "{}", "null"])
def test_a_result_that_is_none_is_refused(tmp_path: Path, text: str):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(UserError, match=r"is not the result of a part|is damaged"):
        finished(tmp_path, _inputs(MADE_OF))


def test_a_stop_is_heard_while_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(interrupt, "_received", [15])
    progress = RunProgress(1, quiet=True)
    with files.lock(tmp_path, "it"):
        with pytest.raises(interrupt.Interrupted), hold(tmp_path, "it", progress, wait=True):
            pass
        with pytest.raises(Locked), hold(tmp_path, "it", progress, wait=False):
            pass


def test_a_holder_clears_what_killed_ones_had_begun(tmp_path: Path):
    (tmp_path / ".result.json.host.1.tmp").write_text("{")
    with hold(tmp_path, "it", RunProgress(1, quiet=True), wait=False):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
