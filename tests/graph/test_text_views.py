import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd import random
from jkd.data.textset import load
from jkd.graph import Edges, lexical_view, neighbours, opening_view, text_views
from jkd.graph.text_views import GRID
from jkd.graph.validate import _table

TEXTS = st.lists(
    st.lists(st.sampled_from(["what", "is", "the", "Moon", "?", "a", "who"]), max_size=5).map(" ".join), max_size=8
)


def tf_idf_cosines(texts: list[str]) -> np.ndarray:
    """The definition, dense and in plain Python: `[N, N]`."""
    rows = []
    for text in texts:
        words = [word for word in text.lower().split() if word.isalnum()]
        rows.append(Counter(tuple(words[at : at + n]) for n in (1, 2, 3) for at in range(len(words) - n + 1)))
    features = sorted({feature for row in rows for feature in row})
    document = {feature: sum(feature in row for row in rows) for feature in features}
    table = np.array(
        [
            [
                (1 + math.log(row[f])) * (1 + math.log((1 + len(texts)) / (1 + document[f]))) if f in row else 0.0
                for f in features
            ]
            for row in rows
        ]
    ).reshape(len(texts), len(features))
    length = np.linalg.norm(table, axis=1, keepdims=True)
    unit = table / np.where(length > 0, length, 1)
    return unit @ unit.T


@settings(deadline=None)
@given(TEXTS, st.integers(1, 4))
def test_lexical_edges_have_the_largest_exact_cosines(texts: list[str], k: int) -> None:
    found = lexical_view(texts, k)
    exact = tf_idf_cosines(texts)
    np.fill_diagonal(exact, 0)
    assert found.ids.shape == found.weights.shape == (len(texts), k)
    assert not list(_table("lexical", found, len(texts), own=True))
    for row, (ids, weights) in enumerate(zip(*found, strict=True)):
        there = ids >= 0
        assert there.sum() == min(k, (exact[row] > 1e-9).sum())
        np.testing.assert_allclose(weights[there], exact[row][ids[there]], atol=2 / GRID)
        np.testing.assert_allclose(weights[there], np.sort(exact[row])[::-1][: there.sum()], atol=2 / GRID)


def test_texts_of_a_script_without_spaces_share_characters() -> None:
    texts = ["\u6211\u559c\u6b22\u732b", "\u4ed6\u559c\u6b22\u72d7", "\u5929\u6c14\u5f88\u597d", "snow in May"]
    assert text_views.WORD.findall("Ab1 \u732b\u72d7x_y") == ["Ab1", "\u732b", "\u72d7", "x_y"]
    found = lexical_view(texts, 1)
    assert found.ids[:, 0].tolist() == [1, 0, -1, -1]


@settings(deadline=None)
@given(TEXTS, st.integers(1, 4))
def test_opening_edges_are_a_valid_table(texts: list[str], k: int) -> None:
    assert not list(_table("opening", opening_view(texts, k), len(texts), own=True))


def test_the_block_does_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = load({"source": "trec", "limit": 300})[0].texts(np.arange(300))
    for view in (lexical_view, opening_view):
        monkeypatch.setattr(text_views, "HELD", 2**23)
        whole = view(texts, 8)
        monkeypatch.setattr(text_views, "HELD", 2000)
        for one, other in zip(whole, view(texts, 8), strict=True):
            np.testing.assert_array_equal(one, other)


def test_weights_are_symmetric_and_equal_texts_tie_at_one() -> None:
    texts = load({"source": "trec", "limit": 200})[0].texts(np.arange(200))
    found = lexical_view([*texts, *texts], 3)
    np.testing.assert_array_equal(found.weights[:200], found.weights[200:])
    assert (found.ids[np.arange(200), 0] == np.arange(200) + 200).all() and (found.weights[:, 0] == 1).all()
    pairs = {(i, j): w for i, (ids, ws) in enumerate(zip(*found, strict=True)) for j, w in zip(ids, ws, strict=True)}
    assert all(pairs[j, i] == w for (i, j), w in pairs.items() if (j, i) in pairs)


def test_openings_share_their_first_words() -> None:
    texts = ["What is a liver ?", "what is x", "What films are there", "Who is it", "what"]
    found = opening_view(texts, 2)
    assert found.ids[0].tolist() == [1, 4] and found.ids[3].tolist() == [-1, -1]
    np.testing.assert_allclose(found.weights[0], [1, math.sqrt(0.5)], atol=1e-6)
    assert opening_view(texts, 1, words=1).weights[0, 0] == 1
    assert found.ids[2, 0] == 4 and found.weights[2, 1] == 0.5


def test_ties_go_round_so_that_nobody_is_everybodys_neighbour() -> None:
    found = opening_view(["what is it"] * 100, 4)
    assert np.bincount(found.ids.ravel(), minlength=100).tolist() == [4] * 100
    assert found.ids[98].tolist() == [0, 1, 2, 99]
    outside = opening_view(["what is it"] * 10, 4, targets=["what is it"] * 100)
    assert np.bincount(outside.ids.ravel(), minlength=100).max() == 1


def test_held_out_texts_have_edges_into_the_pool_by_the_pools_weights() -> None:
    pool = ["the red moon", "the green sea", "a blue sky"]
    found = lexical_view(["red moon !", "nothing known", "the sea"], 2, targets=pool)
    assert isinstance(found, Edges) and found.ids.dtype == np.int32 and found.weights.dtype == np.float32
    assert found.ids[:, 0].tolist() == [0, -1, 1]
    same = lexical_view(pool, 1, targets=pool)  # nothing is excluded
    assert same.ids[:, 0].tolist() == [0, 1, 2] and (same.weights == 1).all()


def test_texts_without_words_and_empty_pools_have_no_edges() -> None:
    for view in (lexical_view, opening_view):
        assert (view(["?!", "", "a"], 2).ids == -1).all()
        assert view([], 2).ids.shape == (0, 2)
        assert (view(["a"], 2, targets=[]).ids == -1).all()


def test_trec_edges_join_questions_of_one_class() -> None:
    train, _, _ = load({"source": "trec", "limit": 1000})
    texts = train.texts(np.arange(len(train)))
    chance = float(((np.bincount(train.labels) / len(train)) ** 2).sum())
    for view in (lexical_view, opening_view):
        found = view(texts, 8)
        there = found.ids >= 0
        assert there.mean() > 0.9
        assert (train.labels[found.ids] == train.labels[:, None])[there].mean() > 0.45 > 2 * chance


def test_lexical_edges_are_those_of_the_dense_search_and_a_projection_loses_some() -> None:
    texts = load({"source": "trec", "limit": 300})[0].texts(np.arange(300))
    numbers: dict[str, int] = {}
    counts = text_views._counts(texts, text_views._grams, numbers, grow=True)
    vectors = text_views._unit(text_views._weighted(counts, counts)).toarray().astype(np.float32)
    found, dense = lexical_view(texts, 8), neighbours(vectors, 8)
    there = found.ids >= 0
    np.testing.assert_allclose(found.weights[there], dense.weights[there], atol=2e-6)
    signs = 1 - 2 * (random.bits("edges", 0, size=vectors.shape[1] * 256) % np.uint64(2)).astype(np.float32)
    projected = neighbours(vectors @ signs.reshape(-1, 256), 8)

    def recall(table: Edges) -> float:
        both = [len(set(a[a >= 0]) & set(b)) for a, b in zip(found.ids, table.ids, strict=True)]
        return sum(both) / there.sum()

    assert recall(dense) > 0.97 > 0.8 > recall(projected)  # of the dense ones, ties alone differ
