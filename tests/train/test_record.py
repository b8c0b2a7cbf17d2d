"""What a part writes down of its training: off the path of the steps, and damage is found."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jkd import digest
from jkd.errors import Damaged, Notice, UserError
from jkd.train import record
from jkd.train.state import TrainState

LEAVES = (("update/params/w", "float32[2]"), ("gradients/student/w", "float32[2]"))


def _state(step: int) -> TrainState:
    nothing: dict[str, Any] = {part: {} for part in ("batch_stats", "objective", "opt_state", "ema")}
    return TrainState(step=jnp.int32(step), params={"w": jnp.full(2, float(step))}, **nothing)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[record.Record]:
    made = record.Record(tmp_path, LEAVES, {"teacher/w": "ab"}, start=0)
    yield made
    made.close()


def _steps(book: record.Record, first: int, last: int) -> None:
    book.add(np.arange(2 * first, 2 * last, dtype=np.uint32).reshape(-1, 2) + 1)


def test_nobody_waits_for_a_hash_but_the_next_digest(
    book: record.Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    free, hashed = threading.Event(), record.leaves_of
    monkeypatch.setattr(record, "leaves_of", lambda tree: free.wait(60) and hashed(tree))
    _steps(book, 0, 2)
    book.digest(_state(2), 1.0)
    book.flush()  # would wait a minute
    assert record.read(tmp_path).lines == () and not free.is_set()
    free.set()
    _steps(book, 2, 4)
    book.digest(_state(4), 0.5)
    assert [line["step"] for line in record.read(tmp_path).lines] == [2]
    book.flush(wait=True)
    kept = record.read(tmp_path)
    assert [line["step"] for line in kept.lines] == [2, 4] and kept.lines[1]["chain"] == book.chain
    assert kept.leaves == LEAVES and kept.given == {"teacher/w": "ab"} and kept.rows.shape == (4, 2)


def test_the_last_line_lists_the_leaves_and_holds_their_digests_to_those_of_the_parts(
    book: record.Record, tmp_path: Path
):
    _steps(book, 0, 2)
    book.digest(_state(2), 1.0)
    _steps(book, 2, 4)
    book.digest(_state(4), 0.5, last=True)
    book.flush(wait=True)
    first, last = record.read(tmp_path).lines
    assert "leaves" not in first and last["leaves"] == {"params": {"w": digest.of_array(np.full(2, 4, np.float32))}}
    path = tmp_path / record.LINES
    sound = path.read_text()
    for wrong in ("0" * 64, 7, None):
        lines = [json.loads(line) for line in sound.splitlines()]
        lines[1]["leaves"]["params"]["w"] = wrong
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        with pytest.raises(UserError, match="line 2 is not what its digests say"):
            record.read(tmp_path)


@pytest.mark.parametrize("lost", ["rows", "all", "other leaves"])
def test_a_record_that_lacks_what_a_checkpoint_goes_on_from_begins_anew_and_says_so(
    book: record.Record, tmp_path: Path, lost: str
):
    for first in (0, 2):
        _steps(book, first, first + 2)
        book.digest(_state(first + 2), 1.0)
    book.flush(wait=True)
    leaves = LEAVES
    if lost == "rows":
        (tmp_path / record.ROWS).write_bytes((tmp_path / record.ROWS).read_bytes()[:8])
    elif lost == "all":
        (tmp_path / record.NAMES).unlink()
    else:
        leaves = (*LEAVES, ("student/logits", "float32[2]"))
    with pytest.warns(Notice, match="begins anew from here"):
        again = record.Record(tmp_path, leaves, {}, start=4)
    again.add(np.ones((2, len(leaves)), np.uint32))
    again.digest(_state(6), 1.0)
    again.flush(wait=True)
    again.close()
    assert [line["step"] for line in record.read(tmp_path).lines] == [6] and record.final_chain(tmp_path) == again.chain


def test_a_damaged_record_costs_a_trained_part_its_record_and_no_more(book: record.Record, tmp_path: Path):
    _steps(book, 0, 2)
    book.digest(_state(2), 1.0)
    book.flush(wait=True)
    (tmp_path / record.LINES).write_bytes(b"{}\n")
    with pytest.warns(Notice, match="left without one"):
        assert record.final_chain(tmp_path) == ""


@pytest.mark.fault(4)
def test_every_flipped_bit_of_a_record_is_found(book: record.Record, tmp_path: Path, tries: Any):
    for first in (0, 2):
        _steps(book, first, first + 2)
        book.digest(_state(first + 2), 1.0)
    book.flush(wait=True)
    for name in record.FILES:
        path = tmp_path / name
        whole = path.read_bytes()
        bits = 8 * len(whole)
        for bit in range(0, bits, max(1, bits // tries.count(20, 200))):
            data = bytearray(whole)
            data[bit // 8] ^= 1 << bit % 8
            path.write_bytes(data)
            with tries(f"bit {bit} of {name}"):
                try:
                    kept = record.read(tmp_path)
                except Damaged:
                    continue
                # The end of the last line turned into something else: it counts as cut short by a kill.
                assert name == record.LINES and bit // 8 == len(whole) - 1 and len(kept.lines) == 1
        path.write_bytes(whole)
    assert len(record.read(tmp_path).lines) == 2


@pytest.mark.fault(4)
@pytest.mark.parametrize("what", ["row", "line", "lines", "nothing"])
def test_a_checkpoint_knows_the_rows_and_lines_up_to_it(
    book: record.Record, tmp_path: Path, what: str, recwarn: pytest.WarningsRecorder
):
    """Rows since the last line have no digest of their own, and a line that is gone is missed by nobody else."""
    _steps(book, 0, 2)
    book.digest(_state(2), 1.0)
    _steps(book, 2, 5)
    book.sync()
    if what == "row":
        data = bytearray((tmp_path / record.ROWS).read_bytes())
        data[-1] ^= 1
        (tmp_path / record.ROWS).write_bytes(data)
    elif what != "nothing":
        (tmp_path / record.LINES).write_bytes(b"")
    if what == "lines":
        (tmp_path / record.LINES).unlink()
    again = record.Record(tmp_path, LEAVES, {}, start=5, mark=book.mark)
    again.close()
    begun = [str(warning.message) for warning in recwarn if "begins anew from here" in str(warning.message)]
    assert len(begun) == (what != "nothing")
    assert (again.chain == book.chain) == (what == "nothing") and (again.mark == book.mark) == (what == "nothing")
