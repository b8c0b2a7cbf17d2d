"""Two processes compute one run; with elastic reduction, to the bits of one. A lost one ends the other.

They talk over gloo, as hosts of a cluster do.
"""

import re
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from jkd import processes
from jkd.errors import UserError

LIMIT = 240  # seconds a process may take on a machine with other work
SMALL = (
    *("--config.replicates=1", "--config.seeds=(0,)", "--config.devices=0", "--config.graph.diagnosis=none"),
    *("--config.student.train.steps_per_call=1", "--config.student.train.steps=8", "--config.student.graph.mix=0.5"),
    *("--config.student.graph.strength=0.8", "--config.student.graph.view=input", "--config.shards=4"),
    "--config.student.train.checkpoint_every=2",
)
ONE_DEVICE = {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


def _start(tiny: Any, workdir: Path, *flags: str, processes: int = 2, code: tuple[str, ...] = ("", "")) -> list[Any]:
    group = (f"--coordinator=localhost:{_free_port()}", f"--processes={processes}") if processes > 1 else ()
    common = ("distill", f"--config={tiny.file}", f"--workdir={workdir}", *SMALL, *flags, *group)
    ranks = [(f"--process={rank}",) if group else () for rank in range(processes)]
    return [tiny.start(*common, *rank, code=code[index], environment=ONE_DEVICE) for index, rank in enumerate(ranks)]


def _ended(started: list[Any]) -> list[tuple[int, str, str]]:
    said = [process.communicate(timeout=LIMIT) for process in started]
    return [(process.returncode, *each) for process, each in zip(started, said, strict=True)]


def test_two_processes_make_a_whole_run_and_the_first_alone_writes(tiny: Any, tmp_path: Path):
    first, second = _ended(_start(tiny, tmp_path / "run"))
    assert first[0] == second[0] == 0, (first, second)
    assert "accuracy minus that of" in first[1] and "accuracy" not in second[1]
    results = sorted((tmp_path / "run").rglob("result.json"))
    assert len(results) == 5 and not list((tmp_path / "run").rglob("*.tmp"))


@pytest.mark.long
def test_elastic_reduction_gives_the_bits_of_one_process_and_goes_on_in_another_number(tiny: Any, tmp_path: Path):
    elastic = ("--config.reduction=elastic", "--only=knowledge_graph")
    one = _ended(_start(tiny, tmp_path / "one", *elastic, processes=1))
    two = _ended(_start(tiny, tmp_path / "two", *elastic))
    assert [code for code, *_ in (*one, *two)] == [0, 0, 0], (one, two)
    assert tiny.digests(tmp_path / "one") == tiny.digests(tmp_path / "two")
    chains = [
        (tmp_path / name / "replicates/0/students/knowledge_graph/0/digests.jsonl").read_text()
        for name in ("one", "two")
    ]
    assert chains[0] == chains[1] != ""


DIES = """
import os, signal
from jkd.train import checkpoint
save = checkpoint.save
def dying(folder, state, *rest):
    if "knowledge_graph" in str(folder) and int(state.step) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    save(folder, state, *rest)
checkpoint.save = dying
"""
DIES_WAITING = """
import os, signal
from jkd import processes
wait = processes.wait
def dying(what):
    if what == "checkpoint 4":
        os.kill(os.getpid(), signal.SIGKILL)
    wait(what)
processes.wait = dying
"""


@pytest.mark.long
@pytest.mark.fault(18)
@pytest.mark.parametrize(
    ("count", "lost", "code"), [(2, 0, DIES), pytest.param(4, 2, DIES_WAITING, marks=pytest.mark.slow)]
)
def test_a_lost_process_ends_the_others_and_one_alone_goes_on_to_the_same_bits(
    tiny: Any, tmp_path: Path, count: int, lost: int, code: str
):
    elastic = ("--config.reduction=elastic", "--only=knowledge_graph")
    codes = tuple(code if rank == lost else "" for rank in range(count))
    started = _start(tiny, tmp_path / "cut", *elastic, processes=count, code=codes)
    assert started[lost].wait(LIMIT) == -signal.SIGKILL
    died = time.monotonic()
    others = [rank for rank in range(count) if rank != lost]
    ended = _ended([started[rank] for rank in others])
    assert time.monotonic() - died < 60 and all(code for code, *_ in ended)
    for rank, (_, _, errors) in zip(others, ended, strict=True):
        assert re.search(f"process {rank} of {count} lost .+ at step", errors), errors
    student = tmp_path / "cut/replicates/0/students/knowledge_graph/0"
    assert not (student / "result.json").exists() and (student / "checkpoints/2.json").exists()
    for name in ("cut", "whole"):
        ended = _ended(_start(tiny, tmp_path / name, *elastic, processes=1))
        assert ended[0][0] == 0, ended
    assert tiny.digests(tmp_path / "cut") == tiny.digests(tmp_path / "whole")


ASKED = """
import os, signal
from jkd import processes
from jkd.train import loop
loop.ASK_EVERY = 1.0
wait = processes.wait
def asked(what):
    wait(what)
    if {asks} and what == "checkpoint 100":
        os.kill(os.getpid(), signal.SIGTERM)
processes.wait = asked
"""


@pytest.mark.long
@pytest.mark.fault(2)
def test_a_stop_asked_of_one_process_stops_all_before_the_next_line_of_metrics(tiny: Any, tmp_path: Path):
    long = ("--only=graph", "--config.teacher.train.steps=20000", "--config.teacher.train.log_every=20000")
    code = tuple(ASKED.format(asks=index == 1) for index in range(2))
    ended = _ended(_start(tiny, tmp_path, *long, "--config.teacher.train.checkpoint_every=100", code=code))
    assert [each[0] for each in ended] == [143, 143], ended
    assert all("stopped by SIGTERM; run the same command again" in each[2] for each in ended), ended
    saved = [int(path.stem) for path in tmp_path.rglob("teacher/checkpoints/*.json")]
    assert saved and max(saved) < 20_000


STOPS = """
import os, signal
from jkd import processes
processes.SILENCE = 8
wait = processes.wait
def stopping(what):
    if {stops} and what == "checkpoint 20":
        print("stopped", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
    wait(what)
processes.wait = stopping
"""


@pytest.mark.long
@pytest.mark.fault(18)
@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_process_that_hangs_ends_the_others_in_one_message(tiny: Any, tmp_path: Path, rank: int):
    code = tuple(STOPS.format(stops=index == rank) for index in range(2))
    started = _start(tiny, tmp_path, "--only=graph", "--quiet", code=code)
    try:
        assert "stopped\n" in iter(started[rank].stdout.readline, "")
        hung = time.monotonic()
        _, errors = started[1 - rank].communicate(timeout=LIMIT)
        assert time.monotonic() - hung < 40
    finally:
        started[rank].kill()
        started[rank].communicate(timeout=LIMIT)
    assert started[1 - rank].returncode == 2 and errors.count("\n") == 1, errors
    assert f"jkd: process {1 - rank} of 2 lost process {rank} at step 20 of {tmp_path}" in errors
    assert "no sign of life" in errors and "Start all of them again" in errors


@pytest.mark.parametrize(
    "flags",
    [
        ("--processes=2",),
        ("--coordinator=here:1", "--processes=2", "--process=2"),
        ("--coordinator=here:1", "--processes=2", "--process=-1"),
        ("--coordinator=here:1", "--processes=-2", "--process=0"),
        ("--coordinator=here", "--processes=1", "--process=0"),
        ("--coordinator=", "--processes=1", "--process=0"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(tiny: Any, tmp_path: Path, flags: tuple[str, ...]):
    started = tiny.start("distill", f"--config={tiny.file}", f"--workdir={tmp_path / 'run'}", *flags)
    _, errors = started.communicate(timeout=LIMIT)
    assert started.returncode == 2 and errors.startswith("jkd: --") and errors.count("\n") == 1


@pytest.mark.parametrize(
    ("rank", "message"),
    [
        (1, "jkd: --coordinator: nobody answers at localhost:{port}"),
        (0, "jkd: --distributed: not all processes have come in 2 s. Start each of them"),
    ],
    ids=["no coordinator", "nobody else"],
)
def test_others_that_are_not_there_are_one_message(tiny: Any, tmp_path: Path, rank: int, message: str):
    port = _free_port()
    flags = (f"--coordinator=localhost:{port}", "--processes=2", f"--process={rank}")
    arguments = ("distill", f"--config={tiny.file}", f"--workdir={tmp_path / 'run'}", *flags)
    started = tiny.start(*arguments, environment={"JKD_PATIENCE": "2"})
    _, errors = started.communicate(timeout=LIMIT)
    assert started.returncode == 2 and errors.count("\n") == 1
    assert errors.startswith(message.format(port=port))


def test_a_patience_that_is_no_number_is_one_message(monkeypatch: pytest.MonkeyPatch):
    for text in ("abc", "-1", "nan", "inf"):
        monkeypatch.setenv("JKD_PATIENCE", text)
        with pytest.raises(UserError, match=f"JKD_PATIENCE: expected a number of seconds, got '{text}'"):
            processes.start("here:1", 2, 1)
