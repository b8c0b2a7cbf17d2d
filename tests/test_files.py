"""Atomic writes and locks."""

import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jkd import files
from jkd.errors import Damaged, Locked, UserError


def test_json_is_written_whole_and_leaves_no_draft(tmp_path: Path):
    files.write_json(tmp_path / "a" / "b.json", {"é": 1})
    assert files.read_json(tmp_path / "a" / "b.json") == {"é": 1}
    assert os.listdir(tmp_path / "a") == ["b.json"]


@pytest.mark.fault(5)
def test_a_failed_write_keeps_the_old_file(tmp_path: Path):
    path = tmp_path / "x.json"
    files.write_json(path, {"old": 1})
    with pytest.raises(ValueError):
        files.write_json(path, {"new": float("nan")})
    assert files.read_json(path) == {"old": 1}


@pytest.mark.parametrize(("content", "word"), [(b"{", "not valid JSON"), (b"\xff\xfe", "not valid JSON")])
def test_broken_json_names_the_file(tmp_path: Path, content: bytes, word: str):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=word):
        files.read_json(tmp_path / "x.json")


@pytest.mark.fault(22)
def test_a_key_that_comes_up_twice_among_many_is_named_at_once(tmp_path: Path):
    keys = ", ".join(f'"{number}": 0' for number in [*range(60_000), 59_999])
    (tmp_path / "x.json").write_text(f"{{{keys}}}")
    begun = time.monotonic()
    with pytest.raises(Damaged, match=r"x\.json is not valid JSON \(the key '59999' comes up twice\)"):
        files.read_json(tmp_path / "x.json")
    assert time.monotonic() - begun < 5


def test_a_path_below_a_file_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the folder"):
        files.write_json(tmp_path / "file" / "x.json", 1)


def test_arrays_round_trip_and_text_is_refused(tmp_path: Path):
    files.write_arrays(tmp_path / "a.safetensors", {"x": np.arange(6, dtype=np.int32).reshape(2, 3).T})
    assert np.array_equal(files.read_arrays(tmp_path / "a.safetensors")["x"], np.arange(6).reshape(2, 3).T)
    (tmp_path / "t.safetensors").write_text("not tensors at all")
    with pytest.raises(UserError, match="not a readable safetensors file"):
        files.read_arrays(tmp_path / "t.safetensors")


@pytest.mark.fault(28)
def test_a_lock_held_elsewhere_is_named_and_freed_by_a_kill(tmp_path: Path):
    code = f"""
import time
from pathlib import Path
from jkd import files
with files.lock(Path({str(tmp_path)!r}), "it"):
    print("held", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(Locked, match=f"process {holder.pid}"), files.lock(tmp_path, "it"):
            pass
    finally:
        holder.kill()
        holder.wait()
    with files.lock(tmp_path, "it"):
        pass


def test_a_wait_tells_the_holder_and_ends_when_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "POLL", 0.001)
    told: list[str] = []

    def waiting(holder: str) -> None:
        told.append(holder)
        if len(told) == 3:
            raise InterruptedError

    with (
        files.lock(tmp_path, "it"),
        pytest.raises(InterruptedError),
        files.lock(tmp_path, "it", wait=True, waiting=waiting),
    ):
        pass
    assert set(told) == {f"process {os.getpid()} on {files.HOST}"}


@pytest.mark.fault(6)
def test_where_no_lock_can_be_made_the_message_says_so():
    with pytest.raises(UserError, match=r"cannot lock /proc/self/\.lock"), files.lock(Path("/proc/self"), "it"):
        pass


@pytest.mark.fault(1)
def test_drafts_of_killed_processes_go_and_nothing_else(tmp_path: Path):
    for name in (".result.json.host.1.tmp", ".lock", "result.json", "x.tmp"):
        (tmp_path / name).write_text("")
    files.remove_drafts(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".lock", "result.json", "x.tmp"]


def test_what_is_appended_is_all_there_or_refused(tmp_path: Path):
    class Short(io.FileIO):  # takes a part of what it is given, as a disk does that is nearly full
        def write(self, data: Any) -> int:
            return super().write(data[:3])

    with Short(tmp_path / "short", "w") as short:
        files.append(short, b"12345678")
    assert (tmp_path / "short").read_bytes() == b"12345678"
    if os.path.exists("/dev/full"):
        with pytest.raises(UserError, match="cannot write /dev/full: No space left on device"):
            files.append(files.appender(Path("/dev/full")), b"1")


@pytest.mark.fault(4)
@pytest.mark.parametrize("text", ["{}", "null", "[]", '{\n "a": 1E-05,\n "digest": "x"\n}\n'])
def test_what_is_signed_is_as_it_was_written_to_the_byte(tmp_path: Path, text: str):
    path = tmp_path / "it.json"
    files.write_signed(path, {"a": 1e-05})
    assert files.read_signed(path)["a"] == 1e-05
    path.write_text(text.replace('"x"', f'"{files.read_json(path)["digest"]}"'))  # a digest of equal values
    with pytest.raises(Damaged, match=r"it\.json is damaged"):
        files.read_signed(path)
