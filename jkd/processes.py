"""Several processes that compute one run together: which one this is, and what they all have to agree on.

Every process runs the same program on the same config. Process 0 alone writes; all read from the shared workdir. A
process that dies takes the others down within `HEARTBEAT` seconds or so: none waits for ever, and the run goes on from
its checkpoint when it is started again.
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jkd import digest
from jkd.errors import UserError

_place = [0, 1]  # rank and count

LOST = ("Gloo", "NCCL", "coordination service", "UNAVAILABLE", "DEADLINE_EXCEEDED", "heartbeat")  # in jax's words
PATIENCE = float(os.environ.get("JKD_PATIENCE", 120))  # seconds to wait for process 0 to be there
HEARTBEAT = 30  # seconds without a sign of life after which a process counts as lost


def start(coordinator: str = "", processes: int = 0, process: int = -1) -> None:
    """Joins the other processes; before anything looks for devices.

    Args:
      coordinator: `HOST:PORT` of process 0; empty to take all three from the cluster's environment (SLURM, Open MPI,
        Kubernetes, TPU pods: what `jax.distributed.initialize` knows).
      processes: how many there are.
      process: which one this is, from 0.

    Raises:
      UserError: when they do not find each other.
    """
    if coordinator and process:
        _find(coordinator)
    import jax  # not above: the command line answers a mistake before jax is loaded

    given: dict[str, Any] = {}
    if coordinator:
        given = {"coordinator_address": coordinator, "num_processes": processes, "process_id": process}
    try:
        jax.distributed.initialize(**given, heartbeat_timeout_seconds=HEARTBEAT, initialization_timeout=120)
    except (RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise UserError(
            f"--distributed: the processes do not find each other ({text[:300]}). In a cluster's job the environment "
            "says who they are; elsewhere give --coordinator=HOST:PORT --processes=N --process=I to each."
        ) from None
    look()


def _find(coordinator: str) -> None:
    """Waits for process 0 to open its port. jax itself would end the program with a page of C++ when it does not."""
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--coordinator: expected HOST:PORT, got '{coordinator}'.")
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"--coordinator: nobody answers at {coordinator} ({error.strerror or error}). Start process 0 "
                    "there."
                ) from None
        time.sleep(0.2)


def look() -> None:
    """Notes how many processes jax knows of and which one this is. Until then, and without jax, there is one."""
    import jax

    _place[:] = [jax.process_index(), jax.process_count()]


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


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any process; called by all."""
    return bool(np.any(gather(np.asarray(flag)[None]))) if count() > 1 else flag


def gather(tree: Any) -> Any:
    """Arrays `[n, ...]` of every process, joined in the order of processes: NumPy `[processes * n, ...]`."""
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tree, tiled=True)


@contextlib.contextmanager
def in_touch(doing: Callable[[], str]) -> Iterator[None]:
    """Where the body fails because another process is gone, says so: which one this is, and what it was doing.

    Raises:
      UserError: in place of what jax raises, which is of several kinds and many lines.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())
        if count() == 1 or not any(word in text for word in LOST):
            raise
        raise UserError(
            f"process {rank()} of {count()} lost another one {doing()} ({text[:160]}). Start all of them again: the "
            "run goes on from its newest checkpoint."
        ) from None


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
