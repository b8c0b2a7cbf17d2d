"""TREC questions: the embedded set (origin and licence: trec.txt), and files of its form.

A line is `COARSE:fine question`, such as `NUM:date When was Ozzy Osbourne born ?`.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jkd.data.lines import lines_of
from jkd.data.texts import Row

ENCODING = "latin-1"
TAXONOMY = Path(__file__).with_name("trec.json")  # the six coarse classes above the fifty fine ones


def rows(lines: Iterator[str], fine: bool) -> Iterator[Row]:
    """The questions of a file by number, blank lines passed over; a line of another form says so in `why`.

    Args:
      lines: of the file.
      fine: whether labels are `COARSE:fine` (50 of them) or `COARSE` (6).
    """
    number = 0
    for line, content in enumerate(lines, 1):
        if not content.strip():
            continue
        label, _, question = content.strip().partition(" ")
        coarse, colon, rest = label.partition(":")
        why = "" if coarse and colon and rest else "does not begin with COARSE:fine"
        yield Row(f"{number:06d}", question, label if fine else coarse, why, line)
        number += 1


def embedded(split: str) -> Iterator[str]:
    """Lines of the embedded `train` (5,452) or `test` (500) questions."""
    with np.load(Path(__file__).with_name("trec.npz"), allow_pickle=False) as file:
        return lines_of(file[split].tobytes(), f"trec:{split}", ENCODING)
