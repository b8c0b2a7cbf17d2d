"""The table of faults counts what was injected, and what failed, wherever it did."""

import json
import os
import subprocess
import sys
from pathlib import Path

TESTS = """
import pytest

@pytest.mark.fault(1)
def test_sound(tries):
    for i in range(3):
        with tries(i):
            pass

@pytest.mark.fault(2)
def test_a_try_fails(tries):
    for i in range(3):
        with tries(i):
            assert i

@pytest.mark.fault(3)
def test_fails_after_its_tries(tries):
    for i in range(3):
        with tries(i):
            pass
    assert False

@pytest.mark.fault(4)
def test_without_tries_passes():
    pass

@pytest.mark.fault(5)
def test_without_tries_fails():
    assert False

@pytest.mark.fault(7, 8)
def test_is_about_two(tries):
    with tries(0):
        pass

@pytest.mark.fault(9, 10)
def test_is_about_one_or_the_other(tries):
    for i in range(3):
        with tries(i, 9 if i else 10):
            assert i

@pytest.fixture
def breaks():
    yield
    raise OSError

@pytest.mark.fault(6)
def test_fails_when_it_is_torn_down(tries, breaks):
    with tries(0):
        pass
"""


def test_a_failure_outside_a_try_is_written_down_and_fails_the_table(root: Path, tmp_path: Path):
    (tmp_path / "test_it.py").write_text(TESTS)
    record = tmp_path / "record"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "conftest",
        "-c",
        str(root / "pyproject.toml"),
        str(tmp_path),
    ]
    path = os.pathsep.join([str(root / "tests"), str(root), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"JKD_FAULTS_RECORD": str(record), "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    counts: dict[int, list[int]] = {}
    for line in map(json.loads, record.read_text().splitlines()):
        passed, tried = counts.setdefault(line["row"], [0, 0])
        counts[line["row"]] = [passed + line["passed"], tried + line["tried"]]
    assert counts == {
        **{1: [3, 3], 2: [2, 3], 3: [3, 4], 4: [1, 1], 5: [0, 1], 6: [1, 2]},
        **{7: [1, 1], 8: [1, 1], 9: [2, 2], 10: [0, 1]},
    }
    command = [sys.executable, str(root / "tests/faults/table.py"), str(record)]
    table = subprocess.run(command, capture_output=True, text=True)
    assert table.returncode == 1 and "| | all, each once | 13 | 18 | |" in table.stdout
