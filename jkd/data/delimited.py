"""Texts and labels from the columns of a TSV or CSV file."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from jkd.data.lines import LINE
from jkd.data.texts import Row
from jkd.errors import UserError, did_you_mean, some

# What a column is called where nobody says; the first that a header has.
TEXT = ("text", "sentence", "question", "review", "description", "content")
LABEL = ("label", "class", "category", "target", "sentiment", "label_coarse")
HEADERS, QUOTES = ("auto", "yes", "no"), ("auto", "yes", "no")


@dataclass(frozen=True)
class Form:
    """How a file is to be read.

    Attributes:
      text: the column's name, or its position counted from 0; empty = one that is called `text`, `sentence`,
        `question`, `review`, `description` or `content`, or the first of two columns without a header.
      label: likewise; empty = `label`, `class`, `category`, `target`, `sentiment` or `label_coarse`, or the second.
      header: whether the first row names the columns: `yes`, `no`, or `auto`: it does if both columns are found
        in it by name; where one is given by position, if the other is; where both are, if one has a usual name.
      delimiter: one character.
      quotes: whether texts may stand in `"`: `yes`, `no`, or `auto`: unless the delimiter is a tab.
    """

    text: str = ""
    label: str = ""
    header: str = "auto"
    delimiter: str = ","
    quotes: str = "auto"


def rows(lines: Iterator[str], form: Form, where: str) -> Iterator[Row]:
    """The rows of a file by number, blank lines passed over; a row of too few columns says so in `why`.

    Raises:
      UserError: no such column, quotes that do not close, a field of more than 2**24 characters.
    """
    found = _cells(lines, form, where)
    first = next(found, None)
    if first is None:
        return
    header, text, label = _columns(first[1], form, where)
    width = max(text, label) + 1
    for number, (line, cells) in enumerate(found if header else _again(first, found)):
        if len(cells) < width or (header and len(cells) != len(first[1])):
            wanted = len(first[1]) if header else f"at least {width}"
            yield Row(f"{number:06d}", "", "", f"has {len(cells)} columns instead of {wanted}", line)
        else:
            yield Row(f"{number:06d}", cells[text], cells[label].strip(), line=line)


def _again(first: tuple[int, list[str]], rest: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    yield first
    yield from rest


def _cells(lines: Iterator[str], form: Form, where: str) -> Iterator[tuple[int, list[str]]]:
    quoted = form.quotes == "yes" or (form.quotes == "auto" and form.delimiter != "\t")
    style: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    # Strict: otherwise a quote that never closes would swallow the rest of the file without a word.
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=form.delimiter, quoting=style, strict=True)
    usual = csv.field_size_limit(LINE)
    try:
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise UserError(
                    f'{where}: the row at line {line} cannot be read ({error}). Double each " inside quotes, or set '
                    "data.quotes='no' where they are part of the text."
                ) from None
            if cells is None:
                return
            if cells:
                yield line, cells
    finally:
        csv.field_size_limit(usual)


def _columns(first: Sequence[str], form: Form, where: str) -> tuple[bool, int, int]:
    """Whether the first row is a header, and the positions of text and label."""
    names = [cell.strip().lower() for cell in first]
    text, label = (_named(names, wanted, known) for wanted, known in ((form.text, TEXT), (form.label, LABEL)))
    header = form.header == "yes" or (form.header == "auto" and _is_header(names, text, label, form))
    if not header:
        text = label = None
        if not form.text and not form.label and len(first) == 2:
            return False, 0, 1
    positions = [
        at if at is not None else _position(wanted, first, what, where)
        for at, wanted, what in ((text, form.text, "text"), (label, form.label, "label"))
    ]
    if positions[0] == positions[1]:
        raise UserError(f"{where}: data.text and data.label are the same column, {positions[0]}.")
    return header, positions[0], positions[1]


def _is_header(names: Sequence[str], text: int | None, label: int | None, form: Form) -> bool:
    """Whether a first row names what was asked for: both columns, or, where positions were given, by a usual name."""
    by_place = [_is_number(form.text), _is_number(form.label)]
    if all(by_place):
        cells = [names[int(at)] if int(at) < len(names) else "" for at in (form.text, form.label)]
        return cells[0] in TEXT or cells[1] in LABEL
    return all(at is not None or placed for at, placed in zip((text, label), by_place, strict=True))


def _named(names: Sequence[str], wanted: str, known: Sequence[str]) -> int | None:
    """Where the header has the wanted name, or the first of the known ones; None if nowhere."""
    for name in [wanted.strip().lower()] if wanted else known:
        if names.count(name) == 1:
            return names.index(name)
    return None


def _position(wanted: str, first: Sequence[str], what: str, where: str) -> int:
    if _is_number(wanted) and int(wanted) < len(first):
        return int(wanted)
    shown = some([cell[:40] for cell in first], 8)
    if _is_number(wanted):
        raise UserError(
            f"{where}: data.{what} asks for column {wanted}, counted from 0; there are {len(first)}: {shown}."
        )
    if not wanted:
        raise UserError(
            f"{where}: which column is the {what}? Name it by data.{what}, or by its position from 0: {shown}."
        )
    hint = did_you_mean(wanted, [cell[:40] for cell in first])
    raise UserError(f"{where}: no column, or more than one, is named '{wanted}' (data.{what}) in the first row.{hint}")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 7
