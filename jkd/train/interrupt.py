"""SIGTERM and Ctrl-C ask for a stop; the loop saves at the next step boundary and ends the run."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from jkd import processes


class Interrupted(Exception):
    """The run was asked to stop and has saved. The command line exits with `code`: 128 + the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; run the same command again to go on")
        self.code = 128 + number


_received: list[int] = []


@contextlib.contextmanager
def listen() -> Iterator[None]:
    """While the body runs, SIGTERM and SIGINT are a request; a second one acts at once, as it did before."""
    _received.clear()
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: FrameType | None) -> None:
        _received.append(number)
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        _received.clear()  # a later run of the same process was not asked to stop
        for number, handler in before.items():
            signal.signal(number, handler)


def requested() -> bool:
    """Whether a stop was asked for."""
    return bool(_received)


def stop() -> NoReturn:
    """Raises `Interrupted`: a stop was asked for, here or in another process."""
    raise Interrupted(_received[0] if _received else signal.SIGTERM)


def stop_if_requested() -> None:
    """Raises `Interrupted` when a stop was asked for. With several processes only the training loop asks, for all."""
    if _received and processes.count() == 1:
        stop()
