"""Views of texts: edges by the words that two texts share (`lexical`), or by how they begin (`opening`).

A text becomes a sparse vector of counted features, and its edges lead to the k texts of the largest cosine, computed
exactly: a projection to a width that fits in memory as `[N, D]` loses half of them (of TREC's 8 nearest
by `lexical`, 1,024 random directions keep 48 %, 2,048 keep 60 %). A block of rows is multiplied at a time, so memory is
O(features of the texts + block x N).
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Integer

from jkd.graph.nearest import Edges

GRAMS = 3  # words of the longest n-gram of `lexical`
OPENING = 2  # words of the longest beginning of `opening`
GRID = 2.0**20  # cosines are compared on this grid: what differs by rounding alone ties
HELD = 2**23  # values of a block of cosines held at once
# Scripts that put no spaces between words: kana, Han, Thai, Lao, Burmese, Khmer. Of these each character is a word.
SPACELESS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002ffff"
)
WORD = re.compile(rf"[{SPACELESS}]|[^\W{SPACELESS}]+")

Csr = Any  # scipy.sparse.csr_array, float64


def lexical_view(texts: Sequence[str], k: int, *, targets: Sequence[str] | None = None) -> Edges:
    """Each text's k nearest others by the cosine of their TF-IDF vectors of word 1-3-grams: tables `[N, k]`.

    Words are runs of letters and digits, without regard to case, or single characters where a script has no spaces;
    punctuation does not count. An n-gram in n texts of N
    weighs (1 + ln times) (1 + ln((1 + N) / (1 + n))) in each. Texts that share nothing have no edge.

    Args:
      texts: of the samples, in node order.
      k: neighbours of a sample.
      targets: texts that edges may lead to, in node order, and that the weights are counted in; default `texts`
        (another list for held-out samples).

    Reference: Salton and Buckley, Term-weighting approaches in automatic text retrieval, 1988.
    """
    return _edges(texts, targets, k, _grams, tf_idf=True)


def opening_view(texts: Sequence[str], k: int, *, targets: Sequence[str] | None = None, words: int = OPENING) -> Edges:
    """Each text's k nearest others by their first words: tables `[N, k]`.

    The features of a text are its beginnings of 1, 2, ... `words` words, so the cosine is the square root of how large
    a part of both is the same: 1 for the same first two words, 0.5 for the same first one. Most similarities tie; see
    `_best` for who wins. Arguments as for `lexical_view`.
    """
    return _edges(texts, targets, k, lambda text: _beginnings(text, words), tf_idf=False)


def _grams(text: str) -> Iterable[str]:
    words = WORD.findall(text.casefold())
    return (" ".join(words[at : at + n]) for n in range(1, GRAMS + 1) for at in range(len(words) - n + 1))


def _beginnings(text: str, words: int) -> Iterable[str]:
    first = [found[0] for found, _ in zip(WORD.finditer(text.casefold()), range(words), strict=False)]
    return (" ".join(first[: n + 1]) for n in range(len(first)))


def _edges(
    texts: Sequence[str],
    targets: Sequence[str] | None,
    k: int,
    features: Callable[[str], Iterable[str]],
    tf_idf: bool,
) -> Edges:
    numbers: dict[str, int] = {}
    inside = _counts(texts if targets is None else targets, features, numbers, grow=True)
    columns = _unit(_weighted(inside, inside) if tf_idf else inside)
    if targets is None:
        return _search(columns, columns, k, own=True)
    outside = _counts(texts, features, numbers, grow=False)
    return _search(_unit(_weighted(outside, inside) if tf_idf else outside), columns, k, own=False)


def _counts(texts: Sequence[str], features: Callable[[str], Iterable[str]], numbers: dict[str, int], grow: bool) -> Csr:
    """How often each text has each feature, `[N, F]`; features without a number get one, or count for nothing."""
    from scipy import sparse

    columns: list[np.ndarray] = []
    values: list[np.ndarray] = []
    starts = [0]
    for text in texts:
        if grow:
            found = [numbers.setdefault(feature, len(numbers)) for feature in features(text)]
        else:
            found = [numbers[feature] for feature in features(text) if feature in numbers]
        distinct, times = np.unique(np.asarray(found, np.int32), return_counts=True)
        columns.append(distinct)
        values.append(times.astype(np.float64))
        starts.append(starts[-1] + len(distinct))
    empty = [np.zeros(0)]
    data = (np.concatenate(values or empty), np.concatenate(columns or empty).astype(np.int32), np.asarray(starts))
    return sparse.csr_array(data, shape=(len(texts), max(1, len(numbers))))


def _weighted(counts: Csr, inside: Csr) -> Csr:
    """TF-IDF of counts, document frequencies taken from `inside`."""
    texts = np.bincount(inside.indices, minlength=inside.shape[1])
    rarity = 1 + np.log((1 + inside.shape[0]) / (1 + texts))
    weighted = counts.copy()
    weighted.data = (1 + np.log(counts.data)) * rarity[counts.indices]
    return weighted


def _unit(rows: Csr) -> Csr:
    """Rows scaled to length 1; those without features stay empty."""
    length = np.sqrt(np.add.reduceat(np.append(rows.data**2, 0.0), rows.indptr[:-1])) if rows.shape[0] else np.zeros(0)
    held = np.diff(rows.indptr)
    scaled = rows.copy()
    scaled.data = rows.data / np.repeat(length, held)
    return scaled


def _search(rows: Csr, columns: Csr, k: int, own: bool) -> Edges:
    nodes = columns.shape[0]
    ids = np.full((rows.shape[0], k), -1, np.int32)
    weights = np.zeros((rows.shape[0], k), np.float32)
    across = columns.T.tocsr()
    block = max(1, HELD // max(1, nodes))
    for start in range(0, rows.shape[0], block):
        scores = rows[start : start + block] @ across
        for row, (first, last) in enumerate(zip(scores.indptr, scores.indptr[1:], strict=False), start):
            found, cosine = scores.indices[first:last], scores.data[first:last]
            if own:
                others = found != row
                found, cosine = found[others], cosine[others]
            best, value = _best(found, cosine, row * nodes // rows.shape[0], nodes, k)
            ids[row, : len(best)], weights[row, : len(best)] = best, value
    return Edges(ids, weights)


def _best(
    found: Integer[np.ndarray, " n"], cosine: Float64[np.ndarray, " n"], at: int, nodes: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k largest, sorted by (weight descending, id ascending).

    Where more tie for the last places than there are, the next ones from `at` on win, counted round the end, `at` being
    where the text itself stands. With the lowest ids, the thousand questions that begin with `What is` would all have
    the same k neighbours, and beliefs would flow from these k alone: a ring over all of them averages over them all.
    """
    if len(found) > k:  # most are far from the best k, and need no rounding
        near = cosine >= np.partition(cosine, len(cosine) - k)[len(cosine) - k] - 2 / GRID
        found, cosine = found[near], cosine[near]
    rounded = np.minimum(np.round(cosine * GRID) / GRID, 1.0)
    order = np.lexsort(((found - at) % nodes, -rounded))[:k]
    found, rounded = found[order], rounded[order]
    order = np.lexsort((found, -rounded))
    return found[order].astype(np.int32), rounded[order].astype(np.float32)
