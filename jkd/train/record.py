"""What a part did, step by step, in a form that another run can be held against.

    checksums.json   name, dtype and shape of the leaves, in order; SHA-256 of what was given: the teacher's variables
                     and the graph's arrays; and its own
    checksums.bin    one row a step: a uint32 (little endian) for each leaf of what the step passed through, 0 where it
                     was not taken
    digests.jsonl    every `digest_every` steps the SHA-256 of the whole state, chained

A line of `digests.jsonl` holds `step`, the `loss` of that step as a hexadecimal float, the SHA-256 of each part of the
state and of all, of the rows of `checksums.bin` since the line before, and `chain`: the SHA-256 of the line and of the
chain before it. So the last `chain` stands for all that the training did. The line of the last step holds the SHA-256
of every leaf, too, of which those of the parts are made: no row of a next step says in which it differs. Rows are
written when metrics are; the state is hashed by a thread, off the path of the steps.
"""

import json
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt32

from jkd import digest, files
from jkd.errors import Damaged, Notice, UserError
from jkd.places import Path
from jkd.train.state import TrainState

FILES = NAMES, ROWS, LINES = "checksums.json", "checksums.bin", "digests.jsonl"
PARTS = ("params", "batch_stats", "objective", "opt_state", "ema")

Line = dict[str, Any]
Leaves = tuple[tuple[str, str], ...]  # name and kind of each


@dataclass(frozen=True)
class Kept:
    """A record as it is on disk.

    Attributes:
      leaves: name and kind of each.
      rows: one a step, uint32 `[steps, leaves]`.
      lines: of `digests.jsonl`.
      given: SHA-256 of each array that training was given, `teacher/...` and `graph/...`.
    """

    leaves: Leaves = ()
    rows: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.uint32))
    lines: tuple[Line, ...] = ()
    given: dict[str, str] = field(default_factory=dict)


class Record:
    """Writes a part's record. On resume, what lies after the restored step is dropped first.

    Args:
      folder: of the part.
      leaves: as `Program.checksum_leaves` gives them.
      given: as `of_given` gives it.
      start: the step that the run goes on from.
      mark: of the record at that step, as the checkpoint has it; '' where it has none.
    """

    def __init__(self, folder: Path, leaves: Leaves, given: dict[str, str], start: int, mark: str = "") -> None:
        kept = _kept(folder, leaves, start, mark) if start else Kept()
        leaves = kept.leaves or leaves  # shapes are those of the first step
        rows = np.zeros((start, len(leaves)), np.uint32)  # zeros: not recorded
        if kept.leaves:
            rows[: len(kept.rows)] = kept.rows[:start]
        lines = [line for line in kept.lines if line["step"] <= start]
        files.write_signed(folder / NAMES, {"leaves": [list(leaf) for leaf in leaves], "given": given})
        files.write_bytes(folder / ROWS, _bytes(rows))
        files.write_bytes(folder / LINES, "".join(json.dumps(line) + "\n" for line in lines).encode())
        self.chain = lines[-1]["chain"] if lines else ""
        self._since = [_bytes(rows[lines[-1]["step"] if lines else 0 :])]
        self._rows = files.appender(folder / ROWS)
        self._lines = files.appender(folder / LINES)
        self._hasher = ThreadPoolExecutor(1, thread_name_prefix="jkd-digest")
        self._pending: list[tuple[Line, bool, Future[dict[str, dict[str, str]]]]] = []

    def add(self, rows: UInt32[np.ndarray, "s leaves"]) -> None:
        """Appends the rows of the steps just done."""
        data = _bytes(rows)
        self._since.append(data)
        files.append(self._rows, data)

    def digest(self, state: TrainState, loss: float, last: bool = False) -> None:
        """Takes a copy of the state for the next line. Rows up to it have been added.

        The `last` line lists the digests of all leaves: there is no row of a next step that would tell them apart.

        It waits only for a hash that is still being made of the digest before: two copies are the most in memory.
        """
        self.flush(wait=True)
        copy = jax.tree.map(lambda leaf: np.array(leaf, copy=True), parts_of(state))
        line = {"step": int(state.step), "loss": float(loss).hex(), "rows": digest.of_bytes(b"".join(self._since))}
        self._since = []
        self._pending.append((line, last, self._hasher.submit(leaves_of, copy)))

    @property
    def mark(self) -> str:
        """Stands for all rows and lines so far, as long as no line is pending: the checkpoint holds it."""
        return _mark(self.chain, b"".join(self._since))

    def flush(self, wait: bool = False) -> None:
        """Writes the lines whose state is hashed; with `wait`, all."""
        while self._pending and (wait or self._pending[0][2].done()):
            line, last, hashed = self._pending[0]
            leaves = hashed.result()
            self.chain = _chained(self.chain, line | {"parts": of_parts(leaves)}, into=line)
            if last:
                line["leaves"] = leaves
            files.append(self._lines, (json.dumps(line) + "\n").encode())
            self._pending.pop(0)

    def sync(self) -> None:
        """Has an object store, too, hold all up to here: a checkpoint's record is there before the checkpoint is."""
        self.flush(wait=True)
        self._rows.flush()
        self._lines.flush()

    def close(self) -> None:
        """Ends the thread and closes the files."""
        self._hasher.shutdown(cancel_futures=True)
        self._rows.close()
        self._lines.close()


def read(folder: Path) -> Kept:
    """A part's record, empty where there is none; a last row or line cut short by a kill is left out.

    Raises:
      Damaged: when it is damaged: not of the form above, or not what its digests say.
    """
    if not (folder / NAMES).exists():
        return Kept()
    listed = files.read_signed(folder / NAMES)
    try:
        leaves = tuple((str(name), str(kind)) for name, kind in listed["leaves"])
        given = {str(name): str(sha) for name, sha in listed["given"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _damaged(folder / NAMES, "it does not list leaves and what was given") from None
    data = (folder / ROWS).read_bytes() if (folder / ROWS).exists() else b""
    width = 4 * len(leaves)
    whole = len(data) // width if width else 0
    rows = np.frombuffer(data[: whole * width], "<u4").reshape(whole, len(leaves))
    return Kept(leaves, rows, _lines(folder / LINES, rows), given)


def _lines(path: Path, rows: np.ndarray) -> tuple[Line, ...]:
    """The lines, each what the chain says; of a kill, half a last one."""
    lines: list[Line] = []
    texts = path.read_bytes().split(b"\n") if path.exists() else [b""]
    for number, text in enumerate(texts[:-1], 1):
        first, chain = (int(lines[-1]["step"]), str(lines[-1]["chain"])) if lines else (0, "")
        try:
            line = json.loads(text)
            again = {key: line[key] for key in ("step", "loss", "rows", "parts")}
            if "leaves" in line:
                again["leaves"] = line["leaves"]
                again["parts"] = of_parts(line["leaves"])
            last = int(line["step"])
            if last <= len(rows):  # the rest was cut off with the rows
                again["rows"] = digest.of_bytes(_bytes(rows[first:last]))
            _chained(chain, again)
            sound = last > first and again == line
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):  # also of what is not UTF-8
            sound = False
        if not sound:
            raise _damaged(path, f"line {number} is not what its digests say")
        lines.append(line)
    return tuple(lines)


def _kept(folder: Path, leaves: Leaves, start: int, mark: str) -> Kept:
    """The record to go on with; where it is damaged, lost or of other leaves, none, with a warning."""
    try:
        kept = read(folder)
        if len(kept.rows) < start:  # a checkpoint's record is there before the checkpoint is
            raise _damaged(folder / ROWS, f"it has {len(kept.rows)} of {start} steps")
        check_mark(folder, kept, start, mark)
        if _alike(kept.leaves) != _alike(leaves):
            raise UserError(f"the record {folder / NAMES} lists other leaves than the step has now.")
    except UserError as error:
        warnings.warn(f"{error} It begins anew from here.", Notice, stacklevel=4)
        return Kept()
    return kept


def _alike(leaves: Leaves) -> Leaves:
    """Names and dtypes. Texts are filled up to another length from step to step, and processes hold other rows."""
    return tuple((name, kind.partition("[")[0]) for name, kind in leaves)


def _chained(before: str, line: Line, into: Line | None = None) -> str:
    """Adds `state` and `chain` to a line (or to `into`, with `parts`) and returns the chain."""
    into = line if into is None else into
    into |= {"parts": line["parts"], "state": digest.of_json([line["step"], line["parts"]])}
    into["chain"] = digest.of_json([before, {key: into[key] for key in ("step", "loss", "rows", "parts", "state")}])
    chain: str = into["chain"]
    return chain


def check_mark(folder: Path, kept: Kept, step: int, mark: str) -> None:
    """Holds a record up to a step against the `Record.mark` that the checkpoint of that step has; '' fits any."""
    lines = [line for line in kept.lines if line["step"] <= step]
    last, chain = (lines[-1]["step"], lines[-1]["chain"]) if lines else (0, "")
    if mark and mark != _mark(chain, _bytes(kept.rows[last:step])):
        raise _damaged(folder / ROWS, f"the checkpoint of step {step} knows other rows or lines")


def _mark(chain: str, rows: bytes) -> str:
    return digest.of_json([chain, digest.of_bytes(rows)])


def _damaged(path: Path, what: str) -> UserError:
    return Damaged(f"the record {path} is damaged: {what}.")


def _bytes(rows: np.ndarray) -> bytes:
    return np.ascontiguousarray(rows).astype("<u4").tobytes()


def chain_of(folder: Path) -> str:
    """The last `chain` of a part's record, which stands for all that the training did; '' where there is none."""
    lines = read(folder).lines
    return str(lines[-1]["chain"]) if lines else ""


def final_chain(folder: Path) -> str:
    """`chain_of` a part that has been trained; '' with a warning where the record is damaged, which costs it alone."""
    try:
        return chain_of(folder)
    except UserError as error:
        warnings.warn(f"{error} The part is left without one.", Notice, stacklevel=2)
        return ""


def of_given(teacher: Any, knowledge: Any) -> dict[str, str]:
    """SHA-256 of each array that training is given: the teacher's variables, the graph's arrays."""
    return digest.of_leaves({"teacher": teacher, "graph": knowledge})


def parts_of(state: TrainState) -> dict[str, Any]:
    """The parts of a state, those that hold anything."""
    return {part: getattr(state, part) for part in PARTS if jax.tree.leaves(getattr(state, part))}


def leaves_of(tree: dict[str, Any]) -> dict[str, dict[str, str]]:
    """SHA-256 of each leaf of each part of a state, as `parts_of` gives it, by its path in the part."""
    return {part: digest.of_leaves(leaves) for part, leaves in tree.items()}


def of_parts(leaves: dict[str, dict[str, str]]) -> dict[str, str]:
    """SHA-256 of each part of a state, of what `leaves_of` gives."""
    return {part: digest.of_json(each) for part, each in leaves.items()}
