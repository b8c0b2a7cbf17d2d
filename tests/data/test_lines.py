from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.data import lines
from jkd.data.lines import lines_of, read_lines
from jkd.errors import UserError


@settings(deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=("Cs",)))),
    st.sampled_from(["\n", "\r\n"]),
)
def test_lines_come_back_whatever_their_ends_and_encoding(texts: list[str], end: str) -> None:
    whole = "".join(text + end for text in texts)
    expected = [text.removeprefix("\ufeff") if number == 0 else text for number, text in enumerate(texts)]
    for encoding in ("utf-8", "utf-16", "gb18030"):
        assert list(lines_of(whole.encode(encoding), "x", encoding)) == expected


def test_a_character_cut_by_a_chunk_is_whole_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in range(1, 7):
        monkeypatch.setattr(lines, "CHUNK", size)
        assert list(lines_of("\ufeffäé\r\n€𝄞\nx".encode(), "x")) == ["äé", "€𝄞", "x"]


@pytest.mark.fault(14)
def test_bytes_that_do_not_decode_are_named_by_line_and_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    data = "ä\nbö\nc".encode() + b"\xff" + b"d\n" + "ü".encode()[:1]
    for size in (1, 2, 3, 100):
        monkeypatch.setattr(lines, "CHUNK", size)
        with pytest.raises(
            UserError, match=rf"t\.csv: line 3, byte {data.index(0xFF)} .* is no utf-8: 0xff.*data\.errors"
        ):
            list(lines_of(data, "t.csv"))
        assert list(lines_of(data, "t.csv", errors="replace")) == ["ä", "bö", "c\ufffdd", "\ufffd"]


@pytest.mark.fault(14)
def test_a_line_without_end_is_refused_before_all_of_it_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LINE", 100)
    monkeypatch.setattr(lines, "CHUNK", 32)
    read = 0

    def chunks():
        nonlocal read
        for _ in range(1000):
            read += 32
            yield b"x" * 32

    with pytest.raises(UserError, match="line 1 is longer than 100 characters"):
        list(lines._lines(chunks(), lines.decoder_of("utf-8", "strict"), "x", "utf-8"))
    assert read < 200
    assert len(list(lines_of(b"x" * 100 + b"\n" + b"y" * 100, "x"))) == 2


@pytest.mark.fault(14)
@pytest.mark.parametrize("encoding", ["utf8x", "hex", "zip", "rot13", "", "a\0b"])
def test_what_is_no_text_encoding_is_refused(encoding: str) -> None:
    with pytest.raises(UserError, match=r"data\.encoding: there is no text encoding"):
        list(lines_of(b"", "x", encoding))


@pytest.mark.fault(14)
def test_a_missing_or_too_large_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"cannot be read \(No such file"):
        list(read_lines(tmp_path / "nowhere.csv"))
    (tmp_path / "large.csv").write_text("a\n" * 10)
    monkeypatch.setattr(lines, "FILE", 19)
    with pytest.raises(UserError, match="20 bytes, over"):
        list(read_lines(tmp_path / "large.csv"))


@pytest.mark.fault(14)
def test_a_lone_carriage_return_becomes_a_control_character_inside_the_line() -> None:
    for before, after in product(("", "a"), repeat=2):
        assert list(lines_of(f"{before}\r{after}x\r\n".encode(), "x")) == [f"{before}\v{after}x"]
