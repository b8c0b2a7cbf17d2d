"""Concepts above the classes, from a JSON file: `{classes: [..], concepts: [..], is_a: {child: parents}}`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int32

from jkd import files, places
from jkd.data.trec import TAXONOMY
from jkd.errors import UserError, did_you_mean
from jkd.places import Path

SHIPPED = {"trec": TAXONOMY}  # what comes with the package, by name


@dataclass(frozen=True)
class Taxonomy:
    """`is_a` edges of a data set's classes.

    Attributes:
      concepts: their names.
      is_a: (child, parent) rows, sorted, int32 `[E, 2]`; class c counts as c, concept j as C + j.
      missing: classes of the data set that the file does not place.
    """

    concepts: tuple[str, ...] = ()
    is_a: Int32[np.ndarray, "E 2"] = field(default_factory=lambda: np.zeros((0, 2), np.int32))
    missing: tuple[str, ...] = ()


def located(path: str | Path) -> Path:
    """The file that a path names, or the name of a taxonomy that comes with the package: `trec`."""
    return SHIPPED.get(str(path)) or places.path_of(path)


def load(path: str | Path, classes: Sequence[str]) -> Taxonomy:
    """Reads a taxonomy for a data set's classes, matched without regard to case.

    A child is looked for among the file's classes first, then among its concepts (a name may be both: COCO's
    `person`). Classes of the file that the data set has not are passed over; so one COCO file serves any
    subset. `trec` names the taxonomy that comes with the package.

    Raises:
      UserError: where the file is not of that form, an edge names what is neither class nor concept, or edges run in
        a circle.
    """
    content = files.read_json(located(path), files.JSON)
    known, concepts, is_a = (_part(content, path, key, kind) for key, kind in _PARTS)
    place = {_folded(name): index for index, name in enumerate(classes)}
    above = {_folded(name): len(classes) + index for index, name in enumerate(concepts)}
    listed = {_folded(name) for name in known} | set(place)
    rows = set()
    for child, parents in is_a.items():
        for parent in parents if isinstance(parents, list) else [parents]:
            if _folded(parent) not in above:
                hint = did_you_mean(str(parent), concepts)
                raise UserError(f"{path}: is_a: '{parent}' is not one of its concepts.{hint}")
            if _folded(child) in place:
                rows.add((place[_folded(child)], above[_folded(parent)]))
            elif _folded(child) in listed:
                continue
            elif _folded(child) in above:
                rows.add((above[_folded(child)], above[_folded(parent)]))
            else:
                hint = did_you_mean(child, [*known, *concepts])
                raise UserError(f"{path}: is_a: '{child}' is neither a class nor a concept of it.{hint}")
    table = np.asarray(sorted(rows), np.int32).reshape(-1, 2)
    if (node := on_a_cycle(table)) is not None:
        raise UserError(f"{path}: is_a: there is a cycle through '{[*classes, *concepts][node]}'. Cut it somewhere.")
    placed = set(table[:, 0].tolist())
    missing = tuple(name for index, name in enumerate(classes) if index not in placed)
    return Taxonomy(tuple(str(name) for name in concepts), table, missing)


def on_a_cycle(is_a: Int32[np.ndarray, "E 2"]) -> int | None:
    """A node on a cycle of (child, parent) rows, or None."""
    parents: dict[int, list[int]] = {}
    for child, parent in is_a.tolist():
        parents.setdefault(child, []).append(parent)
    below = Counter(is_a[:, 1].tolist())
    free = [child for child in parents if not below[child]]
    while free:  # take away the edges of nodes that nothing points to; a cycle stays behind
        for parent in parents.pop(free.pop(), ()):
            below[parent] -= 1
            if not below[parent]:
                free.append(parent)
    return next((child for child in is_a[:, 0].tolist() if child in parents), None)


_PARTS: tuple[tuple[str, Any], ...] = (("classes", list), ("concepts", list), ("is_a", dict))


def _part(content: Any, path: str | Path, key: str, kind: Any) -> Any:
    value = content.get(key) if isinstance(content, dict) else None
    if not isinstance(value, kind) or not all(isinstance(item, str) for item in value):
        raise UserError(
            f"{path}: expected {{classes: [...], concepts: [...], is_a: {{name: concept}}}}; '{key}' is not."
        )
    if kind is list and len({_folded(item) for item in value}) < len(value):
        raise UserError(f"{path}: {key}: a name comes up twice (case does not tell names apart).")
    return value


def _folded(name: Any) -> str:
    return str(name).strip().casefold()
