import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.data.jsonlines import rows
from jkd.data.lines import lines_of
from jkd.data.texts import Row
from jkd.errors import UserError


def read(text: str, said: str = "", label: str = "") -> list[Row]:
    return list(rows(lines_of(text.encode(), "t.jsonl"), said, label, "t.jsonl"))


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.text(), st.integers() | st.text(st.characters(categories=("L",))) | st.booleans()), max_size=8
    )
)
def test_what_json_writes_comes_back(pairs: list) -> None:
    lines = "\n".join(json.dumps({"label": label, "text": text, "more": [1]}) for text, label in pairs)
    expected = [(text, str(int(label)) if isinstance(label, int) else label) for text, label in pairs]
    assert [(row.text, row.label) for row in read(lines)] == expected


def test_keys_may_be_named_and_a_missing_label_is_none() -> None:
    found = read('{"q": "x", "kind": "a"}\n\n{"q": "y", "kind": null}\n{"q": "z"}', "q", "kind")
    assert [(row.key, row.text, row.label) for row in found] == [
        ("000000", "x", "a"),
        ("000001", "y", ""),
        ("000002", "z", ""),
    ]


@pytest.mark.fault(14)
@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("not json", "is no JSON"),
        ("[1]", "is no JSON object"),
        ("[" * 100_000, "is no JSON"),
        ('{"text": 1, "label": "a"}', "has no text under 'text'"),
        ('{"text": "x", "label": 0.5}', "neither a text nor a whole number"),
        ('{"text": "x", "label": ' + "9" * 5000 + "}", "is no JSON"),
    ],
)
def test_a_line_of_another_form_is_unusable_and_named(line: str, why: str) -> None:
    good, bad, after = read('{"text": "x", "label": "a"}\n' + line + '\n{"text": "y", "label": "b"}')
    assert (good.why, after.why, bad.line) == ("", "", 2) and why in bad.why


@pytest.mark.fault(14)
def test_keys_that_are_not_there_are_refused() -> None:
    with pytest.raises(UserError, match=r"no key 'txt' \(data\.text\)\. Did you mean 'text'"):
        read('{"text": "x", "label": "a"}', "txt")
    with pytest.raises(UserError, match=r"no key that data\.label could mean"):
        read('{"text": "x"}')
