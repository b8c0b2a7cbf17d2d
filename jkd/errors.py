"""Errors a user can act on: one message saying what was expected, what came, and what to do."""

import difflib
import re
from collections.abc import Iterable, Sequence

# What can make a terminal show something else than there is: control characters, line separators, marks that turn the
# direction of writing or have no width, surrogates, non-characters.
ODD = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufffe\uffff]")


def visible(text: str, keep: str = "") -> str:
    """A text with control and direction characters as escapes, `\\x1b`, all but those in `keep`."""
    return ODD.sub(lambda found: found[0] if found[0] in keep else as_escape(found[0]), text)


def as_escape(character: str) -> str:
    """A character as Python would write it in plain ASCII: `\\n`, `\\x1b`, `\\u202e`."""
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def some(names: Sequence[str], most: int = 5) -> str:
    """At most `most` names for a message, each on one line whatever it is, with how many more there are."""
    shown = ", ".join(visible(str(name)) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


class UserError(Exception):
    """A mistake in a config, a file or a command. The command line prints its message alone and exits with 2.

    Messages quote names that come with data, so what could steer a terminal is shown as an escape.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(visible(message, keep="\n"))


class Locked(UserError):
    """Another process is working on the same part of a run."""


class Notice(UserWarning):
    """What a user should know of a run that goes on. With `--strict` it ends instead, as by a `UserError`."""

    def __init__(self, message: str = "") -> None:
        super().__init__(visible(message, keep="\n"))


class Damaged(UserError):
    """A file of a run is not what was written: its bytes are not what a digest of them says, or cannot be read."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns `" Did you mean 'x'?"` for the nearest of `known`, or, where none is near, what there is."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f" Did you mean '{near[0]}'?"
    return f" Known: {', '.join(known)}." if known else ""
