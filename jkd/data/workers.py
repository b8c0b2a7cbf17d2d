"""Loader processes that may die or hang: watched from outside, started again once at the same chunk.

grain runs them and keeps their order; it notices one that ended, but waits for ever for one that hangs, or that died
while it held the other end of a pipe. So its iterator runs in a thread, and whoever wants the next chunk waits for that
with a limit. The position in the stream is a number, so a new set of processes goes on where the old one was.
"""

import contextlib
import faulthandler
import functools
import multiprocessing
import os
import queue
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from typing import Any

from jkd.errors import Notice, UserError

POLL = 0.25  # seconds between two looks at the processes
GRACE = 2.0  # seconds in which chunks still come that a dead process had finished
STARTING = 60.0  # seconds that processes may take, beyond the timeout, to start and send their first chunk
END = object()
GRAIN_SAYS = re.compile(r"Worker process was terminated unexpectedly with exit code (-?\d+)")


class _Lost(Exception):
    """A loader process is gone, or hangs."""


def watched(start: Callable[[int], Any], length: int, timeout: float, where: Callable[[int], str]) -> Iterator[Any]:
    """The elements that processes make, in order, whatever happens to a process once.

    Args:
      start: from the number of elements already had to a closeable iterator over the rest.
      length: how many there are.
      timeout: seconds without an element after which the processes count as hung; 0 = never.
      where: says where an element stands, for messages.

    Raises:
      UserError: when the same element was waited for in vain twice.
    """
    done, failed = 0, -1
    while done < length:
        crew = _Crew(functools.partial(start, done))
        try:
            patience = timeout and timeout + STARTING
            while done < length:
                element = crew.take(patience)
                patience = timeout
                if element is END:
                    return
                yield element
                done += 1
        except _Lost as why:
            if failed == done:
                raise UserError(
                    f"{why} again, at {where(done)}. Look for what ends or stops it (memory, storage, a broken file), "
                    "raise data.timeout, or set data.workers=0."
                ) from None
            failed = done
            warnings.warn(f"{why}; loader processes are started again at {where(done)}.", Notice, stacklevel=2)
        finally:
            crew.close()


def settle(parent: int, index: int, count: int) -> None:
    """What a loader process does first: it leaves Ctrl-C to its parent, says where it hangs when told to, and ends when
    its parent has, however that ended.

    Args:
      parent: process id of the parent.
      index: number of this process.
      count: how many there are.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(ValueError, OSError, AttributeError):  # where there is no stderr
        faulthandler.register(signal.SIGUSR1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="jkd-orphan-watch").start()


def _how(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


class _Crew:
    """One set of loader processes and the thread that takes their elements."""

    def __init__(self, start: Callable[[], Any]) -> None:
        self._start = start
        self._others = set(multiprocessing.active_children())
        self._processes: set[BaseProcess] = set()
        self._ready: queue.Queue[Any] = queue.Queue(maxsize=1)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._fetch, daemon=True, name="jkd-loader")
        self._thread.start()

    def take(self, patience: float) -> Any:
        """The next element, or `END`; `_Lost` when it does not come in `patience` seconds (0 = wait for ever)."""
        begun = time.monotonic()
        while True:
            self._alive()
            try:
                found = self._ready.get(timeout=POLL)
            except queue.Empty:
                waited = time.monotonic() - begun
                if waited > GRACE and (dead := self._dead()):
                    raise _Lost(dead) from None
                if patience and waited > patience:
                    raise _Lost(self._hung(patience)) from None
                continue
            if isinstance(found, Exception):
                ended = GRAIN_SAYS.search(str(found)) if isinstance(found, RuntimeError) else None
                if dead := self._dead() or (f"a loader process {_how(int(ended[1]))}" if ended else ""):
                    raise _Lost(dead) from None
                raise found
            return found

    def close(self) -> None:
        """Ends processes and thread; those that do not end by themselves are killed."""
        self._stopped.set()
        self._thread.join(timeout=POLL)
        deadline = time.monotonic() + GRACE
        while self._thread.is_alive() and time.monotonic() < deadline and not self._dead():
            self._thread.join(timeout=POLL)
        if self._thread.is_alive():
            for process in self._alive():
                process.kill()
            self._thread.join(timeout=3 * GRACE)
        for process in self._processes:
            process.join(timeout=GRACE)

    def _fetch(self) -> None:
        iterator = None
        try:
            iterator = self._start()
            for element in iterator:
                if not self._hand(element):
                    return
            self._hand(END)
        except Exception as error:
            self._hand(error)
        finally:
            if iterator is not None:
                iterator.close()

    def _hand(self, element: Any) -> bool:
        """Waits until there is room, or nobody wants any more."""
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._ready.put(element, timeout=POLL)
                return True
        return False

    def _alive(self) -> list[BaseProcess]:
        self._processes |= set(multiprocessing.active_children()) - self._others
        return [process for process in self._processes if process.exitcode is None]

    def _dead(self) -> str:
        """What ended a process that should not have ended; empty for none."""
        self._alive()
        for process in self._processes:
            if process.exitcode:
                return f"loader process {process.pid} {_how(process.exitcode)}"
        return ""

    def _hung(self, patience: float) -> str:
        """Has the processes say where they are, and ends them."""
        alive = self._alive()
        for process in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid or 0, signal.SIGUSR1)
        time.sleep(2 * POLL)
        for process in alive:
            process.kill()
        numbers = ", ".join(str(process.pid) for process in alive)
        return f"loader process {numbers} sent nothing for {patience:g} s (data.timeout)"
