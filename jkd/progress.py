"""Progress of a run: a bar with the time left on a terminal, one plain line a finished part otherwise."""

import contextlib
import sys
import time
from collections.abc import Iterator
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

PLAIN_EVERY = 15.0  # seconds between plain lines while one part goes on


class RunProgress:
    """Counts parts (teachers, graphs, students) and, inside the current one, steps."""

    def __init__(self, parts: int, quiet: bool = False) -> None:
        self.parts, self.done, self.quiet = parts, 0, quiet
        self.started = self.part_started = self.told = time.monotonic()
        self.part, self.label, self.waits_for = "", "", ("", "")
        self._bar: Progress | None = None
        if not quiet and _on_terminal():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._all = self._bar.add_task("parts", total=parts)
            self._one = self._bar.add_task("", total=1)

    def __enter__(self) -> "RunProgress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Takes the bar away while the body prints something."""
        if self._bar:
            self._bar.stop()
        try:
            yield
        finally:
            if self._bar:
                self._bar.start()

    def start(self, label: str) -> None:
        """A part begins."""
        self.part = self.label = label
        self.part_started = self.told = time.monotonic()
        if self._bar:
            self._bar.update(self._one, description=label, completed=0, total=1)

    def phase(self, what: str) -> None:
        """Within the current part something begins that is trained from step 1."""
        self.label, self.part_started = f"{self.part}, {what}", time.monotonic()

    def waiting(self, holder: str) -> None:
        """The current part is being made by another process; called again and again while that lasts."""
        if self._bar:
            self._bar.update(self._one, description=f"{self.label}  waiting for {holder}")
        elif not self.quiet and self.waits_for != (self.label, holder):
            self._say(f"{self.label}: waiting for {holder}")
        self.waits_for = (self.label, holder)

    def step(self, step: int, steps: int, loss: float) -> None:
        """The current part has come to `step` of `steps`."""
        if self._bar:
            self._bar.update(self._one, description=f"{self.label}  loss {loss:.4f}", completed=step, total=steps)
        elif not self.quiet and time.monotonic() - self.told > PLAIN_EVERY:
            self.told = time.monotonic()
            left = (self.told - self.part_started) / max(step, 1) * (steps - step)
            self._say(f"{self.label}: step {step}/{steps}, loss {loss:.4f}, about {_clock(left)} left")

    def finish(self, note: str) -> None:
        """The current part is done."""
        self.done += 1
        self.label = self.part
        if self._bar:
            self._bar.update(self._all, completed=self.done)
            self._bar.update(self._one, completed=1, total=1)
        elif not self.quiet:
            seconds = time.monotonic() - self.started
            left = seconds / self.done * (self.parts - self.done)
            self._say(f"[{self.done:>{len(str(self.parts))}}/{self.parts}] {self.label}: {note} ({_clock(left)} left)")

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads any more: no reason to stop the run
            print(text, file=sys.stderr, flush=True)


def _on_terminal() -> bool:
    with contextlib.suppress(AttributeError, ValueError):  # no stderr, or a closed one
        return sys.stderr.isatty()
    return False


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
