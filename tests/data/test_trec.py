import hashlib
from pathlib import Path

import numpy as np

from jkd.data import trec
from jkd.data.lines import lines_of
from jkd.data.textset import load


def test_the_embedded_questions_without_those_that_are_tested() -> None:
    train, test, _ = load({"source": "trec"})
    assert (len(train), len(test)) == (5452 - 11, 500)
    assert train.counts["overlap"] == 11 and train.counts["repeated"] == 76
    assert train.classes == test.classes == ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
    assert np.bincount(test.labels).tolist() == [9, 138, 94, 65, 81, 113]
    assert train.texts(np.arange(1)) == ["How did serfdom develop in and then leave Russia ?"]
    assert train.id(0) == "train/000000" and train.id(len(train) - 1) == "train/005451"
    assert any("sister\u00f0city" in text for text in train.texts(np.arange(len(train))))  # its one byte above 127
    assert not train.skipped


def test_fine_classes_lie_below_the_coarse_ones() -> None:
    train, test, _ = load({"source": "trec:fine"})
    assert len(train.classes) == 50 and train.classes == test.classes
    coarse = load({"source": "trec"})[0]
    names = np.array(train.classes)[train.labels]
    assert [name.split(":")[0] for name in names] == np.array(coarse.classes)[coarse.labels].tolist()


def test_the_embedded_files_are_the_published_ones(shared: Path) -> None:
    with np.load(trec.TAXONOMY.with_name("trec.npz"), allow_pickle=False) as file:
        for split in ("train", "test"):
            published = (shared / "data" / "trec" / f"{split}.txt").read_bytes()
            assert hashlib.sha256(file[split].tobytes()).digest() == hashlib.sha256(published).digest()
    assert (
        load({"source": "trec", "path": str(shared / "data" / "trec")})[0].fingerprint
        == load({"source": "trec"})[0].fingerprint
    )


def test_it_is_small_and_its_licence_is_beside_it() -> None:
    assert trec.TAXONOMY.with_name("trec.npz").stat().st_size < 400_000
    assert "MIT License" in trec.TAXONOMY.with_name("trec.txt").read_text()


def test_a_line_of_another_form_is_unusable() -> None:
    data = b"NUM:date When ?\n\nno label\n:x What ?\nNUM: What ?\nLOC:city\n"
    found = list(trec.rows(lines_of(data, "t", "latin-1"), fine=True))
    assert [(row.line, bool(row.why)) for row in found] == [(1, False), (3, True), (4, True), (5, True), (6, False)]
    assert (
        found[0][:3] == ("000000", "When ?", "NUM:date") and found[4].text == ""
    )  # which the rule for empty texts finds
