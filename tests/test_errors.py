from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.config import default
from jkd.errors import LONG, did_you_mean

quick = settings(derandomize=True, deadline=None, max_examples=200)
words = st.text("abc", max_size=6)


def _distance(one: str, other: str) -> int:
    """Edits by the table of all prefixes, a swap of neighbours counting one."""
    table = {(i, j): max(i, j) for i in range(len(one) + 1) for j in range(len(other) + 1) if not i or not j}
    for i in range(1, len(one) + 1):
        for j in range(1, len(other) + 1):
            changed = table[i - 1, j - 1] + (one[i - 1] != other[j - 1])
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, changed)
            if i > 1 and j > 1 and one[i - 2 : i] == other[j - 2 : j][::-1]:
                table[i, j] = min(table[i, j], table[i - 2, j - 2] + 1)
    return table[len(one), len(other)]


def _suggested(hint: str) -> list[str]:
    return hint.split("?")[0].split("'")[1::2] if "Did you mean" in hint else []


@quick
@given(words, st.sets(words, min_size=1, max_size=6))
def test_what_is_two_edits_away_is_suggested_the_nearest_alone_and_at_most_three(word: str, known: set[str]) -> None:
    edits = {name: _distance(word, name) for name in known}
    nearest = {name for name in known if edits[name] == min(edits.values()) <= 2}
    hint = did_you_mean(word, known)
    found = _suggested(hint)
    assert len(found) == len(set(found))
    if nearest:
        assert set(found) <= nearest and len(found) == min(len(nearest), 3)
    else:
        assert found or "Known: " in hint


@pytest.mark.parametrize("word", ["fn", "by", "width", "temperature"])
@pytest.mark.fault(19)
def test_a_word_is_found_after_any_one_edit(word: str) -> None:
    letters = "xw"
    edited = {word[:at] + word[at + 1 :] for at in range(len(word))} | {
        word[:at] + letter + word[at + more :] for at in range(len(word)) for letter in letters for more in (0, 1)
    }
    swapped = {word[:at] + word[at + 1] + word[at] + word[at + 2 :] for at in range(len(word) - 1)}
    for wrong in edited | swapped - {word}:
        assert _suggested(did_you_mean(wrong, [word, "something_else"])) == [word], wrong


@pytest.mark.fault(19)
def test_every_key_of_the_defaults_is_suggested_for_it_with_two_letters_swapped() -> None:
    keys = [(group, key) for group in (default().teacher, default().graph, default().student) for key in group]
    for group, key in keys:
        wrong = key[1:2] + key[0] + key[2:]
        assert wrong in group or wrong == key or key in _suggested(did_you_mean(wrong, group)), wrong


@pytest.mark.parametrize("known", list(permutations(["clipped", "clio", "fitnet"])))
def test_of_names_as_near_the_more_alike_stands_first_whatever_their_order(known: tuple[str, ...]) -> None:
    assert did_you_mean("clip", ["clips", *known]) == " Did you mean 'clips' or 'clio'?"


def test_what_is_not_much_alike_comes_with_all_there_is() -> None:
    assert did_you_mean("fm", ["fn", "normalize"]) == " Did you mean 'fn'? Known: fn, normalize."
    assert did_you_mean("xy", ["ab", "cd", "ef", "gh"]) == " Did you mean 'ab', 'cd' or 'ef'? Known: ab, cd, ef, gh."
    assert did_you_mean("nothing", ["fn", "by"]) == " Known: by, fn."
    assert did_you_mean("nothing", []) == ""


def test_a_name_with_much_in_common_is_found_beyond_two_edits() -> None:
    assert did_you_mean("--workers", ["--workdir", "--config"]) == " Did you mean '--workdir'?"


@pytest.mark.parametrize(("length", "suggested"), [(LONG - 1, True), (LONG, False), (200_000, False)])
def test_names_of_great_length_are_neither_compared_nor_suggested(length: int, suggested: bool):
    name = "a" * length
    assert _suggested(did_you_mean(name + "b", [name + "c", "d"])) == [name + "c"] * suggested
