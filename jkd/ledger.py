"""A book of keys, for tests and for looking into a doubt: which were derived, which were used, and none twice.

While it is open, the functions of `jax.random` write into it, wherever jax, flax or jkd call them. A key's name is the
chain of numbers it was made from, `(seed, tag of the stream, replicate, step, ...)`; a name that is drawn from twice is
a `KeyReused`. So the same `fold_in` made twice is found, which jax's own checker (`jax.debug_key_reuse`) does not
find, as it follows key arrays and not what they were made from; use both.

What the book sees of a compiled program is its tracing: once, however often the program runs, and not at all when it
was traced before. A number that is traced is known by its tracer, so equal numbers that are two tracers (`step + 0`
twice, or the inside of a loop or of another `jit` against its outside) have two names: such reuse is missed, never
invented. It is also blind to numbers that are only equal when the program runs, to parts cut out of an array of keys,
and to what a function of `jax.random` does inside. A key that is not traced is also known by its bits, however made.

Open one book for one program: that students of one seed share their keys is meant. So is that a forward pass computed
again, for want of memory, draws the same dropout: give it the same array of keys under a book, and that is refused.
"""

import contextlib
import functools
import hashlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

Name = tuple[Any, ...]
OWNERS = ("jax", "flax", "jkd")  # packages whose names for a function of `jax.random` are redirected
TYPE_CHECKERS = r"/jaxtyping/|/beartype/|^<"
NO_DRAW = ("key", "PRNGKey", "fold_in", "split", "clone")


class KeyReused(Exception):
    """The same key material was drawn from twice, or two streams have the same tag."""


class Derivation(NamedTuple):
    """A key that was made: `numbers` are what was folded in after the stream's tag, replicate first."""

    stream: str
    seed: Any
    numbers: tuple[Any, ...]


class Ledger:
    """The book.

    Attributes:
      derived: every derivation, in order; host-side draws (`jkd.random.bits`) among them, which may repeat: they are
        functions that are asked again.
      used: name -> where it was drawn from.
    """

    def __init__(self, streams: Mapping[str, int]) -> None:
        self.derived: list[Derivation] = []
        self.used: dict[Name, str] = {}
        self._streams = _by_tag(streams)
        self._names: dict[int, tuple[Any, Name]] = {}  # by id; what is named is kept, so that no id is given twice
        self._inside = False

    def host(self, stream: str, numbers: tuple[int, ...]) -> None:
        """Notes a draw on the host."""
        self.derived.append(Derivation(stream, numbers[0] if numbers else None, tuple(numbers[1:])))

    def name(self, key: Any) -> Name:
        """The chain that a key was made from; a new name for a key of unknown origin."""
        key = _whole(key)
        if id(key) not in self._names:
            self._names[id(key)] = (key, (f"key {len(self._names)} of unknown origin",))
        return self._names[id(key)][1]

    def root(self, key: Any, seed: Any, by: str) -> None:
        """Notes a key made from a seed in the file `by`. Flax has one of its own, only to learn shapes with."""
        self._put(key, (f"placeholder {len(self._names)}",) if "/flax/" in by else (self._number(seed),))

    def folded(self, key: Any, parent: Any, data: Any) -> None:
        """Notes a key made from another and a number."""
        name = (*self.name(parent), self._number(data))
        self._put(key, name)
        if len(name) > 2 and name[1] in self._streams:
            self.derived.append(Derivation(self._streams[name[1]], name[0], name[2:]))

    def drawn(self, key: Any, what: str) -> None:
        """Notes that a key is used up.

        Raises:
          KeyReused: naming both places, when it was before.
        """
        self._use(self.name(key), what)
        if not isinstance(key := _whole(key), jax.core.Tracer):
            self._use(("bits", _bits(key)), what)

    def split(self, key: Any, count: int, what: str) -> None:
        """Notes the children of a key; `split(key)[i]` is `fold_in(key, i)`, to the bit."""
        self._parted(self.name(key), what)
        if not isinstance(key := _whole(key), jax.core.Tracer):
            self._parted(("bits", _bits(key)), what)
        for index in range(count):
            self._use((*self.name(key), index), what)

    def _parted(self, name: Name, what: str) -> None:
        """A key that is split is not to be drawn from, too: both are made of the same bits."""
        if name in self.used and not self.used[name].startswith(f"{what} "):  # split twice, its children tell
            self._use(name, what)
        self.used[name] = f"{what} at {_caller()}"

    def _use(self, name: Name, what: str) -> None:
        where = f"{what} at {_caller()}"
        if name in self.used:
            raise KeyReused(f"{self._spelled(name)} is used twice: by {self.used[name]}, and by {where}.")
        self.used[name] = where

    def _put(self, key: Any, name: Name) -> None:
        for known_as in (key, _whole(key)):
            self._names[id(known_as)] = (known_as, name)

    def _number(self, value: Any) -> Any:
        """An int, what an array of numbers holds, or which traced number it is."""
        value = _whole(value)
        if isinstance(value, jax.core.Tracer):
            if id(value) not in self._names:
                self._names[id(value)] = (value, (f"traced {len(self._names)}",))
            return self._names[id(value)][1][0]
        array = np.asarray(value)
        return (
            int(array) if array.ndim == 0 else f"{array.size} numbers {hashlib.sha256(array.tobytes()).hexdigest()[:8]}"
        )

    def _spelled(self, name: Name) -> str:
        if len(name) > 1 and name[1] in self._streams:
            return (
                f"the key of stream '{self._streams[name[1]]}', seed {name[0]}, then {', '.join(map(str, name[2:]))},"
            )
        return f"the key {', '.join(map(str, name))}"


current: Ledger | None = None


@contextlib.contextmanager
def opened(streams: Mapping[str, int]) -> Iterator[Ledger]:
    """Opens a book for the body (see `jkd.random.ledger`)."""
    global current
    if current is not None:
        raise RuntimeError("a ledger is open already")
    book = Ledger(streams)
    with contextlib.ExitStack() as stack:
        for name, function in _functions().items():
            _redirect(name, function, _watched(book, name, function), stack)
        current = book
        try:
            yield book
        finally:
            current = None


def check_tags(streams: Mapping[str, int]) -> None:
    """Refuses two streams with one tag: all their keys would be the same.

    Raises:
      KeyReused: naming both.
    """
    _by_tag(streams)


def _by_tag(streams: Mapping[str, int]) -> dict[int, str]:
    found: dict[int, str] = {}
    for stream, tag in streams.items():
        if tag in found:
            raise KeyReused(f"the streams '{found[tag]}' and '{stream}' have the same tag, {tag}. Rename one.")
        found[tag] = stream
    return found


def _functions() -> dict[str, Callable[..., Any]]:
    """`key`, `fold_in`, `split`, and every function of `jax.random` that draws from a key."""
    found = {name: getattr(jax.random, name) for name in ("key", "fold_in", "split")}
    for name, function in vars(jax.random).items():
        if name not in NO_DRAW and inspect.isroutine(function) | hasattr(function, "__wrapped__"):
            parameters = list(inspect.signature(function).parameters)
            if parameters[:1] == ["key"]:
                found[name] = function
    return found


def _watched(book: Ledger, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def watched(*given: Any, **options: Any) -> Any:
        if book._inside:  # what a draw does inside is jax's business
            return function(*given, **options)
        book._inside = True
        try:
            first = given[0] if given else options.get("key", options.get("seed"))
            if name not in NO_DRAW:
                book.drawn(first, name)
            made = function(*given, **options)
            if name == "key":
                book.root(made, first, _frames()[-1].filename)
            elif name == "fold_in":
                book.folded(made, first, given[1] if len(given) > 1 else options["data"])
            elif name == "split":
                book.split(first, int(np.prod(made.shape)), name)
            return made
        finally:
            book._inside = False

    return watched


def _redirect(name: str, old: Callable[..., Any], new: Callable[..., Any], stack: contextlib.ExitStack) -> None:
    """Puts `new` wherever a module of `OWNERS` has `old` under its name, until the stack closes."""
    for module_name, module in list(sys.modules.items()):
        if module_name.split(".")[0] in OWNERS and getattr(module, "__dict__", {}).get(name) is old:
            setattr(module, name, new)
            stack.callback(setattr, module, name, old)


def _whole(value: Any) -> Any:
    """Inside `vmap`, the array that is mapped over. Read from a private field, for want of a public word for it."""
    while isinstance(value, jax.core.Tracer) and hasattr(value, "val") and hasattr(value, "batch_dim"):
        value = value.val
    return value


def _bits(key: Any) -> str:
    with jax.ensure_compile_time_eval():
        return hashlib.sha256(np.asarray(jax.random.key_data(key)).tobytes()).hexdigest()


def _frames() -> list[traceback.FrameSummary]:
    """The stack without this file and what checkers of types wrap around its functions."""
    frames = traceback.extract_stack()
    return [frame for frame in frames if frame.filename != __file__ and not re.search(TYPE_CHECKERS, frame.filename)]


def _caller() -> str:
    """The last line of code that is neither in this file nor in an installed package."""
    frames = _frames()
    frame = [*frames[:1], *(frame for frame in frames if "site-packages" not in frame.filename)][-1]
    return f"{frame.filename}:{frame.lineno}"
