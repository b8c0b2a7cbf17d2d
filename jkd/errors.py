"""Errors a user can act on: one message saying what was expected, what came, and what to do."""

import difflib
import re
from collections.abc import Iterable, Sequence

# What can make a terminal show something else than there is: control characters, line separators, marks that turn the
# direction of writing or have no width, surrogates, non-characters.
ODD = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufffe\uffff]")

EDITS = 2  # a name is suggested for a word that is so many edits away from it
LONG = 200  # characters of a name that is compared with others, which takes time by their square


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
    """Returns `" Did you mean 'x'?"` for the nearest of `known`, and, where none is much alike, what there is.

    Nearest is what takes the fewest edits, at most two: up to three names where several take as many, the more alike
    first. Where none is so near, it is the one that has most in common.
    """
    known = sorted(known)
    short = [name for name in known if len(name) <= LONG] if len(word) <= LONG else []
    edits = {name: found for name in short if (found := _edits(word, name, EDITS)) <= EDITS}
    fewest = min(edits.values(), default=0)
    nearest = [name for name in edits if edits[name] == fewest]
    nearest.sort(key=lambda name: -difflib.SequenceMatcher(None, name, word).ratio())
    alike = difflib.get_close_matches(word, nearest or short, n=1, cutoff=0.6)
    shown = [f"'{name}'" for name in (nearest or alike)[:3]]
    asked = " or ".join(part for part in (", ".join(shown[:-1]), *shown[-1:]) if part)
    hint = f" Did you mean {asked}?" if asked else ""
    return hint if alike or not known else f"{hint} Known: {', '.join(known)}."


def _edits(one: str, other: str, most: int) -> int:
    """How many characters added, dropped, changed or swapped with the next make one text the other; at most `most` + 1.

    Damerau 1964, A technique for computer detection and correction of spelling errors; no character is edited twice.
    """
    if abs(len(one) - len(other)) > most:
        return most + 1
    same = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    one, other = one[same:], other[same:]
    if not one or not other or not most:
        return min(max(len(one), len(other)), most + 1)
    tries = [(one[1:], other), (one, other[1:]), (one[1:], other[1:])]
    if one[:2] == other[1::-1]:
        tries.append((one[2:], other[2:]))
    return 1 + min(_edits(*rest, most - 1) for rest in tries)
