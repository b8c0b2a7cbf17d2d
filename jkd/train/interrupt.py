"""SIGTERM and Ctrl-C ask for a stop; the loop saves at the next step boundary and ends the run."""

import signal
from types import FrameType


class Interrupted(Exception):
    """The run was asked to stop and has saved. The command line exits with `code`: 128 + the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; run the same command again to go on")
        self.code = 128 + number


_received: list[int] = []


def listen() -> None:
    """Turns SIGTERM and SIGINT into a request; a second one acts at once, as without this."""

    def handle(number: int, frame: FrameType | None) -> None:
        _received.append(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


def requested() -> bool:
    """Whether a stop was asked for."""
    return bool(_received)


def stop_if_requested() -> None:
    """Raises `Interrupted` when a stop was asked for."""
    if _received:
        raise Interrupted(_received[0])
