"""Lists of a JSON object read an item at a time are those that reading it whole gives."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from jkd import files
from jkd.data import json_lists
from jkd.errors import UserError

SOUND = {
    "info": {"year": 2017, "pairs": [[-1.5e-7, 0.0], [1e30, -12]], "deep": [[[{}]]]},
    "images": [{"id": 1}, {"é😀\n\"'\\": "\ud7ff\u2028", "b": None}, -12.5e-3, 1234567, "x", [], {}, True, None],
    "empty": [],
    "end": "of the file",
}
MARKS = b'{}[],:"\\0123456789.eE+-truefalsnN Infity\n\t/u\xc3\xa9'


def _read(path: Path, *keys: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {key: [] for key in keys}
    there = json_lists.read(path, {key: found[key].append for key in keys}, "the form")
    return {key: found[key] for key in keys if key in there}


def _whole(path: Path, *keys: str) -> dict[str, list[Any]]:
    """The same by reading it whole."""
    content = files.read_json(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(key, []), list) for key in keys):
        raise UserError("another form")
    return {key: content[key] for key in keys if key in content}


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 50, 10_000])
@pytest.mark.parametrize("indent", [None, 1])
def test_pieces_of_any_length_give_what_the_whole_file_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int, indent: int | None
) -> None:
    monkeypatch.setattr(json_lists, "PIECE", piece)
    path = tmp_path / "x.json"
    for ascii_only in (False, True):
        path.write_text(json.dumps(SOUND, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
        assert _read(path, "images", "empty", "nothing") == {"images": SOUND["images"], "empty": []}
    path.write_text(" \n{ } ")
    assert _read(path, "images") == {}


@pytest.mark.fault(22)
def test_changed_files_are_read_or_refused_as_the_whole_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tries: Any
) -> None:
    chance, path = random.Random(5), tmp_path / "x.json"
    whole = json.dumps(SOUND, ensure_ascii=False).encode()
    read = 0
    for number in range(tries.count(1_000, 20_000)):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 1, 2, 5))):
            at = chance.randrange(len(data) - 1)
            kind = chance.randrange(4)
            if kind == 0:
                data[at] = chance.choice(MARKS)
            elif kind == 1:
                del data[at : at + chance.choice((1, 3, 60))]
            elif kind == 2:
                data[at:at] = bytes([chance.choice(MARKS)])
            else:
                data[at:at] = data[at : at + chance.choice((2, 40))]
        path.write_bytes(data)
        monkeypatch.setattr(json_lists, "PIECE", chance.choice((1, 5, 40, 10_000)))
        with tries(f"{number}: {bytes(data)!r}"):
            try:
                expected = _whole(path, "images", "empty")
            except UserError:
                with pytest.raises(UserError, match=r"x\.json"):
                    _read(path, "images", "empty")
            else:
                assert _read(path, "images", "empty") == expected
                read += 1
    assert read > 50


@pytest.mark.fault(22)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected the form; 'images' is not"),
        ("", "expected the form; 'images' is not"),
        ('{"images": {}}', "expected the form; 'images' is not"),
        ('{"images": [1 2]}', "not valid JSON .expected ',' at character 14, got '2'"),
        ('{"images": [{"a": 1, "a": 2}]}', "the key 'a' comes up twice"),
        ('{"images": [], "images": []}', "the key 'images' comes up twice"),
        ('{"images": [NaN]}', "NaN is no number that JSON knows"),
        ('{"images": []} x', "expected the end at character 15, got 'x'"),
        ('{"images": [' + "[" * 100_000, "nested too deeply"),
        ('{"images": ["' + "x" * 3 * 2**20 + '"]}', "at character 12 is no value of at most 2097152 characters"),
        ('{"x": {"y": [' + "0," * 2**21 + "0]}}", "at character 6 is no value of at most 2097152 characters"),
    ],
)
def test_what_is_of_another_form_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=rf"x\.json.*{message}"):
        _read(tmp_path / "x.json", "images")
