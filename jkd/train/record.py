"""What a part did, step by step, in a form that another run can be held against.

    checksums.json   name, dtype and shape of the leaves, in order
    checksums.bin    one row a step: a uint32 (little endian) for each leaf, of what the step passed through
    digests.jsonl    every `digest_every` steps the SHA-256 of the whole state, chained

A line of `digests.jsonl` holds `step`, the `loss` of that step as a hexadecimal float, the SHA-256 of each part of the
state and of all, of the rows of `checksums.bin` since the line before, and `chain`: the SHA-256 of the line and of the
chain before it. So the last `chain` stands for all that the training did. Rows are written when metrics are; the state
is hashed by a thread, off the path of the steps.
"""

import json
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt32

from jkd import digest, files
from jkd.errors import UserError
from jkd.places import Path
from jkd.train.state import TrainState

NAMES, ROWS, LINES = "checksums.json", "checksums.bin", "digests.jsonl"
PARTS = ("params", "batch_stats", "objective", "opt_state", "ema")

Line = dict[str, Any]


class Record:
    """Writes a part's record. On resume, what lies after the restored step is dropped first.

    Args:
      folder: of the part.
      leaves: their names and kinds, as `Program.checksum_leaves` gives them.
      start: the step that the run goes on from.
    """

    def __init__(self, folder: Path, leaves: tuple[tuple[str, str], ...], start: int) -> None:
        self.folder = folder
        kept = read(folder)
        if not start or kept.leaves != leaves:  # nothing to go on from, or the record of another version
            kept = Kept(leaves, np.zeros((0, len(leaves)), np.uint32), [])
        rows = np.zeros((start, len(leaves)), np.uint32)  # zeros: not recorded
        rows[: len(kept.rows)] = kept.rows[:start]
        lines = [line for line in kept.lines if line["step"] <= start]
        files.write_json(folder / NAMES, {"leaves": [list(leaf) for leaf in leaves]})
        files.write_bytes(folder / ROWS, rows.astype("<u4").tobytes())
        files.write_bytes(folder / LINES, "".join(json.dumps(line) + "\n" for line in lines).encode())
        self.chain = lines[-1]["chain"] if lines else ""
        since = lines[-1]["step"] if lines else 0
        self._since = [rows[since:].astype("<u4").tobytes()]
        self._rows = files.appender(folder / ROWS)
        self._lines = files.appender(folder / LINES)
        self._hasher = ThreadPoolExecutor(1, thread_name_prefix="jkd-digest")
        self._pending: list[tuple[Line, Future[dict[str, str]]]] = []

    def add(self, rows: UInt32[np.ndarray, "s leaves"]) -> None:
        """Appends the rows of the steps just done."""
        data = rows.astype("<u4").tobytes()
        self._since.append(data)
        self._rows.write(data)

    def digest(self, state: TrainState, loss: float) -> None:
        """Takes a copy of the state for the next line. Rows up to it have been added."""
        copy = jax.tree.map(lambda leaf: np.array(leaf, copy=True), parts_of(state))
        line = {"step": int(state.step), "loss": float(loss).hex(), "rows": digest.of_bytes(b"".join(self._since))}
        self._since = []
        self._pending.append((line, self._hasher.submit(of_parts, copy)))

    def flush(self) -> None:
        """Writes the lines whose state is hashed, waiting for it."""
        for line, hashed in self._pending:
            parts = hashed.result()
            line |= {"parts": parts, "state": digest.of_json([line["step"], parts])}
            self.chain = line["chain"] = digest.of_json([self.chain, line])
            self._lines.write((json.dumps(line) + "\n").encode())
        self._pending.clear()

    def close(self) -> None:
        """Ends the thread and closes the files."""
        self._hasher.shutdown(cancel_futures=True)
        self._rows.close()
        self._lines.close()


class Kept:
    """What `read` found.

    Attributes:
      leaves: name and kind of each.
      rows: one a step, uint32 `[steps, leaves]`.
      lines: of `digests.jsonl`.
    """

    def __init__(self, leaves: tuple[tuple[str, str], ...], rows: np.ndarray, lines: list[Line]) -> None:
        self.leaves, self.rows, self.lines = leaves, rows, lines


def read(folder: Path) -> Kept:
    """A part's record, empty where there is none; a row or line cut short by a kill is left out.

    Raises:
      UserError: when its files do not belong together.
    """
    if not (folder / NAMES).is_file():
        return Kept((), np.zeros((0, 0), np.uint32), [])
    listed = files.read_json(folder / NAMES)
    if not isinstance(listed, dict) or not isinstance(listed.get("leaves"), list):
        raise UserError(f"{folder / NAMES} does not list leaves. Delete it; the record begins anew.")
    leaves = tuple((str(name), str(kind)) for name, kind in listed["leaves"])
    data = (folder / ROWS).read_bytes() if (folder / ROWS).is_file() else b""
    whole = len(data) // (4 * len(leaves)) if leaves else 0
    rows = np.frombuffer(data[: whole * 4 * len(leaves)], "<u4").reshape(whole, len(leaves))
    lines: list[Line] = []
    for text in (folder / LINES).read_text(encoding="utf-8").splitlines() if (folder / LINES).is_file() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return Kept(leaves, rows, lines)


def parts_of(state: TrainState) -> dict[str, Any]:
    """The parts of a state, those that hold anything."""
    return {part: getattr(state, part) for part in PARTS if jax.tree.leaves(getattr(state, part))}


def of_parts(tree: dict[str, Any]) -> dict[str, str]:
    """SHA-256 of each part of a state, as `parts_of` gives it."""
    return {part: digest.of_tree(leaves) for part, leaves in tree.items()}
