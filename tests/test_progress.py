"""Progress: plain lines on a pipe, a bar on a terminal, nothing when quiet, and never a reason to stop."""

import io
import sys
from typing import Any

import pytest

from jkd import progress
from jkd.progress import RunProgress


class _Stream(io.StringIO):
    def __init__(self, terminal: bool = False, fails: type[Exception] | None = None) -> None:
        super().__init__()
        self.terminal, self.fails = terminal, fails

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        if self.fails:
            raise self.fails("gone")
        return super().write(text)


def _timed(monkeypatch: pytest.MonkeyPatch) -> tuple[_Stream, list[float]]:
    """What goes to the terminal, and the time that it is, which stands until it is set."""
    stream, now = _Stream(), [1000.0]
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return stream, now


def _two_parts(bar: RunProgress) -> None:
    with bar:
        for label in ("teacher", "graph"):
            bar.start(label)
            bar.waiting("process 7 on here")
            bar.waiting("process 7 on here")
            for step in (10, 20):
                bar.step(step, 20, 0.5)
            bar.finish("done")


def test_a_pipe_gets_one_plain_line_a_part(monkeypatch: pytest.MonkeyPatch):
    stream = _Stream()
    monkeypatch.setattr(sys, "stderr", stream)
    _two_parts(RunProgress(2))
    assert stream.getvalue().splitlines() == [
        "teacher: waiting for process 7 on here",
        "[1/2] teacher: done (0s left)",
        "graph: waiting for process 7 on here",
        "[2/2] graph: done (0s left)",
    ]


def test_a_long_part_says_where_it_is_and_how_long_it_will_take(monkeypatch: pytest.MonkeyPatch):
    stream, now = _timed(monkeypatch)
    bar = RunProgress(1)
    bar.start("teacher")
    for step in range(1, 11):
        now[0] += 10
        bar.step(step, 100, 0.25)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 5 and lines[0] == "teacher: step 2/100, loss 0.2500, about 16m20s left"


def test_quiet_says_nothing(monkeypatch: pytest.MonkeyPatch):
    for terminal in (False, True):
        stream = _Stream(terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        _two_parts(RunProgress(2, quiet=True))
        assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch):
    stream = _Stream(terminal=True)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    _two_parts(RunProgress(2))
    assert "parts" in stream.getvalue() and "2/2" in stream.getvalue()


def test_what_is_printed_aside_goes_where_it_was_meant_to(monkeypatch: pytest.MonkeyPatch):
    stream, said = _Stream(terminal=True), _Stream()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", said)
    monkeypatch.setenv("TERM", "xterm")
    with RunProgress(1) as bar:
        bar.start("teacher")
        with bar.aside():
            print("what was found")
        bar.finish("done")
    assert said.getvalue() == "what was found\n" and "what was found" not in stream.getvalue()
    assert "1/1" in stream.getvalue()


@pytest.mark.parametrize("stream", [_Stream(fails=BrokenPipeError), _Stream(fails=ValueError), None])
def test_nobody_reading_does_not_stop_a_run(monkeypatch: pytest.MonkeyPatch, stream: Any):
    monkeypatch.setattr(sys, "stderr", stream)
    _two_parts(RunProgress(2))


def test_a_phase_of_a_part_has_its_own_time_left_and_ends_with_it(monkeypatch: pytest.MonkeyPatch):
    stream, now = _timed(monkeypatch)
    bar = RunProgress(1)
    bar.start("graph")
    for fold in (1, 2):
        bar.phase(f"fold {fold} of 2")
        now[0] += 20
        bar.step(10, 20, 0.25)
    bar.finish("built")
    assert stream.getvalue().splitlines() == [
        "graph, fold 1 of 2: step 10/20, loss 0.2500, about 20s left",
        "graph, fold 2 of 2: step 10/20, loss 0.2500, about 20s left",
        "[1/1] graph: built (0s left)",
    ]
