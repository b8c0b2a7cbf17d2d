import math

import pytest

from jkd.report import text


@pytest.mark.fault(30)
def test_control_and_direction_characters_are_made_visible() -> None:
    assert text.visible("a\x1b[31m\n\x7f\u202e\u200b\x9b") == "a␛[31m␊␡\\u202e\\u200b\\u009b"
    assert text.visible("naïve 日本 ✓") == "naïve 日本 ✓"


@pytest.mark.fault(30)
def test_escaped_text_cannot_leave_an_element_or_an_attribute() -> None:
    assert text.escape("<b>\"'&") == "&lt;b&gt;&quot;&#x27;&amp;"


@pytest.mark.parametrize(
    ("metric", "value", "signed", "shown"),
    [
        ("accuracy", 0.88812, False, "88.8"),
        ("accuracy", -0.0213, True, "−2.1"),
        ("nll", 0.41449, True, "+0.414"),
        ("accuracy", -0.00001, True, "0.0"),
        ("nll", None, False, "–"),
        ("nll", math.nan, False, "–"),
    ],
)
def test_numbers_have_the_digits_of_their_metric(metric: str, value: float | None, signed: bool, shown: str) -> None:
    assert text.number(metric, value, signed) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(None, "–"), (0, "0 B"), (999, "999 B"), (999.6, "1.0 kB"), (12_345, "12.3 kB"), (2e9, "2.0 GB")],
)
def test_bytes_have_three_figures_and_a_unit(count: float | None, shown: str) -> None:
    assert text.size(count) == shown


def test_words_are_joined_as_people_do() -> None:
    assert [text.join(list(words)) for words in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]
    assert text.plural(1, "seed") == "1 seed" and text.plural(1200, "seed") == "1,200 seeds"
