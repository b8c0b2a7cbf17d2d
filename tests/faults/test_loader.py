"""Loader processes that are killed, hang or lose their parent: the order stays, or the run ends in one message."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jkd.data import Images, batches
from jkd.data import workers as loader
from jkd.errors import UserError

HERE = str(Path(__file__).parent)
SUBSET = np.arange(64, dtype=np.int32)


@pytest.fixture
def trap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """`trap(what, at)`: a source that springs it in a loader process."""
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([HERE, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(loader, "STARTING", 10.0)
    import hostile_sources

    return lambda what, at, always=False: hostile_sources.Trap(what, at, str(tmp_path), always)


INPUTS = {"input": Images((1, 1, 1), (0.5,), (0.5,))}


def _stream(source: Any, **options: Any) -> Any:
    """Two epochs of 16 chunks of a step."""
    return batches(source, SUBSET, source.labels, inputs=INPUTS, batch=4, steps=32, seed=0, replicate=0, **options)


def _ids(stream: Any) -> list[int]:
    return [int(node) for chunk in stream for node in chunk["node"].reshape(-1)]


@pytest.mark.fault(17)
@pytest.mark.parametrize("what", ["kill", pytest.param("crash", marks=pytest.mark.slow)])
def test_a_killed_process_is_found_in_5_seconds_and_the_order_stays(trap: Any, what: str):
    order = _ids(_stream(trap("none", -1)))
    begun = time.monotonic()
    with pytest.warns(UserWarning, match=r"loader process .*was killed by SIG\w+; .* started again at step \d+"):
        assert _ids(_stream(trap(what, 9), workers=2)) == order
    assert time.monotonic() - begun < 15  # two starts of processes, too
    assert multiprocessing.active_children() == []


@pytest.mark.fault(17)
@pytest.mark.slow
def test_a_process_killed_from_outside_while_it_waits_is_replaced(trap: Any):
    order = _ids(_stream(trap("none", -1)))
    stream = _stream(trap("none", -1), workers=1)
    seen = [next(stream) for _ in range(3)]
    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGKILL)
    killed = time.monotonic()
    with pytest.warns(UserWarning, match="was killed by SIGKILL"):
        while len(seen) < 10:
            before = time.monotonic()
            seen.append(next(stream))
            slow = time.monotonic() - before
            assert slow < 5 + 5  # found in 5 seconds, and a new one started
    assert time.monotonic() - killed < 12
    assert _ids([*seen, *stream]) == order


@pytest.mark.fault(17)
def test_a_process_that_dies_again_at_the_same_chunk_ends_the_run_in_one_message(trap: Any):
    with (
        pytest.warns(UserWarning, match="started again"),
        pytest.raises(UserError, match=r"loader process .*was killed by SIGKILL again, at step \d+\. .*data.workers=0"),
    ):
        _ids(_stream(trap("kill", 9, always=True), workers=1))
    assert multiprocessing.active_children() == []


@pytest.mark.fault(16)
@pytest.mark.parametrize("what", [pytest.param("stop", marks=pytest.mark.slow), "sleep"])
def test_a_hung_process_is_replaced_after_the_timeout(trap: Any, what: str, capfd: pytest.CaptureFixture[str]):
    order = _ids(_stream(trap("none", -1)))
    with pytest.warns(UserWarning, match=r"loader process [\d, ]+ sent nothing for 2 s \(data.timeout\); .* at step"):
        assert _ids(_stream(trap(what, 33), workers=2, timeout=2.0)) == order
    assert multiprocessing.active_children() == []
    if what == "sleep":
        assert "hostile_sources.py" in capfd.readouterr().err  # it said where


@pytest.mark.fault(16)
@pytest.mark.slow
def test_a_process_that_hangs_again_ends_the_run_in_one_message(trap: Any):
    with (
        pytest.warns(UserWarning, match="started again"),
        pytest.raises(UserError, match=r"sent nothing for \d s \(data.timeout\) again, at step 1\. .*data.timeout"),
    ):
        first = _ids(_stream(trap("none", -1)))[0]
        loader.STARTING = 3.0
        _ids(_stream(trap("stop", first, always=True), workers=1, timeout=3.0))
    assert multiprocessing.active_children() == []


PARENT = """
import multiprocessing, sys, time
import numpy as np
from jkd.data import Images, batches
from hostile_sources import Trap
if __name__ == "__main__":
    source = Trap("none", -1, "")
    options = dict(batch=4, steps=10**6, seed=0, replicate=0, workers=2)
    inputs = {"input": Images((1, 1, 1), (0.5,), (0.5,))}
    stream = batches(source, np.arange(64, dtype=np.int32), source.labels, inputs=inputs, **options)
    for number in range(int(sys.argv[1])):
        next(stream)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    if sys.argv[2] == "wait":
        time.sleep(3600)
"""


def _parent(root: Path, folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    (folder / "parent.py").write_text(PARENT)
    path = os.pathsep.join([HERE, str(root)])
    command = [sys.executable, str(folder / "parent.py"), *arguments]
    streams = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, **streams)


@pytest.mark.fault(17)
def test_processes_whose_parent_was_killed_end_by_themselves(root: Path, tmp_path: Path):
    parent = _parent(root, tmp_path, "5", "wait")
    children = [int(number) for number in parent.stdout.readline().split()]
    assert len(children) == 2 and all(_there(child) for child in children)
    parent.send_signal(signal.SIGKILL)
    parent.communicate(timeout=20)
    deadline = time.monotonic() + 8
    while any(_there(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [child for child in children if _there(child)]


@pytest.mark.fault(17)
def test_a_stream_left_open_at_exit_leaves_no_memory_and_no_words(root: Path, tmp_path: Path):
    before = set(Path("/dev/shm").iterdir()) if Path("/dev/shm").is_dir() else set()
    parent = _parent(root, tmp_path, "5", "leave")
    children, errors = parent.communicate(timeout=60)
    assert parent.returncode == 0 and errors == ""
    assert not [child for child in children.split() if _there(int(child))]
    if before:
        left = {path.name for path in set(Path("/dev/shm").iterdir()) - before}
        assert not [name for name in left if name.startswith(("psm_", "sem.mp"))]


def _there(process: int) -> bool:
    """Whether a process lives; one that ended and that nobody has asked for does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
