"""Texts as a source: by index, in a stable order, with stable ids and a fingerprint; and the rules for odd ones.

What a text goes through, in this order, each counted by the texts that it touches (`TextSource.counts`):

| kind | rule |
| --- | --- |
| `cut` | longer than `max_chars` characters: the rest is left out |
| `replaced` | holds U+FFFD, for bytes that did not decode (`errors="replace"`) or for half a surrogate pair |
| `bidi` | characters that turn the direction of writing (U+061C, U+200E-F, U+202A-E, U+2066-9): removed |
| `control` | NUL and other control characters, line and paragraph separators: a space instead |
| `empty` | nothing is left: refused, or skipped and listed, as `data.broken` says |
| `repeated` | says the same as an earlier text of its split: kept |
| `overlap` | a training text that says the same as a test text: removed, kept or refused, as `data.overlap` says |

Tabs and line ends become spaces, and spaces at both ends are left out, uncounted. Two texts say the same if their words
do, without regard to case and punctuation.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

from jkd import digest
from jkd.data.sources import fingerprint_of
from jkd.errors import UserError, some

COUNTS = ("cut", "replaced", "bidi", "control", "empty", "repeated", "overlap")
ROWS = 10_000_000  # most texts of a split
SPACES = re.compile("[\t\n\r]")
BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
SURROGATE = re.compile("[\ud800-\udfff]")
WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Rules:
    """How texts are read.

    Attributes:
      max_chars: most characters of a text; the rest is cut.
      broken: `refuse` texts that are empty or rows that cannot be read, or `skip` and list them.
      broken_limit: share of a split's rows that may be skipped.
    """

    max_chars: int = 20_000
    broken: str = "refuse"
    broken_limit: float = 0.001


class Row(NamedTuple):
    """One row of a file.

    Attributes:
      key: what the sample's id ends in, unique within a split.
      text: as it stands in the file.
      label: the class's name or number; empty where there is none.
      why: why the row cannot be used; empty where it can.
      line: where it stands, counted from 1; 0 = nowhere.
    """

    key: str
    text: str
    label: str
    why: str = ""
    line: int = 0


@dataclass
class Column:
    """The rows of one split after the rules, labels still by name.

    Attributes:
      name: of the source, for messages.
      ids: `<split>/<key>`.
      texts: cleaned.
      labels: names or numbers, empty where there is none.
      counts: texts touched, by kind.
      skipped: `(id, why)`.
    """

    name: str
    ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def take(self, index: Sequence[int]) -> "Column":
        """Only the rows at `index`; counts and skipped ones stay."""
        ids, texts, labels = ([part[i] for i in index] for part in (self.ids, self.texts, self.labels))
        return Column(self.name, ids, texts, labels, dict(self.counts), self.skipped)


class TextSource:
    """Labelled texts in memory.

    Attributes:
      name: what a message calls it.
      classes: class names, in label order.
      labels: int32 `[N]`, -1 where a sample has no label.
      skipped: `(id, why)` of the rows left out because they could not be used.
      counts: texts touched by each rule; see the module.
      in_memory: True.
    """

    kind = "texts"
    shape: tuple[int, ...] = ()
    in_memory = True

    def __init__(
        self,
        name: str,
        classes: Sequence[str],
        ids: Sequence[str],
        labels: Integer[np.ndarray, " n"],
        texts: Sequence[str],
        skipped: Sequence[tuple[str, str]] = (),
        counts: Mapping[str, int] | None = None,
    ) -> None:
        self.name = name
        self.classes = tuple(classes)
        self.labels = np.asarray(labels, np.int32)
        self.skipped = tuple(skipped)
        self.counts: Mapping[str, int] = dict.fromkeys(COUNTS, 0) | dict(counts or {})
        self._ids = list(ids)
        self._texts = list(texts)
        if not len(self._ids) == len(self.labels) == len(self._texts):
            raise ValueError(f"{len(self._ids)} ids, {len(self.labels)} labels, {len(self._texts)} texts")

    def __len__(self) -> int:
        return len(self._ids)

    def id(self, index: int) -> str:
        """The sample's stable id, such as `train/000123`: the 123rd row of its file, counted from 0."""
        return self._ids[int(index)]

    def texts(self, index: Integer[np.ndarray, " n"]) -> list[str]:
        """The texts at `index`, in that order."""
        return [self._texts[int(i)] for i in index]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of ids, labels and texts."""
        return fingerprint_of(self._ids, self.labels, digest.of_bytes(*(text.encode() for text in self._texts)))

    def take(self, index: Integer[np.ndarray, " n"]) -> "TextSource":
        """The same source with only the samples at `index`."""
        ids = [self._ids[int(i)] for i in index]
        return TextSource(
            self.name, self.classes, ids, self.labels[index], self.texts(index), self.skipped, self.counts
        )

    def with_more(self, other: "TextSource") -> "TextSource":
        """The texts of this source and behind them those of another with the same classes; counts added up."""
        ids, texts = [*self._ids, *other._ids], [*self._texts, *other._texts]
        counts = {kind: self.counts[kind] + other.counts[kind] for kind in COUNTS}
        labels, skipped = np.concatenate([self.labels, other.labels]), [*self.skipped, *other.skipped]
        return TextSource(self.name, self.classes, ids, labels, texts, skipped, counts)


def clean(text: str, max_chars: int) -> tuple[str, list[str]]:
    """A text after the rules of the module, and the kinds of those that touched it. Cleaning twice is cleaning once."""
    touched = []
    if len(text) > max_chars:
        text = text[:max_chars]
        touched.append("cut")
    text = SURROGATE.sub("\ufffd", text)
    if "\ufffd" in text:
        touched.append("replaced")
    for kind, pattern, instead in (("", SPACES, " "), ("bidi", BIDI, ""), ("control", CONTROL, " ")):
        text, times = pattern.subn(instead, text)
        if times and kind:
            touched.append(kind)
    text = text.strip()
    return text, touched if text else [*touched, "empty"]


def same(text: str) -> bytes:
    """What two texts that say the same have in common: 16 bytes of their words, or of a text that has none."""
    words = " ".join(WORD.findall(text.casefold())) or text
    return hashlib.blake2b(words.encode(), digest_size=16).digest()


def collect(rows: Iterable[Row], name: str, split: str, rules: Rules) -> Column:
    """Reads rows and applies the rules.

    Args:
      rows: of a file; each is cut before the next is read.
      name: of the source, for messages.
      split: what ids begin with.
      rules: how.

    Raises:
      UserError: unusable rows under `refuse`, more than `broken_limit` of them under `skip`, or none that can be used.
    """
    made = Column(name)
    places: list[str] = []
    seen: set[bytes] = set()
    for number, row in enumerate(rows):
        if number >= ROWS:
            raise UserError(f"{name}: more than {ROWS} texts. Cut it.")
        text, touched = clean(row.text, rules.max_chars)
        for kind in touched:
            made.counts[kind] += 1
        why = row.why or ("is empty" if not text else "")
        if why:
            made.skipped.append((f"{split}/{row.key}", why))
            places.append(f"line {row.line} {why}" if row.line else f"{split}/{row.key} {why}")
            continue
        what = same(text)
        made.counts["repeated"] += what in seen
        seen.add(what)
        made.ids.append(f"{split}/{row.key}")
        made.texts.append(text)
        made.labels.append(row.label)
    _refuse(made, places, rules)
    return made


def _refuse(made: Column, places: list[str], rules: Rules) -> None:
    total = len(made.ids) + len(places)
    if not total:
        raise UserError(f"{made.name}: there is no text in it.")
    if not made.ids:
        raise UserError(f"{made.name}: none of {total} rows can be used: {some(places)}.")
    if places and rules.broken == "refuse":
        raise UserError(
            f"{made.name}: {len(places)} of {total} rows cannot be used: {some(places)}. Repair them, or set "
            "data.broken='skip'."
        )
    if len(places) > rules.broken_limit * total:
        raise UserError(
            f"{made.name}: {len(places)} of {total} rows cannot be used, and data.broken_limit lets "
            f"{int(rules.broken_limit * total)} be skipped: {some(places)}. Repair them, or raise data.broken_limit."
        )
