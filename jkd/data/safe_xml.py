"""XML that nobody vouches for: elements and text, nothing else, of bounded size.

A document type declaration is refused as such, and with it every entity (and so every expansion of entities, and every
file or address that one could name). Comments and processing instructions are passed over.
"""

from typing import NoReturn
from xml.etree import ElementTree
from xml.parsers import expat

from jkd import files, places
from jkd.places import Path

MOST_BYTES = 2**22
MOST_ELEMENTS = 200_000
MOST_DEPTH = 32


class Refused(Exception):
    """Why a document cannot be used."""


def read(path: Path, most: int = MOST_BYTES) -> ElementTree.Element:
    """The root element of a file.

    Raises:
      Refused: missing, unreadable, larger than `most` bytes, not well formed, a declaration of a document type or an
        entity, nested too deeply or too many elements.
    """
    try:
        data = files.retried(lambda: _bytes(path, most))
    except OSError as error:
        raise Refused(f"cannot be read ({error.strerror or error})") from None
    return parse(data, most)


def _bytes(path: Path, most: int) -> bytes:
    with places.open_read(path) as file:
        return file.read(most + 1)


def parse(data: bytes, most: int = MOST_BYTES) -> ElementTree.Element:
    """The root element of a document; see `read`."""
    if len(data) > most:
        raise Refused(f"has over {most} bytes")
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    open_now = seen = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal open_now, seen
        open_now, seen = open_now + 1, seen + 1
        if open_now > MOST_DEPTH:
            raise Refused(f"is nested over {MOST_DEPTH} deep")
        if seen > MOST_ELEMENTS:
            raise Refused(f"has over {MOST_ELEMENTS} elements")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal open_now
        open_now -= 1
        builder.end(name)

    def refuse(*_: object) -> NoReturn:
        raise Refused("declares a document type or an entity, which annotations do not need")

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = parser.UnparsedEntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # LookupError: an encoding that there is not
        raise Refused(f"is not well-formed XML ({error})") from None
    return builder.close()
