import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.data import delimited
from jkd.data.delimited import Form, rows
from jkd.data.lines import lines_of
from jkd.errors import UserError


def read(content: str, **form: str) -> list[tuple[str, str]]:
    found = list(rows(lines_of(content.encode(), "t.csv"), Form(**form), "t.csv"))
    assert not [row.why for row in found if row.why]
    assert [row.key for row in found] == [f"{number:06d}" for number in range(len(found))]
    return [(row.text, row.label) for row in found]


CELL = st.text(st.characters(exclude_characters="\r\0", exclude_categories=("Cs",)), max_size=20)


@settings(deadline=None)
@given(st.lists(st.tuples(CELL, st.sampled_from(["a", "b"])), min_size=1))
def test_what_csv_writes_comes_back(pairs: list[tuple[str, str]]) -> None:
    file = io.StringIO()
    writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([("text", "label"), *pairs])
    assert read(file.getvalue()) == pairs


@pytest.mark.parametrize(
    ("text", "form", "expected"),
    [
        ("hello,1\nbye,0\n", {}, [("hello", "1"), ("bye", "0")]),
        ("sentence,label\nhello,1\n", {}, [("hello", "1")]),
        ("Label,Text\n1,hello\n", {}, [("hello", "1")]),
        ("id,what,kind\n7,hello,1\n", {"text": "what", "label": "KIND"}, [("hello", "1")]),
        ("7,hello,1\n", {"text": "1", "label": "2"}, [("hello", "1")]),
        ("7,what,kind\n7,hello,1\n", {"text": "1", "label": "2", "header": "yes"}, [("hello", "1")]),
        ("text,label\nhello,1\n", {"header": "no"}, [("text", "label"), ("hello", "1")]),
        ("1,0\nhello,x\n", {"text": "1", "label": "0"}, [("0", "1"), ("x", "hello")]),
        ("1,0\nhello,x\n", {"text": "1", "label": "0", "header": "yes"}, [("hello", "x")]),
        ("target,1\nclass,0\n", {}, [("target", "1"), ("class", "0")]),
        ("text,label\nhello,1\n", {"text": "0", "label": "1"}, [("hello", "1")]),
        ("what,label\nhello,1\n", {"text": "0"}, [("hello", "1")]),
        ('\n"a, b", 1 \n\n', {}, [("a, b", "1")]),
        ('say "hi\t1\n"\t0\n', {"delimiter": "\t"}, [('say "hi', "1"), ('"', "0")]),
        ('"a\tb"\t1\n', {"delimiter": "\t", "quotes": "yes"}, [("a\tb", "1")]),
    ],
)
def test_columns_by_name_and_by_position(text: str, form: dict, expected: list) -> None:
    assert read(text, **form) == expected


@pytest.mark.parametrize(
    ("text", "form", "message"),
    [
        ("text,label\nx,1\n", {"text": "txet"}, r"is named 'txet' \(data\.text\).*Did you mean 'text'"),
        (
            "hello,1\n",
            {"text": "sentence", "label": "label"},
            r"no column, or more than one, is named 'sentence'.*Known: 1, hello",
        ),
        ("a,b,c\n", {}, r"which column is the text\? Name it by data\.text"),
        ("a,b\n", {"text": "0", "label": "5"}, r"data\.label asks for column 5, counted from 0; there are 2"),
        ("a,b\n", {"text": "0", "label": "0"}, "are the same column"),
        ('a,1\n"b,1\nc,1\n', {}, r"row at line 2 cannot be read.*data\.quotes='no'"),
    ],
)
def test_refusals_say_what_to_do(text: str, form: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(text, **form)


def test_a_row_of_other_columns_is_unusable_and_named_by_its_line() -> None:
    found = list(rows(lines_of(b'text,label\n"a\nb",1\nc\nd,0,x\n', "t.csv"), Form(), "t.csv"))
    assert [(row.line, row.why) for row in found] == [
        (2, ""),
        (4, "has 1 columns instead of 2"),
        (5, "has 3 columns instead of 2"),
    ]


def test_a_field_of_ten_megabytes_is_read_and_the_limit_of_csv_is_as_before() -> None:
    usual = csv.field_size_limit()
    huge = "x" * 10_000_000
    assert [(len(text), label) for text, label in read(f'text,label\n"{huge}",1\nshort,0\n')] == [
        (10_000_000, "1"),
        (5, "0"),
    ]
    assert csv.field_size_limit() == usual


def test_a_quoted_field_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "LINE", 1000)
    with pytest.raises(UserError, match=r"row at line 2 cannot be read \(field larger than field limit"):
        read('text,label\n"' + "x,1\n" * 10_000)
