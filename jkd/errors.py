"""Errors a user can act on: one message saying what was expected, what came, and what to do."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in a config, a file or a command. The command line prints its message alone and exits with 2."""


class Locked(UserError):
    """Another process is working on the same part of a run."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns `" Did you mean 'x'?"` for the nearest of `known`, or, where none is near, what there is."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f" Did you mean '{near[0]}'?"
    return f" Known: {', '.join(known)}." if known else ""
