"""JSON objects of very long lists, read an item at a time: what is not kept is never all in memory."""

import codecs
import json
import re
from collections.abc import Callable, Mapping
from typing import IO, Any

from jkd import files, places
from jkd.errors import Damaged, UserError
from jkd.places import Path

PIECE = 2**18  # bytes read at once
ITEM = 2**21  # most characters of an item, or of another value: one in COCO 2017 has some 100,000
EDGE = 16  # characters at the window's edge that may be half a number, an escape or `-Infinity`
BLANK = re.compile(r"[ \t\n\r]*")


def read(path: Path, take: Mapping[str, Callable[[Any], None]], form: str) -> set[str]:
    """Hands every item of the lists under the keys of `take` to it, and returns the keys that the file has.

    All other values are passed over.

    Args:
      path: of the file.
      take: key -> what takes an item, once each and in order.
      form: what is expected, for messages.

    Raises:
      UserError: the file cannot be read, is no JSON object, gives a key twice, has no list under a key of `take`, holds
        an item or value of over `ITEM` characters, or what `take` raises.
    """
    try:
        with places.open_read(path) as file:
            return _Reader(path, file, form).members(take)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}). Check it and its permissions.") from None
    except RecursionError:
        raise Damaged(f"{path} is not valid JSON (nested too deeply). Copy it again.") from None
    except ValueError as error:  # of the encoding, the syntax, or a number of thousands of digits
        raise Damaged(f"{path} is not valid JSON ({error}). Copy it again.") from None


class _Reader:
    """A window on the text of a file, that moves on with what is read."""

    def __init__(self, path: Path, file: IO[bytes], form: str) -> None:
        self._path, self._file, self._form, self._read = path, file, form, 0
        self._bytes = codecs.getincrementaldecoder("utf-8")()
        self._parse = files.decoder().raw_decode
        self._text, self._at, self._before, self._ended = "", 0, 0, False

    def members(self, take: Mapping[str, Callable[[Any], None]]) -> set[str]:
        """Reads the whole object."""
        found: set[str] = set()
        if not self._passed("{"):
            raise self._other(next(iter(take)))
        more = not self._passed("}")
        while more:
            key = self._value()
            if not isinstance(key, str):
                raise self._wrong("a key in quotes")
            if key in found:
                raise ValueError(f"the key {key!r} comes up twice")
            found.add(key)
            self._expect(":")
            if self._next() == "[":
                self._items(take.get(key, _passed_over))
            elif key in take:
                raise self._other(key)
            else:
                self._value()
            more = not self._passed("}")
            if more:
                self._expect(",")
        if self._next():
            raise self._wrong("the end")
        return found

    def _items(self, take: Callable[[Any], None]) -> None:
        self._expect("[")
        more = not self._passed("]")
        while more:
            take(self._value())
            more = not self._passed("]")
            if more:
                self._expect(",")

    def _value(self) -> Any:
        """The next value; one at the window's edge may go on behind it, as a number does."""
        self._next()
        wanted = PIECE
        while True:
            held = len(self._text) - self._at
            try:
                value, end = self._parse(self._text, self._at)
                if end + EDGE < len(self._text) or self._ended:
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                inside = error.pos + EDGE < len(self._text) and not error.msg.startswith("Unterminated string")
                if self._ended or inside:
                    raise ValueError(f"{error.msg}: character {self._before + error.pos}") from None
            if held > ITEM:
                raise UserError(
                    f"{self._path}: what begins at character {self._before + self._at} is no value of at most {ITEM} "
                    "characters. Is it the right file?"
                )
            self._more(wanted)
            wanted *= 2

    def _next(self) -> str:
        """The next character that is not blank, which stays; '' at the end."""
        while True:
            self._at = BLANK.match(self._text, self._at).end()  # type: ignore[union-attr]  # matches nothing, too
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more(PIECE)

    def _passed(self, mark: str) -> bool:
        there = self._next() == mark
        self._at += there
        return there

    def _expect(self, mark: str) -> None:
        if not self._passed(mark):
            raise self._wrong(f"'{mark}'")

    def _wrong(self, expected: str) -> ValueError:
        return ValueError(f"expected {expected} at character {self._before + self._at}, got {self._next()!r}")

    def _other(self, key: str) -> UserError:
        return UserError(f"{self._path}: expected {self._form}; '{key}' is not.")

    def _more(self, wanted: int) -> None:
        data = files.retried(lambda: self._piece(wanted))
        self._read += len(data)
        self._ended = not data
        self._before += self._at
        self._text, self._at = self._text[self._at :] + self._bytes.decode(data, final=self._ended), 0

    def _piece(self, wanted: int) -> bytes:
        self._file.seek(self._read)  # a try that failed may have moved on
        return self._file.read(wanted)


def _passed_over(item: Any) -> None:
    """Takes what nobody wants."""
