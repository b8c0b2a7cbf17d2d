"""Metrics of a part as it trains: `metrics.jsonl`, TensorBoard events."""

import contextlib
import importlib
import json
import math
import os
import time
import warnings
from typing import Any

import numpy as np

from jkd import files, places
from jkd.errors import Notice, UserError
from jkd.places import Path

WRITES_WITH = {"gs": "google.cloud.storage", "s3": "boto3"}  # packages by which tensorboardX writes to a store
FLUSH = 30.0  # seconds between two syncs of the event file
Line = dict[str, int | float]  # `step`, and each metric by name


class MetricsLog:
    """Appends metrics every `every` steps. On resume, lines after the restored step are dropped first.

    Args:
      folder: where `metrics.jsonl` and the event file go; None writes nothing but still checks.
      every: steps between lines; the last step of all is always written.
      steps: the last step.
      start: the step that the run goes on from.
    """

    def __init__(self, folder: Path | None, every: int, steps: int, start: int) -> None:
        self.every, self.steps, self.folder = every, steps, folder
        self.lines: list[Line] = []
        self._file: Any = None
        self._events: Any = None
        if folder is None:
            return
        path = folder / "metrics.jsonl"
        kept = [line for line in read(path) if line["step"] <= start] if start else []
        files.write_bytes(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        if not start:
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
        self._file = files.appender(path)
        self._events = _events(folder, start)

    def add(self, first: int, metrics: dict[str, np.ndarray]) -> None:
        """Takes metrics `[S]` of the steps `first + 1 ... first + S`."""
        for index in range(len(metrics["loss"])):
            step = first + 1 + index
            if step % self.every == 0 or step == self.steps:
                self.write(step, {key: float(value[index]) for key, value in metrics.items()})

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes one line."""
        line: Line = {"step": step, **{key: value for key, value in values.items() if math.isfinite(value)}}
        self.lines.append(line)
        if self._file is None:
            return
        files.append(self._file, (json.dumps(line) + "\n").encode())
        try:
            if self._events:
                self._events.write(step, values)
        except OSError as error:
            raise UserError(
                f"cannot write {self._file.name}: {error.strerror or error}. Free space or check permissions."
            ) from None

    def sync(self) -> None:
        """Has an object store, too, hold all lines up to here."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Closes the files. What matters has been written by then, so a full disk is no reason to fail here."""
        for file in (self._file, self._events):
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()


def _events(folder: Path, start: int) -> "_Events | None":
    """TensorBoard's writer, or None, with a warning, for an object store that it cannot write to."""
    if places.is_remote(folder):
        needed = WRITES_WITH.get(str(folder).partition("://")[0], "")
        try:  # before it is made: half a writer complains whenever it is collected
            importlib.import_module(needed or "no store that it knows")
        except ImportError as error:
            told = f"no TensorBoard events in {folder} ({error}). metrics.jsonl has the figures."
            warnings.warn(told, Notice, stacklevel=2)
            return None
    return _Events(folder, start)


class _Events:
    """A TensorBoard event file, written where it is called: a full disk is told to the caller, as no thread could."""

    def __init__(self, folder: Path, start: int) -> None:
        from tensorboardX.record_writer import RecordWriter

        name = f"events.out.tfevents.{int(time.time()):010d}.{files.HOST}.{os.getpid()}.{start}"
        self._file, self._flushed = RecordWriter(str(folder / name)), time.monotonic()
        self._add(file_version="brain.Event:2")
        if start:  # what an earlier process wrote of later steps does not count
            self._add(step=start + 1, session_log={"status": 1})

    def write(self, step: int, values: dict[str, float]) -> None:
        """Adds a scalar for every value."""
        scalars = [{"tag": key, "simple_value": value} for key, value in values.items()]
        self._add(step=step, summary={"value": scalars})
        if time.monotonic() - self._flushed > FLUSH:
            self._file.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        self._file.close()

    def _add(self, **what: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._file.write(Event(wall_time=time.time(), **what).SerializeToString())


def read(path: Path) -> list[Line]:
    """The lines of a `metrics.jsonl`; a last one cut short by a kill is left out, a damaged one with a warning."""
    lines: list[Line] = []
    texts = path.read_bytes().split(b"\n") if path.is_file() else [b""]
    for number, text in enumerate(texts[:-1], 1):
        line = _line(text)
        if line is None:
            warnings.warn(f"{path}: line {number} is damaged and left out.", Notice, stacklevel=2)
        else:
            lines.append(line)
    return lines


def _line(text: bytes) -> Line | None:
    """A line, or None for what is none: a step and numbers by name."""
    try:
        line = json.loads(text.decode())
        whole = isinstance(line, dict) and isinstance(line["step"], int) and not isinstance(line["step"], bool)
        return line if whole and all(math.isfinite(value) for value in line.values()) else None
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
