"""Where networks come from: words kept out of a larger vocabulary, classes told apart by name."""

import warnings

import numpy as np
import pytest

from jkd.data import tokens
from jkd.errors import Notice, UserError
from jkd.networks import in_order, kept_words

WORDS = [*tokens.SPECIAL, "ball", "soup", "star", "[unused7]"]


def test_words_of_a_smaller_vocabulary_are_found_by_name():
    theirs = tokens.from_vocabulary(WORDS)
    own = tokens.from_vocabulary(["star", *tokens.SPECIAL[::-1], "ball"])
    kept = kept_words(own, theirs)
    assert theirs.strings(kept) == own.strings(range(own.size))
    assert kept_words(theirs, tokens.from_vocabulary(WORDS)) == list(range(len(WORDS)))


def test_words_that_the_teacher_lacks_are_named():
    with pytest.raises(UserError, match=r"1 of the student's 6 words are none of the teacher's.*: comet"):
        kept_words(tokens.from_vocabulary([*tokens.SPECIAL, "comet"]), tokens.from_vocabulary(WORDS))


def test_what_stands_for_no_part_of_a_text_is_reserved():
    assert tokens.from_vocabulary(WORDS).reserved == (0, 1, 2, 3, 4, 8)


HEAD = {"kernel": np.arange(6.0).reshape(2, 3), "bias": np.array([10.0, 11.0, 12.0])}
VARIABLES = {"params": {"classifier": HEAD, "other": np.ones(2)}}


def test_classes_of_a_classifier_come_in_the_order_of_the_data():
    made = in_order(VARIABLES, ("Sky ", "food", "sport"), ("food", "sport", "sky"), "it")["params"]
    assert made["classifier"]["bias"].tolist() == [11, 12, 10]
    assert made["classifier"]["kernel"].tolist() == [[1, 2, 0], [4, 5, 3]]
    assert made["other"] is VARIABLES["params"]["other"]


@pytest.mark.parametrize("names", [(), ("a", "b", "c"), ("LABEL_0", "LABEL_1", "LABEL_2")])
def test_without_names_that_say_otherwise_the_order_stays(names: tuple[str, ...]):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert in_order(VARIABLES, names, ("a", "b", "c"), "it") is VARIABLES


def test_other_names_are_told_and_half_known_ones_refused():
    with pytest.warns(Notice, match="it calls its classes NEGATIVE, POSITIVE, NONE: taken to be 0, 1, 2"):
        assert in_order(VARIABLES, ("NEGATIVE", "POSITIVE", "NONE"), ("0", "1", "2"), "it") is VARIABLES
    with pytest.raises(UserError, match="it tells a, b, d apart, in this order, and the data a, b, c"):
        in_order(VARIABLES, ("a", "b", "d"), ("a", "b", "c"), "it")
