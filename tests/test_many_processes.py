"""Two processes compute one run; with elastic reduction, to the bits of one. A lost one ends the other.

They talk over gloo, as hosts of a cluster do.
"""

import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

LIMIT = 240  # seconds a process may take on a machine with other work
SMALL = (
    *("--config.replicates=1", "--config.seeds=(0,)", "--config.devices=0", "--config.graph.diagnosis=none"),
    *("--config.student.train.steps_per_call=1", "--config.student.train.steps=8", "--config.student.graph.mix=0.5"),
    *("--config.student.graph.strength=0.8", "--config.student.graph.view=input", "--config.shards=4"),
    "--config.student.train.checkpoint_every=2",
)
ONE_DEVICE = {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}


def _start(tiny: Any, workdir: Path, *flags: str, processes: int = 2, code: tuple[str, ...] = ("", "")) -> list[Any]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    group = (f"--coordinator=localhost:{port}", f"--processes={processes}") if processes > 1 else ()
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
def dying(folder, state, inputs):
    if "knowledge_graph" in str(folder) and int(state.step) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    save(folder, state, inputs)
checkpoint.save = dying
"""


@pytest.mark.fault(18)
def test_a_lost_process_ends_the_others_and_one_alone_goes_on_to_the_same_bits(tiny: Any, tmp_path: Path):
    elastic = ("--config.reduction=elastic", "--only=knowledge_graph")
    started = _start(tiny, tmp_path / "cut", *elastic, code=(DIES, ""))
    assert started[0].wait(LIMIT) == -signal.SIGKILL
    died = time.monotonic()
    code, _, errors = _ended(started[1:])[0]
    assert time.monotonic() - died < 60 and code != 0
    assert "process 1 of 2 lost another one at step" in errors, errors
    student = tmp_path / "cut/replicates/0/students/knowledge_graph/0"
    assert not (student / "result.json").exists() and (student / "checkpoints/2.json").exists()
    for name in ("cut", "whole"):
        ended = _ended(_start(tiny, tmp_path / name, *elastic, processes=1))
        assert ended[0][0] == 0, ended
    assert tiny.digests(tmp_path / "cut") == tiny.digests(tmp_path / "whole")


@pytest.mark.parametrize("flags", [("--processes=2",), ("--coordinator=here:1", "--processes=2", "--process=2")])
def test_flags_that_do_not_go_together_are_refused(tiny: Any, tmp_path: Path, flags: tuple[str, ...]):
    started = tiny.start("distill", f"--config={tiny.file}", f"--workdir={tmp_path / 'run'}", *flags)
    _, errors = started.communicate(timeout=LIMIT)
    assert started.returncode == 2 and errors.startswith("jkd: --") and errors.count("\n") == 1


def test_a_coordinator_that_is_not_there_is_one_message(tiny: Any, tmp_path: Path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = (f"--coordinator=localhost:{port}", "--processes=2", "--process=1")
    arguments = ("distill", f"--config={tiny.file}", f"--workdir={tmp_path / 'run'}", *flags)
    started = tiny.start(*arguments, environment={"JKD_PATIENCE": "1"})
    _, errors = started.communicate(timeout=LIMIT)
    assert started.returncode == 2 and errors.count("\n") == 1
    assert errors.startswith(f"jkd: --coordinator: nobody answers at localhost:{port}")
