"""Texts and labels from JSON lines: one object a line."""

import json
from collections.abc import Iterator
from typing import Any

from jkd.data.delimited import LABEL, TEXT
from jkd.data.texts import Row
from jkd.errors import UserError, did_you_mean


def rows(lines: Iterator[str], text: str, label: str, where: str) -> Iterator[Row]:
    """The objects of a file by number, blank lines passed over; one that is not as expected says so in `why`.

    Args:
      lines: of the file.
      text: the key of the text; empty = the first of `delimited.TEXT` that the first object has.
      label: the key of the label, whose value is a text, a whole number or a truth value; null or a missing key is no
        label. Empty = the first of `delimited.LABEL`.
      where: names the file in messages.

    Raises:
      UserError: the first object has no such keys.
    """
    keys: tuple[str, str] | None = None
    number = 0
    for line, content in enumerate(lines, 1):
        if not content.strip():
            continue
        key, value, why = f"{number:06d}", *_parsed(content)
        number += 1
        if why:
            yield Row(key, "", "", why, line)
            continue
        if keys is None:
            keys = _key(value, text, TEXT, "text", where), _key(value, label, LABEL, "label", where)
        said, named = value.get(keys[0]), value.get(keys[1])
        if not isinstance(said, str):
            yield Row(key, "", "", f"has no text under '{keys[0]}'", line)
        elif not (named is None or isinstance(named, str | int)):
            yield Row(key, "", "", f"has under '{keys[1]}' what is neither a text nor a whole number", line)
        else:
            yield Row(key, said, "" if named is None else _label(named), line=line)


def _parsed(content: str) -> tuple[dict[str, Any], str]:
    try:
        value = json.loads(content)
    except RecursionError:
        return {}, "is no JSON (nested too deeply)"
    except ValueError as error:
        return {}, f"is no JSON ({error})"
    return (value, "") if isinstance(value, dict) else ({}, "is no JSON object")


def _label(value: str | int) -> str:
    return str(int(value)) if isinstance(value, int) else value.strip()


def _key(first: dict[str, Any], wanted: str, known: tuple[str, ...], what: str, where: str) -> str:
    for name in [wanted] if wanted else known:
        if name in first:
            return name
    asked = f"no key '{wanted}' (data.{what})" if wanted else f"no key that data.{what} could mean"
    raise UserError(f"{where}: the first object has {asked}.{did_you_mean(wanted, [name[:40] for name in first])}")
