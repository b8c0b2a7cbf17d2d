"""Lines of text files that nobody vouches for: one at a time, decoded by a named encoding, none without end."""

import codecs
import itertools
from collections.abc import Iterator

from jkd import files, places
from jkd.data.sources import LOAD_BYTES
from jkd.errors import UserError, did_you_mean
from jkd.places import Path

CHUNK = 2**16  # bytes read at once
LINE = 2**24  # most characters of a line, and of a quoted field that runs over several
FILE = LOAD_BYTES // 4  # most bytes of a file
ENCODINGS = ("utf-8", "utf-16", "latin-1", "cp1252", "ascii", "gb18030", "shift_jis", "big5", "koi8-r")


def read_lines(path: Path, encoding: str = "utf-8", errors: str = "strict") -> Iterator[str]:
    """The lines of a file, without their ends (`\\n` or `\\r\\n`).

    A carriage return inside a line comes as a vertical tab, which `jkd.data.texts.clean` takes for the control
    character that it is; csv would refuse it. A byte order mark at the start is left out.

    Args:
      path: of the file.
      encoding: as Python names it.
      errors: `strict`, or `replace`: what does not decode becomes U+FFFD.

    Raises:
      UserError: no such file, no such encoding, bytes that do not decode (with line and byte), a line of more than
        2**24 characters, a file of more than 2 GiB.
    """
    decoder = decoder_of(encoding, errors)
    try:
        if places.size(path) > FILE:
            raise UserError(f"{path}: {places.size(path)} bytes, over {FILE / 2**30:g} GiB. Cut it.")
        with files.retried(lambda: places.open_read(path)) as file:
            yield from _lines(iter(lambda: file.read(CHUNK), b""), decoder, str(path), encoding)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}). Check it and its permissions.") from None


def lines_of(data: bytes, where: str, encoding: str = "utf-8", errors: str = "strict") -> Iterator[str]:
    """`read_lines` of bytes in memory; `where` names them in messages."""
    chunks = (data[start : start + CHUNK] for start in range(0, len(data), CHUNK))
    return _lines(chunks, decoder_of(encoding, errors), where, encoding)


def decoder_of(encoding: str, errors: str) -> codecs.IncrementalDecoder:
    """An incremental decoder; `UserError` for what is no text encoding."""
    try:
        " ".encode(encoding)  # refuses codecs between bytes, such as hex and zip
        return codecs.getincrementaldecoder(encoding)(errors)
    except (LookupError, TypeError, ValueError):
        hint = did_you_mean(encoding, ENCODINGS)
        raise UserError(f"data.encoding: there is no text encoding '{encoding}'.{hint}") from None


def _lines(chunks: Iterator[bytes], decoder: codecs.IncrementalDecoder, where: str, encoding: str) -> Iterator[str]:
    number, held = 1, 0
    parts: list[str] = []
    for text in _decoded(chunks, decoder, where, encoding):
        *whole, rest = text.split("\n")
        for end in whole:
            _check(held + len(end), number, where)
            yield _line("".join([*parts, end]))
            parts, held, number = [], 0, number + 1
        parts.append(rest)
        held += len(rest)
        _check(held, number, where)
    if held:
        yield _line("".join(parts))


def _check(length: int, number: int, where: str) -> None:
    if length > LINE:
        raise UserError(
            f"{where}: line {number} is longer than {LINE} characters. Is this a text file, one text a line?"
        )


def _line(text: str) -> str:
    return text.removesuffix("\r").replace("\r", "\v")


def _decoded(chunks: Iterator[bytes], decoder: codecs.IncrementalDecoder, where: str, encoding: str) -> Iterator[str]:
    lines, passed, begun = 1, 0, False  # of what was decoded and handed out
    for chunk in itertools.chain(chunks, [b""]):
        waiting = len(decoder.getstate()[0])  # bytes of a character that the last chunk cut
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeError as error:
            start, data = getattr(error, "start", 0), getattr(error, "object", b"")
            line, bad = lines + data[:start].count(b"\n"), data[start : start + 1]
            raise UserError(
                f"{where}: line {line}, byte {passed - waiting + start} (from 0) is no {encoding}: 0x{bad.hex()}. "
                "Name the right data.encoding, or set data.errors='replace'."
            ) from None
        yield text if begun else text.removeprefix("\ufeff")
        begun = begun or bool(text)
        lines += text.count("\n")
        passed += len(chunk)
