"""Several processes that compute one run together: which one this is, and what they all have to agree on.

Every process runs the same program on the same config. Process 0 alone writes; all read from the shared workdir. A
process that dies or hangs takes the others down within `SILENCE` seconds or so: none waits for ever, and the run goes
on from its checkpoint when it is started again.
"""

import contextlib
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np

from jkd import digest
from jkd.errors import UserError

_place = [0, 1]  # rank and count
LEFT = "left"  # what a process says last when it no longer works with the others

LOST = ("Gloo", "NCCL", "coordination service", "UNAVAILABLE", "DEADLINE_EXCEEDED", "heartbeat")  # in jax's words
PATIENCE = 120.0  # seconds to wait for process 0 to be there; the environment's JKD_PATIENCE says another
SILENCE = 40  # seconds without a sign of life after which a process counts as lost
HEARTBEAT = 100  # the same for jax, which ends the program with a page of C++: so that it comes later
_doing: list[Callable[[], str]] = []  # of the bodies of `in_touch`, the innermost last


def start(coordinator: str | None = None, processes: int = 0, process: int = -1) -> None:
    """Joins the other processes; before anything looks for devices.

    Args:
      coordinator: `HOST:PORT` of process 0; None to take all three from the cluster's environment (SLURM, Open MPI,
        Kubernetes, TPU pods: what `jax.distributed.initialize` knows).
      processes: how many there are.
      process: which one this is, from 0.

    Raises:
      UserError: when they do not find each other.
    """
    seconds = _patience()
    if coordinator is not None:
        host, port = _address(coordinator)
        if process:
            _find(host, port, seconds)
    import jax  # not above: the command line answers a mistake before jax is loaded

    given: dict[str, Any] = {}
    if coordinator is not None:
        given = {"coordinator_address": coordinator, "num_processes": processes, "process_id": process}
    late = threading.Timer(seconds, _nobody_came, (seconds,))  # jax itself would end with a page of C++
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            **given, heartbeat_timeout_seconds=HEARTBEAT, initialization_timeout=math.ceil(seconds) + HEARTBEAT
        )
    except (RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise UserError(
            f"--distributed: the processes do not find each other ({text[:300]}). In a cluster's job the environment "
            "says who they are; elsewhere give --coordinator=HOST:PORT --processes=N --process=I to each."
        ) from None
    finally:
        late.cancel()
    look()


def _address(coordinator: str) -> tuple[str, int]:
    """Host and port of a `HOST:PORT`."""
    host, _, port = coordinator.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator: expected HOST:PORT, got '{coordinator}'.")
    return host, int(port)


def _patience() -> float:
    """Seconds to wait for other processes to be there."""
    text = os.environ.get("JKD_PATIENCE", "") or str(PATIENCE)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UserError(f"JKD_PATIENCE: expected a number of seconds, got '{text}'.")
    return seconds


def _nobody_came(seconds: float) -> None:
    _end(
        f"--distributed: not all processes have come in {seconds:g} s. Start each of them, with the same "
        "--coordinator and --processes; JKD_PATIENCE=SECONDS waits longer."
    )


def _end(message: str) -> NoReturn:
    """Ends the program, whose main thread waits within jax, as `UserError` would."""
    os.write(2, f"jkd: {message}\n".encode())
    os._exit(2)


def _find(host: str, port: int, seconds: float) -> None:
    """Waits for process 0 to open its port. jax itself would end the program with a page of C++ when it does not."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host.strip("[]"), port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"--coordinator: nobody answers at {host}:{port} ({error.strerror or error}). Start process 0 "
                    "there."
                ) from None
        time.sleep(0.2)


def look() -> None:
    """Notes how many processes jax knows of and which one this is. Until then, and without jax, there is one.

    Raises:
      UserError: there is no device; this is where jax first looks for them.
    """
    import jax

    try:
        _place[:] = [jax.process_index(), jax.process_count()]
    except (RuntimeError, AssertionError) as error:  # jax asserts where a platform has no device and says no more
        given = ", ".join(f"{key}='{os.environ[key]}'" for key in ("JAX_PLATFORMS", "XLA_FLAGS") if os.environ.get(key))
        raise UserError(
            f"jax finds no device to compute on ({' '.join(str(error).split())[:300] or 'none of these platforms'}). "
            f"Look at the environment: {given or 'jaxlib for this accelerator'}. JAX_PLATFORMS=cpu uses the CPU."
        ) from None


def count() -> int:
    """How many processes there are."""
    return _place[1]


def rank() -> int:
    """Which one this is, from 0."""
    return _place[0]


def first() -> bool:
    """Whether this is the one that writes."""
    return rank() == 0


def wait(what: str) -> None:
    """Waits until every process has come here; so what process 0 wrote before is there for all."""
    if count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(what)


def told(value: bool) -> bool:
    """What process 0 says; called by all. So that all take the same way, whatever each sees of a shared folder."""
    return bool(gather(np.asarray(value)[None])[0]) if count() > 1 else value


def gather(tree: Any) -> Any:
    """Arrays `[n, ...]` of every process, joined in the order of processes: NumPy `[processes * n, ...]`."""
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tree, tiled=True)


@contextlib.contextmanager
def in_touch(doing: Callable[[], str]) -> Iterator[None]:
    """Where the body fails because another process is gone, says so: which one this is, and what it was doing.

    Where it waits for one that gives no sign of life, ends the program and says so, too.

    Raises:
      UserError: in place of what jax raises, which is of several kinds and many lines.
    """
    _doing.append(doing)
    try:
        with _watched() if len(_doing) == 1 and count() > 1 else contextlib.nullcontext():
            yield
    except (RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())
        if count() == 1 or not any(word in text for word in LOST):
            raise
        raise UserError(_lost("another one", doing, text[:160])) from None
    finally:
        _doing.pop()


def _lost(whom: str, doing: Callable[[], str], why: str) -> str:
    return (
        f"process {rank()} of {count()} lost {whom} {doing()} ({why}). Start all of them again: the run goes on from "
        "its newest checkpoint."
    )


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """While the body runs, tells the others that this process is alive, and looks whether they are.

    One thread talks to jax's coordination service, which may hang, too: process 0 has it. Another one counts.
    """
    from jax._src.distributed import global_state

    client, done = global_state.client, threading.Event()
    if client is None:  # the processes of a TPU pod may have found each other without it
        yield
        return
    heard: dict[int, tuple[str, int]] = {}  # of each process what it said last, and the seconds since
    key = f"jkd/alive/{rank()}"

    def talk() -> None:
        beat = 0
        with contextlib.suppress(Exception):  # the service is gone: so all fall silent
            while not done.wait(1.0):
                beat += 1
                client.key_value_set(key, str(beat), allow_overwrite=True)
                for name, said in client.key_value_dir_get("jkd/alive/"):
                    other = int(name.rpartition("/")[2])
                    if said != heard.get(other, ("", 0))[0]:
                        heard[other] = (said, 0)

    def count_seconds() -> None:
        # Seconds that this process lived through: one that was stopped itself does not blame the others. Process 0 ends
        # last, since the others would hear of its end from jax first.
        limit = SILENCE + 4 * first()
        while not done.wait(1.0):
            for other, (said, seconds) in list(heard.items()):
                if said == LEFT or other == rank():
                    continue
                heard[other] = (said, seconds + 1)
                if seconds >= limit:
                    _end(_lost(f"process {other}", _doing[-1], f"no sign of life for {limit} s"))

    threads = [threading.Thread(target=each, daemon=True) for each in (talk, count_seconds)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
    threads[0].join(2.0)  # not after a failure: of that the others shall hear
    if not threads[0].is_alive():
        with contextlib.suppress(Exception):
            client.key_value_set(key, LEFT, allow_overwrite=True)


def agree(value: Any, what: str) -> None:
    """Refuses to go on when processes hold different values (JSON-ready): they would compute different things.

    Raises:
      UserError: naming `what` they differ in.
    """
    if count() == 1:
        return
    own = np.frombuffer(bytes.fromhex(digest.of_json(value)), np.uint8)[None]
    everyone = gather(own)
    if (everyone != everyone[:1]).any():
        odd = np.flatnonzero((everyone != everyone[:1]).any(axis=1)).tolist()
        raise UserError(
            f"processes differ in {what}: {odd} do not have what process 0 has (this is process {rank()}). All need "
            "the same code, config, data and workdir."
        )
