"""Real processes: killed and stopped at chosen moments, several on one workdir, with streams closed or gone."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jkd import run

LIMIT = 180  # seconds a process may take on a machine with other work

# Announces the file that is about to be written when its path ends in this, and waits for a line on stdin: the parent
# then knows where the process stands when the signal comes, without any guess about time.
PAUSE = """
from jkd import files
write = files.write_bytes
def paused(path, data):
    if str(path).endswith({!r}):
        print("at", path, flush=True)
        sys.stdin.readline()
    write(path, data)
files.write_bytes = paused
"""

LOADING = """
import jkd.config
def load(spec):
    print("at", flush=True)
    sys.stdin.readline()
jkd.config.load = load
"""


def _signal_at(tiny: Any, workdir: Path, moment: str, number: int) -> tuple[int, str]:
    """Starts or continues one student; sends the signal when the file `moment` is about to be written."""
    arguments = ("distill", f"--config={tiny.file}", f"--workdir={workdir}", "--only=knowledge_graph/0")
    process = tiny.start(*arguments, "--replicate=0", code=PAUSE.format(moment))
    line = process.stdout.readline()
    assert line.startswith("at ") and line.strip().endswith(moment), (line, process.communicate(timeout=LIMIT))
    process.send_signal(number)
    _, errors = process.communicate("\n", timeout=LIMIT)
    return process.returncode, errors


@pytest.mark.long
@pytest.mark.fault(1, 2)
def test_killed_and_stopped_on_its_way_it_ends_in_the_same_bits(tiny: Any, done: Any, tmp_path: Path):
    student = tmp_path / "replicates/0/students/knowledge_graph/0"
    # The data of the teacher's checkpoint is there, its digests are not.
    assert _signal_at(tiny, tmp_path, "teacher/checkpoints/20.json", signal.SIGKILL)[0] == -9
    assert not list(tmp_path.rglob("result.json"))
    code, errors = _signal_at(tiny, tmp_path, "0/checkpoints/20.json", signal.SIGTERM)
    assert code == 143 and "stopped by SIGTERM; run the same command again" in errors and "Traceback" not in errors
    assert (student / "checkpoints/20.json").is_file() and not (student / "result.json").exists()
    # Everything is there but the result.
    assert _signal_at(tiny, tmp_path, "knowledge_graph/0/result.json", signal.SIGKILL)[0] == -9
    run.distill(tiny.config(), tmp_path, only="knowledge_graph/0", replicate=0, quiet=True)
    expected, found = tiny.digests(done.workdir), tiny.digests(tmp_path)
    assert len(found) == 3 and found == {name: expected[name] for name in found}
    assert not [path for path in tmp_path.rglob("*") if "tmp" in path.name]


@pytest.mark.long
@pytest.mark.fault(28)
def test_several_processes_on_one_workdir_make_the_run_of_one(tiny: Any, done: Any, tmp_path: Path):
    workdir = tmp_path / "run"
    common = ("distill", f"--config={tiny.file}", f"--workdir={workdir}")
    first = tiny.start(*common, "--only=kd", code=PAUSE.format("0/teacher/checkpoints/20.json"))
    assert first.stdout.readline().startswith("at ")
    second = tiny.start(*common, "--only=knowledge_graph")
    assert f"replicate 0 teacher: waiting for process {first.pid} on" in second.stderr.readline()
    both = first.communicate("\n", timeout=LIMIT), second.communicate(timeout=LIMIT)
    assert (first.returncode, second.returncode) == (0, 0), both
    for seed in (0, 1):
        run.distill(tiny.config(), workdir, only=f"cross_entropy/{seed}", quiet=True)
    report = tiny.start("report", f"--workdir={workdir}")  # in a process that has not looked for devices
    said, errors = report.communicate(timeout=LIMIT)
    assert (report.returncode, errors) == (0, "") and "accuracy minus that of kd" in said
    assert tiny.digests(workdir) == tiny.digests(done.workdir)
    lines = [
        [line for line in (root / "report/summary.json").read_text().splitlines() if '"latency_ms"' not in line]
        for root in (workdir, done.workdir)
    ]
    assert lines[0] == lines[1]


def test_a_run_survives_streams_that_are_closed(tiny: Any, copied: Path, root: Path):
    """A file opened after that must not get the number of a stream, or the program's output would end in it."""
    script = 'exec "$0" -m jkd.cli distill --config="$1" --workdir="$2" --only=kd/0 <&- >&- 2>&-'
    command = ["bash", "-c", script, sys.executable, str(tiny.file), str(copied)]
    assert subprocess.run(command, cwd=root, timeout=LIMIT).returncode == 0


def test_ctrl_c_before_the_run_is_one_line(tiny: Any, tmp_path: Path):
    """While modules are still being loaded, nothing listens yet."""
    process = tiny.start("distill", f"--config={tiny.file}", f"--workdir={tmp_path / 'run'}", code=LOADING)
    assert process.stdout.readline() == "at\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 130 and errors == "jkd: stopped by SIGINT; run the same command again to go on\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.fault(3, 7)
def test_truncated_checkpoints_are_refused_by_name(tiny: Any, copied: Path):
    folder = copied / "replicates" / "0" / "students" / "kd" / "0"
    (folder / "result.json").unlink()
    for path in (folder / "checkpoints" / "20").rglob("*"):
        if path.is_file():
            os.truncate(path, path.stat().st_size // 2)
    common = (f"--config={tiny.file}", f"--workdir={copied}", "--only=kd/0", "--replicate=0", "--quiet")
    process = tiny.start("distill", *common)
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 2 and errors.count("\n") == 1
    assert errors.startswith("jkd: no sound checkpoint in") and "kd/0/checkpoints" in errors
    assert not (folder / "result.json").exists()
