"""Which layer of the teacher each layer of a shallower student learns from. Imports no jax."""

from collections.abc import Sequence
from typing import Any

from jkd.errors import UserError, did_you_mean

MAPS = ("uniform", "skip", "last", "given")

Pairs = tuple[tuple[int, int], ...]


def layer_map(name: str, student: int, teacher: int, given: Sequence[Any] = (), where: str = "layers") -> Pairs:
    """Pairs (student layer, teacher layer), in order of the student's layers, which are counted from 0.

    Layer 0 is the first block; the embedding layer is not counted. With M student and N teacher layers:

      `uniform`: layer s with floor((s + 1) N / M) - 1, so last with last (TinyBERT).
      `skip`: layer s with (s + 1) floor(N / M) - 1, the last student layer left out: its task is the logits (PKD-Skip).
      `last`: layer s with N - M + s, the last M of the teacher (PKD-Last, TinyBERT's "top").
      `given`: the pairs of `given`.

    Args:
      name: one of `MAPS`.
      student: M, the student's depth.
      teacher: N, the teacher's depth.
      given: pairs of layers, only with `given`.
      where: the config key that is at fault, for messages.

    Raises:
      UserError: an unknown map, a depth below 1, a teacher shallower than the student, no pair, a layer that is not
        there, a pair that is named twice.

    References: Jiao et al. 2020, arXiv 1909.10351; Sun et al. 2019, arXiv 1908.09355.
    """
    if name not in MAPS:
        raise UserError(f"{where}: expected one of {', '.join(MAPS)}, got {name!r}.{did_you_mean(str(name), MAPS)}")
    for who, depth in (("student", student), ("teacher", teacher)):
        if not _is_count(depth) or depth < 1:
            raise UserError(f"{where}: expected a {who} of at least 1 layer, got {depth!r}.")
    if name == "given":
        return _checked(given, student, teacher, where)
    if len(given):
        raise UserError(f"{where}: pairs of layers are given, but the map is '{name}'. Set it to 'given'.")
    if teacher < student:
        raise UserError(
            f"{where}: '{name}' expects a teacher of at least {student} layers, as the student has, got {teacher}."
            " Use 'given' and name the pairs."
        )
    if name == "skip" and student == 1:
        raise UserError(f"{where}: 'skip' expects a student of at least 2 layers, as it leaves out the last, got 1.")
    if name == "uniform":
        return tuple((layer, (layer + 1) * teacher // student - 1) for layer in range(student))
    if name == "skip":
        return tuple((layer, (layer + 1) * (teacher // student) - 1) for layer in range(student - 1))
    return tuple((layer, teacher - student + layer) for layer in range(student))


def _checked(given: Sequence[Any], student: int, teacher: int, where: str) -> Pairs:
    expected = f"pairs (student layer 0 to {student - 1}, teacher layer 0 to {teacher - 1})"
    if not isinstance(given, list | tuple) or not given:
        raise UserError(f"{where}: 'given' expects {expected}, got {given!r}.")
    pairs = set()
    for pair in given:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(_is_count(layer) for layer in pair):
            raise UserError(f"{where}: 'given' expects {expected}, got {pair!r}.")
        if not (0 <= pair[0] < student and 0 <= pair[1] < teacher):
            raise UserError(f"{where}: expected {expected}, got {tuple(pair)}: there is no such layer.")
        if tuple(pair) in pairs:
            raise UserError(f"{where}: expected each pair once, got {tuple(pair)} twice.")
        pairs.add((pair[0], pair[1]))
    return tuple(sorted(pairs))


def _is_count(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)
