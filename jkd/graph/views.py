"""Views: functions from samples to what edges are made of.

`teacher` is its embedding, `input` the sample itself, and a `file` anything the user brings: another model's
embeddings by sample id, or edges as they are. Edges help by what they know and the teacher does not.
"""

import csv
import io
import itertools
from array import array
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Integer, Shaped, UInt8

from jkd import places
from jkd.data.npy import read_npz
from jkd.data.sources import LOAD_BYTES, Source
from jkd.errors import UserError
from jkd.graph.nearest import Edges
from jkd.graph.text_views import lexical_view, opening_view
from jkd.places import Path

SHOWN = 5  # findings a message lists
LINE = 2**16  # bytes of the longest line of an edge list


def _of_images(images: UInt8[np.ndarray, "N H W C"], k: int, targets: Any) -> Float32[np.ndarray, "N P"]:
    return input_view(images)


def _lexical(texts: list[str], k: int, targets: list[str] | None) -> Edges:
    return lexical_view(texts, k, targets=targets)


def _opening(texts: list[str], k: int, targets: list[str] | None) -> Edges:
    return opening_view(texts, k, targets=targets)


# View -> what it is made of (`Source.kind`), and the function from samples to features, or to edges to the k nearest.
OF_SAMPLES: dict[str, tuple[str, Callable[..., Any]]] = {
    "input": ("images", _of_images),
    "lexical": ("texts", _lexical),
    "opening": ("texts", _opening),
}


def view_of(
    name: str,
    source: Source,
    index: Integer[np.ndarray, " n"],
    k: int,
    targets: Integer[np.ndarray, " m"] | None = None,
) -> Float32[np.ndarray, "N D"] | Edges:
    """The features of a view of the samples at `index`, or their edges.

    Args:
      name: of `OF_SAMPLES`.
      source: of the samples.
      index: of the samples, in node order.
      k: neighbours of a sample.
      targets: samples that edges may lead to, in node order; default `index` (another list for held-out samples).

    Raises:
      UserError: where the source has not what the view is made of.
    """
    check_view(name, source)
    kind, function = OF_SAMPLES[name]
    samples = getattr(source, kind)
    made: np.ndarray | Edges = function(samples(index), k, None if targets is None else samples(targets))
    return made


def check_view(name: str, source: Source) -> None:
    """Refuses a view of samples that the source does not hold."""
    kind, _ = OF_SAMPLES[name]
    if source.kind != kind:
        others = " or ".join(f"'{view}'" for view, (other, _) in OF_SAMPLES.items() if other == source.kind)
        raise UserError(
            f"graph.views: '{name}' is made of {kind}, but {source.name} holds {source.kind}. Use {others}."
        )


def input_view(images: UInt8[np.ndarray, "N H W C"]) -> Float32[np.ndarray, "N P"]:
    """The images themselves, flattened, in 0..1."""
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)


def file_view(
    path: str | Path,
    ids: Sequence[str],
    k: int,
    *,
    targets: Sequence[str] | None = None,
    known: Container[str] | None = None,
) -> Float32[np.ndarray, "N D"] | Edges:
    """A view from a file, for the samples named `ids`: features to take neighbours by, or edges.

    - `.npz` with `ids` (texts `[n]`) and `features` (`[n, D]`): embeddings.
    - `.npz` with `source`, `target` (texts `[E]`) and `weight` (`[E]`), or `.csv` / `.tsv` with those three
      columns, a first line of names allowed: directed edges; the k heaviest of each source are kept, ties to
      the lower node.

    Args:
      path: the file.
      ids: ids of the samples, in node order.
      k: neighbours of a sample.
      targets: ids that edges may lead to, in node order; default `ids` (another list for held-out samples).
      known: all ids there are. Edges of known samples outside `ids` and `targets` are passed over; an id that
        is not known is an error. Default: every id is known.

    Raises:
      UserError: naming the file and up to five findings: a sample without features, not finite values, an
      unknown id,
        an edge to itself, an edge twice.
    """
    path = places.path_of(path)
    if not path.is_file():
        raise UserError(f"graph.files: there is no file {path}.")
    if path.suffix in (".csv", ".tsv"):
        rows = _text_rows(path)
    elif path.suffix == ".npz":
        content = read_npz(path, LOAD_BYTES, _wanted)
        if "features" in content:
            return _features(path, content, ids)
        columns = [content.get(name, np.zeros(0)) for name in ("source", "target", "weight")]
        if len({len(column) for column in columns}) > 1 or "source" not in content:
            raise UserError(f"{path}: expected arrays ids + features, or source + target + weight of one length.")
        rows = ((n, str(s), str(t), str(w)) for n, (s, t, w) in enumerate(zip(*columns, strict=True), 1))
    else:
        raise UserError(f"{path}: expected .npz, .csv or .tsv, got '{path.suffix}'.")
    return _edge_list(path, rows, ids, ids if targets is None else targets, k, known)


def _wanted(names: list[str]) -> list[str]:
    """Arrays that a view is made of; whatever else the file has is not read."""
    known = ("ids", "features") if "features" in names else ("source", "target", "weight")
    return [name for name in known if name in names]


def _features(path: Path, content: dict[str, np.ndarray], ids: Sequence[str]) -> np.ndarray:
    names: Shaped[np.ndarray, " n"] = content.get("ids", np.zeros(0, np.str_))
    features = content["features"]
    if names.ndim != 1 or features.ndim != 2 or len(names) != len(features) or features.dtype.kind not in "fiu":
        raise UserError(f"{path}: expected ids [n] and features [n, D], got {names.shape} and {features.shape}.")
    row = {str(name): index for index, name in enumerate(names.tolist())}
    if len(row) < len(names):
        raise UserError(f"{path}: an id comes up twice in ids; give each sample one row.")
    missing = [name for name in ids if name not in row]
    if missing:
        shown = ", ".join(map(repr, missing[:SHOWN]))
        raise UserError(f"{path}: {len(missing)} of {len(ids)} samples have no features: {shown}. Add rows for them.")
    chosen = features[[row[name] for name in ids]].astype(np.float32)
    broken = [ids[index] for index in np.flatnonzero(~np.isfinite(chosen).all(1))[:SHOWN]]
    if broken:
        raise UserError(f"{path}: features are not finite for {', '.join(map(repr, broken))}.")
    return chosen


def _text_rows(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """(line number, source, target, weight) of a csv or tsv, read as a stream."""

    def lines() -> Iterator[str]:
        with io.TextIOWrapper(places.open_read(path), encoding="utf-8", errors="replace", newline="") as file:
            while line := file.readline(LINE):
                if len(line) == LINE:
                    raise UserError(f"{path}: a line is longer than {LINE} characters. Is it an edge list?")
                yield line

    reader = csv.reader(lines(), delimiter="\t" if path.suffix == ".tsv" else ",")
    for number in itertools.count(1):
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise UserError(f'{path}: row {number} is not readable ({error}). Quote texts with ".') from None
        if cells is None:
            return
        if not cells or (number == 1 and [cell.strip().lower() for cell in cells] == ["source", "target", "weight"]):
            continue
        if len(cells) != 3:
            raise UserError(f"{path}: line {number} has {len(cells)} columns; expected source, target, weight.")
        yield number, cells[0], cells[1], cells[2]


def _edge_list(
    path: Path,
    rows: Iterator[tuple[int, str, str, str]],
    ids: Sequence[str],
    targets: Sequence[str],
    k: int,
    known: Container[str] | None,
) -> Edges:
    """The k heaviest edges of each source. Holds under 40 bytes an edge, however long the ids."""
    row, column = ({name: index for index, name in enumerate(names)} for names in (ids, targets))
    pairs, values, found = array("q"), array("f"), []
    for number, source, target, text in rows:
        strange = [name for name in (source, target) if known is not None and name not in known]
        weight = _number(text)
        if strange:
            found.append(f"line {number}: there is no sample {strange[0]!r}")
        elif source == target:
            found.append(f"line {number}: {source!r} has an edge to itself")
        elif not np.isfinite(weight):
            found.append(f"line {number}: weight {text!r} is not a finite number")
        elif source in row and target in column:
            pairs.append(row[source] * len(targets) + column[target])
            values.append(weight)
        if len(found) >= SHOWN:
            break
    order = np.argsort(np.frombuffer(pairs, np.int64), kind="stable")
    pair, weights = np.frombuffer(pairs, np.int64)[order], np.frombuffer(values, np.float32)[order]
    del order, pairs, values
    for double in np.unique(pair[1:][pair[1:] == pair[:-1]])[: SHOWN - len(found)].tolist():
        source, target = divmod(double, len(targets))
        found.append(f"the edge from {ids[source]!r} to {targets[target]!r} comes up twice")
    if found:
        raise UserError(f"{path}: not a usable edge list:\n  " + "\n  ".join(found))
    if not len(pair):
        raise UserError(f"{path}: no edge joins two samples of the pool. Are the ids those of `jkd graph show`?")
    table = Edges(np.full((len(ids), k), -1, np.int32), np.zeros((len(ids), k), np.float32))
    ends = np.searchsorted(pair, np.arange(len(ids) + 1, dtype=np.int64) * len(targets))
    for node, (first, last) in enumerate(itertools.pairwise(ends.tolist())):  # its edges, by rising target
        best = first + np.argsort(-weights[first:last], kind="stable")[:k]
        table.ids[node, : len(best)] = pair[best] % len(targets)
        table.weights[node, : len(best)] = weights[best]
    return table


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
