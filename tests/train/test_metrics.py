"""What is read of `metrics.jsonl`: whole lines, whatever has happened to the file."""

from pathlib import Path

import pytest

from jkd.train import metrics

LINES = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}, {"step": 3, "loss": 1.0}]
TEXT = '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n{"step": 3, "loss": 1.0}\n'


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text(TEXT[:-9])
    assert metrics.read(tmp_path / "metrics.jsonl") == LINES[:2]
    assert metrics.read(tmp_path / "none.jsonl") == []


@pytest.mark.fault(4)
@pytest.mark.parametrize(
    "second",
    [
        *(b'{"step": 2, "l\xefss": 1.5}', b"", b"null", b"[1]", b'{"loss": 1.5}', b'{"step": "2"}', b'{"step": true}'),
        *(b'{"step": 2, "loss": NaN}', b'{"step": 2, "loss": "low"}', b"[" * 100_000, b"9" * 10_000),
        b'{"step": 2, "loss": 1' + b"0" * 400 + b"}",
    ],
)
def test_a_damaged_line_is_named_and_the_others_stay(tmp_path: Path, second: bytes):
    path = tmp_path / "metrics.jsonl"
    first, _, third = TEXT.encode().splitlines()
    path.write_bytes(b"\n".join((first, second, third, b"")))
    with pytest.warns(UserWarning, match="line 2 is damaged and left out"):
        assert metrics.read(path) == [LINES[0], LINES[2]]
