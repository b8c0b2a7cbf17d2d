from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.data.texts import COUNTS, Row, Rules, TextSource, clean, collect, same
from jkd.errors import UserError


def rows(*texts: str) -> Iterator[Row]:
    return (Row(f"{number:06d}", text, "a", line=number + 1) for number, text in enumerate(texts))


@pytest.mark.fault(14)
@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=())))
def test_cleaning_twice_is_cleaning_once_and_what_is_left_can_be_written(text: str) -> None:
    cleaned, touched = clean(text, 50)
    assert clean(cleaned, 50)[0] == cleaned
    assert len(cleaned) <= 50 and set(touched) <= set(COUNTS)
    assert cleaned.encode().decode() == cleaned
    assert cleaned.isprintable() or not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in cleaned)


@pytest.mark.fault(14)
@pytest.mark.parametrize(
    ("text", "cleaned", "touched"),
    [
        ("  plain text\n", "plain text", []),
        ("tab\tand\nline", "tab and line", []),
        ("nul\0and\x1b[31mred", "nul and [31mred", ["control"]),
        ("\u202eright to left\u2066", "right to left", ["bidi"]),
        ("שלום", "שלום", []),  # letters that run from right to left are text like any other
        ("half \ud800 pair", "half \ufffd pair", ["replaced"]),
        ("zero\u200dwidth joiner", "zero\u200dwidth joiner", []),
        ("\0\u200f \n", "", ["bidi", "control", "empty"]),
        ("x" * 60, "x" * 50, ["cut"]),
    ],
)
def test_each_rule(text: str, cleaned: str, touched: list[str]) -> None:
    assert clean(text, 50) == (cleaned, touched)


def test_texts_say_the_same_whatever_their_case_and_punctuation() -> None:
    assert same("What is  it ?") == same("what is it")
    assert same("what is it") != same("what it is")
    assert same("?!") == same("?!") != same("!?")  # no words: the text itself


@pytest.mark.fault(14)
def test_each_kind_is_counted_once_a_text() -> None:
    made = collect(rows("a\0b\0c", "A b, c!", "\u202ax\0", "y" * 30), "set", "train", Rules(max_chars=20))
    assert made.texts == ["a b c", "A b, c!", "x", "y" * 20]
    assert made.counts == dict.fromkeys(COUNTS, 0) | {"control": 2, "bidi": 1, "cut": 1, "repeated": 1}


@pytest.mark.fault(14)
def test_ids_are_those_of_the_file_whatever_is_skipped() -> None:
    made = collect(rows("a", " ", "c"), "set", "train", Rules(broken="skip", broken_limit=0.5))
    assert made.ids == ["train/000000", "train/000002"]
    assert made.skipped == [("train/000001", "is empty")] and made.counts["empty"] == 1


@pytest.mark.fault(14)
def test_unusable_rows_are_refused_or_skipped_up_to_a_limit() -> None:
    with pytest.raises(UserError, match=r"1 of 3 rows cannot be used: line 2 is empty.*data\.broken='skip'"):
        collect(rows("a", "", "c"), "set", "train", Rules())
    with pytest.raises(UserError, match=r"2 of 3 rows.*lets 1 be skipped"):
        collect(rows("a", "", "\0"), "set", "train", Rules(broken="skip", broken_limit=0.5))
    with pytest.raises(UserError, match="none of 2 rows can be used"):
        collect(rows("", ""), "set", "train", Rules(broken="skip", broken_limit=1.0))
    with pytest.raises(UserError, match="there is no text in it"):
        collect(rows(), "set", "train", Rules())


def test_a_source_gives_texts_by_index_and_a_part_of_it_keeps_ids() -> None:
    source = TextSource("set", ("a", "b"), ["t/0", "t/1", "t/2"], np.array([0, 1, -1]), ["x", "y", "z"])
    part = source.take(np.array([2, 0]))
    assert source.texts(np.array([1, 1, 0])) == ["y", "y", "x"]
    assert [part.id(i) for i in range(2)] == ["t/2", "t/0"] and part.texts(np.arange(2)) == ["z", "x"]
    assert part.labels.tolist() == [-1, 0] and part.labels.dtype == np.int32


def test_the_fingerprint_changes_with_ids_labels_and_texts() -> None:
    ids, labels, texts = ["t/0", "t/1"], np.array([0, 1]), ["x", "yz"]
    made = {
        TextSource("set", ("a", "b"), *given).fingerprint
        for given in (
            (ids, labels, texts),
            (["t/0", "t/2"], labels, texts),
            (ids, labels[::-1], texts),
            (ids, labels, ["xy", "z"]),
        )
    }
    assert len(made) == 4
    assert TextSource("other", ("a", "b"), ids, labels, texts).fingerprint in made
