from collections import Counter
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.data.wordpiece import INSIDE, LONGEST, frequent_words, pieces

WORDS = st.dictionaries(st.text("abcd", min_size=1, max_size=6), st.integers(1, 20), max_size=12)


def merged_slowly(counts: dict[str, int], size: int, least: int) -> list[str]:
    """The definition: count all pairs anew for every merge."""
    split = {word: [letter if at == 0 else INSIDE + letter for at, letter in enumerate(word)] for word in counts}
    made = sorted({piece for parts in split.values() for piece in parts})
    while len(made) < size:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in split.items():
            for pair in pairwise(parts):
                pairs[pair] += counts[word]
        if not pairs:
            break
        (first, second), times = min(pairs.items(), key=lambda item: (-item[1], item[0]))
        if times < least:
            break
        piece = first + second.removeprefix(INSIDE)
        made += [piece] if piece not in made else []
        for word, parts in split.items():
            joined: list[str] = []
            at = 0
            while at < len(parts):
                both = parts[at : at + 2] == [first, second]
                joined.append(piece if both else parts[at])
                at += 2 if both else 1
            split[word] = joined
    return made


@settings(deadline=None)
@given(WORDS, st.integers(10, 30), st.integers(1, 4))
def test_pieces_are_those_of_the_definition(counts: dict[str, int], size: int, least: int) -> None:
    assert pieces(counts, size, least) == merged_slowly(counts, size, least)


@settings(deadline=None)
@given(WORDS)
def test_the_order_of_the_words_does_not_matter(counts: dict[str, int]) -> None:
    turned = dict(reversed(counts.items()))
    assert pieces(counts, 20) == pieces(turned, 20)
    assert frequent_words(counts, 5) == frequent_words(turned, 5)


def test_a_frequent_word_becomes_one_piece() -> None:
    made = pieces({"the": 100, "then": 3, "zebra": 1}, 50)
    assert {"the", "##e", "t", "z"} <= set(made) and "zebra" not in made


def test_a_word_without_end_is_left_out() -> None:
    assert pieces({"x" * 10_000_000: 5, "a": 2}, 10) == ["a"]
    assert frequent_words({"x" * (LONGEST + 1): 5, "b": 2, "a": 2, "c": 1}, 10, 2) == ["a", "b"]
