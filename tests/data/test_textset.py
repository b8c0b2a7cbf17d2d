import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.config import default
from jkd.data import DataSet, make_split
from jkd.data.texts import same
from jkd.data.textset import DEFAULTS, load
from jkd.errors import UserError

PAIRS = [(f"{word} film number {number}", word) for number in range(10) for word in ("good", "bad")]


def write(folder: Path, **named: str) -> Path:
    for name, content in named.items():
        (folder / name.replace("__", ".")).write_text(content, encoding="utf-8", newline="")
    return folder


def csv_of(pairs: list[tuple[str, str]], head: str = "text,label\n") -> str:
    return head + "".join(f"{text},{label}\n" for text, label in pairs)


def opened(path: Path, **differs: Any) -> tuple[Any, Any]:
    return load({"path": str(path), **differs})[:2]


def test_all_forms_of_one_set_are_the_same_set(tmp_path: Path) -> None:
    made = set()
    for suffix, text in {
        "csv": csv_of,
        "tsv": lambda pairs: csv_of(pairs, "").replace(",", "\t"),
        "jsonl": lambda pairs: "\n".join(json.dumps({"text": text, "label": label}) for text, label in pairs),
    }.items():
        folder = tmp_path / suffix
        folder.mkdir()
        train, test = opened(
            write(folder, **{f"train__{suffix}": text(PAIRS), f"test__{suffix}": text([("a", "good"), ("b", "bad")])})
        )
        made.add((train.fingerprint, test.fingerprint))
        assert train.classes == test.classes == ("bad", "good")
        assert (train.labels[:2].tolist(), len(train), len(test)) == ([1, 0], 20, 2)
    assert len(made) == 1


def test_splits_may_be_files_anywhere_below_the_path(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write(tmp_path / "a", phrases__tsv="text\tlabel\nfine\t1\npoor\t0\n")
    write(tmp_path, dev__csv=csv_of([("x", "0"), ("y", "1")]))
    train, test = opened(tmp_path, train="a/phrases.tsv", test="dev")
    assert (train.id(0), test.id(1)) == ("a/phrases.tsv/000000", "dev/000001")


def test_one_file_is_split_by_what_its_texts_say(tmp_path: Path) -> None:
    whole = [*PAIRS, ("GOOD film, number 3!", "good")]
    train, test = opened(
        write(tmp_path, all__csv="q,kind\n" + "".join(f'"{t}",{k}\n' for t, k in whole)) / "all.csv",
        text="q",
        label="kind",
    )
    assert len(train) + len(test) == 21
    assert (
        len({text.lower().replace(",", "").rstrip("!") for text in test.texts(np.arange(len(test)))}) == 4
    )  # 20 % of 20
    assert {source.id(i).split("/")[1] for source in (train, test) for i in range(len(source))} == {
        f"{i:06d}" for i in range(21)
    }
    copies = {
        source.name.rsplit(":")[-1]
        for source in (train, test)
        for t in source.texts(np.arange(len(source)))
        if "number 3" in t and "ood" in t.lower()
    }
    assert len(copies) == 1
    (tmp_path / "turned").mkdir()
    turned = "q,kind\n" + "".join(f'"{t}",{k}\n' for t, k in reversed(whole))
    again = opened(write(tmp_path / "turned", all__csv=turned) / "all.csv", text="q", label="kind")[1]
    assert sorted(again.texts(np.arange(len(again)))) == sorted(test.texts(np.arange(len(test))))


def test_unlabelled_rows_are_trained_on_never_tested(tmp_path: Path) -> None:
    write(tmp_path, all__csv=csv_of([*PAIRS, *((f"unknown {i}", "") for i in range(20))]))
    train, test = opened(tmp_path / "all.csv", test_share=0.5)
    assert (test.labels >= 0).all() and len(test) == 10 and (train.labels == -1).sum() == 20


@pytest.mark.parametrize(
    ("labels", "names", "classes", "numbers"),
    [
        (("10", "9", "2"), (), ("2", "9", "10"), [2, 1, 0]),
        (("-1", "0", "1"), (), ("-1", "0", "1"), [0, 1, 2]),
        (("b", "10", "a"), (), ("10", "a", "b"), [2, 0, 1]),
        (("1", "-1", "0"), ("bad", "good"), ("bad", "good"), [1, -1, 0]),
        (("b", "", "a"), ("b", "a"), ("b", "a"), [0, -1, 1]),
    ],
)
def test_classes_by_number_or_name(tmp_path: Path, labels: tuple, names: tuple, classes: tuple, numbers: list) -> None:
    known = [label for label, number in zip(labels, numbers, strict=True) if number >= 0]
    write(
        tmp_path,
        train__csv=csv_of([(f"t {i}", label) for i, label in enumerate(labels)]),
        test__csv=csv_of([("x", known[0])]),
    )
    train, test = opened(tmp_path, classes=names)
    assert train.classes == classes and train.labels.tolist() == numbers
    assert test.labels.tolist() == [train.classes.index(classes[numbers[labels.index(known[0])]])]


@pytest.mark.fault(14)
def test_texts_of_the_test_split_leave_the_training_split(tmp_path: Path) -> None:
    write(
        tmp_path,
        train__csv=csv_of([("One", "a"), ("two", "b"), ("three", "a")]),
        test__csv=csv_of([("one!", "a"), ("four", "b")]),
    )
    train, _ = opened(tmp_path)
    assert (
        train.texts(np.arange(2)) == ["two", "three"] and train.counts["overlap"] == 1 and train.id(0) == "train/000001"
    )
    kept, _ = opened(tmp_path, overlap="keep")
    assert len(kept) == 3 and kept.counts["overlap"] == 1
    with pytest.raises(UserError, match=r"1 texts are in \S*test\.csv, too: train/000000"):
        opened(tmp_path, overlap="refuse")


def test_a_validation_split_stands_behind_the_training_split_and_apart_from_it_and_the_test_split(
    tmp_path: Path,
) -> None:
    write(
        tmp_path,
        train__csv=csv_of([("one", "a"), ("two", "b"), ("three", "a"), ("four", "b")]),
        dev__csv=csv_of([("TWO!", "b"), ("five", "a"), ("six", ""), ("seven", "b")]),
        test__csv=csv_of([("four", "b"), ("Seven", "a")]),
    )
    made = load({"path": str(tmp_path), "val_split": "dev", "limit": 1})
    ids = [made.train.id(index) for index in range(len(made.train))]
    assert made.aside == 3 and ids[1:] == ["dev/000000", "dev/000001", "dev/000002"]
    assert ids[0] in ("train/000000", "train/000002")  # the others are in the other splits, too
    split = make_split(DataSet("texts", *made), default().data, 0)
    assert split.pool.tolist() == [0] and split.val.tolist() == [1, 2] and split.val_labels.tolist() == [1, 0]


def test_a_share_for_validation_has_no_text_that_the_rest_has(tmp_path: Path) -> None:
    texts = [(f"{word} number {number}{end}", word) for number in range(30) for word in ("a", "b") for end in ("", "!")]
    write(tmp_path, train__csv=csv_of([*texts, *PAIRS]), test__csv=csv_of([("x", "a"), ("y", "b")]))
    data = default().data
    data.update(source="texts", path=str(tmp_path), classes=("a", "b", "good", "bad"), val=0.5)
    made = load(data)
    split = make_split(DataSet("texts", *made), data, 0)
    val, pool = ({same(text) for text in made.train.texts(index)} for index in (split.val, split.pool))
    assert len(split.val) > 5 and not val & pool
    assert sorted([*split.val, *split.pool]) == list(range(len(made.train)))


@pytest.mark.parametrize(
    ("differs", "message"),
    [
        ({"val_split": "train"}, r"'train' is data\.train or data\.test"),
        ({"val_split": "dev"}, "has no split 'dev'"),
        ({"val_split": "dev", "path": "train.csv"}, "is one file"),
        ({"val_split": "dev", "path": "", "source": "trec"}, "embedded questions"),
    ],
)
def test_a_validation_split_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, differs: dict, message: str
) -> None:
    write(tmp_path, train__csv=csv_of(PAIRS), test__csv=csv_of([("x", "good")]))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        load({"path": str(tmp_path)} | differs)


def test_a_limit_keeps_a_part_of_a_larger_one_and_the_test_split(tmp_path: Path) -> None:
    write(tmp_path, train__csv=csv_of(PAIRS), test__csv=csv_of([("x", "good"), ("y", "bad")]))
    ids = {n: {train.id(i) for i in range(len(train))} for n in (5, 10) for train in [opened(tmp_path, limit=n)[0]]}
    assert len(ids[5]) == 5 and ids[5] < ids[10]
    assert len(opened(tmp_path, test_limit=1)[1]) == 1


@pytest.mark.fault(14)
def test_ten_megabytes_in_one_line_are_cut_and_counted(tmp_path: Path) -> None:
    huge = "<script>\x1b[31m " * 700_000
    write(tmp_path, train__csv=csv_of([*PAIRS, (huge, "bad")]), test__csv=csv_of([("x", "good")]))
    train, _ = opened(tmp_path)
    assert train.counts["cut"] == train.counts["control"] == 1
    assert max(map(len, train.texts(np.arange(len(train))))) <= DEFAULTS["max_chars"]


@pytest.mark.fault(14)
@pytest.mark.parametrize(
    ("differs", "message"),
    [
        ({"source": "trek"}, r"data\.source: expected texts.*Did you mean 'trec'"),
        ({"source": "tfds:"}, r"data\.source: expected"),
        ({"overlap": "remove"}, r"data\.overlap: expected one of drop, keep, refuse, got 'remove'"),
        ({"max_chars": 0}, r"data\.max_chars: expected at least 1, got 0"),
        ({"train": "test"}, r"data\.train and data\.test are both 'test'"),
        ({"train": "tarin"}, r"no split 'tarin'.*Found: test\.csv, train\.csv"),
        ({"path": "nowhere"}, r"there is no nowhere"),
        ({"path": ""}, r"data\.path is empty"),
        ({"delimiter": "::"}, r"data\.delimiter: expected one character"),
        ({"encoding": "utf9"}, r"data\.encoding: there is no text encoding 'utf9'"),
        ({"classes": ("good", "fine")}, r"labels that data\.classes does not name: bad"),
        ({"encoding": "ascii", "train": "umlaut"}, r"line 2, byte 11 .*is no ascii: 0xc3"),
        ({"train": "one"}, r"the classes are: good\. Expected at least two"),
        ({"test": "unlabelled"}, r"1 of 1 test samples have no label: unlabelled/000000.*data\.test='validation'"),
        ({"path": "train.csv", "test_share": 1.0}, r"data\.test_share: expected a share between 0 and 1"),
    ],
)
def test_refusals_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, differs: dict, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, train__csv=csv_of(PAIRS), test__csv=csv_of([("x", "good")]))
    where = {"path": str(tmp_path)} | differs
    write(tmp_path) if "Found" in message else write(
        tmp_path,
        umlaut__csv="text,label\nü,good\n",
        one__csv=csv_of([("y", "good")]),
        unlabelled__csv=csv_of([("y", "")]),
    )
    with pytest.raises(UserError, match=message):
        load(where)


@pytest.mark.fault(14)
def test_too_many_classes_are_a_wrong_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jkd.data.textset.CLASSES", 10)
    write(tmp_path, all__csv=csv_of([(f"t {i}", f"x{i}") for i in range(20)]))
    with pytest.raises(UserError, match="20 different labels, over 10"):
        opened(tmp_path / "all.csv")


def test_a_config_may_be_given_as_it_is(tmp_path: Path) -> None:
    data = default().data
    data.source, data.path = "texts", str(write(tmp_path, all__csv=csv_of(PAIRS)) / "all.csv")
    train, test, aside = load(data)
    assert not aside
    assert len(train) + len(test) == len(PAIRS)


def test_real_sets_have_the_counts_that_they_should(shared: Path) -> None:
    train, test, _ = load({"path": str(shared / "data" / "sst2")})
    assert (len(train), train.counts["overlap"], len(test)) == (6917, 3, 1821)
    assert np.bincount(test.labels).tolist() == [912, 909]


@pytest.mark.fault(14)
@given(
    st.lists(
        st.sampled_from(
            [b"text", b"label", b",", b"\t", b'"', b"\n", b"\r", b"\0", b"\xff", b"{", b"}", b":", b"a", b"1"]
        )
        | st.binary(max_size=3),
        max_size=40,
    ),
    st.sampled_from(["csv", "tsv", "jsonl", "txt"]),
)
@settings(deadline=None)
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], suffix: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any.{suffix}"
    path.write_bytes(b"".join(parts))
    for errors in ("strict", "replace"):
        try:
            train, test, _ = load({"path": str(path), "errors": errors, "broken": "skip", "broken_limit": 1.0})
        except UserError:
            continue
        assert len(train) and len(test) and train.fingerprint != test.fingerprint
        assert all(text.strip() for source in (train, test) for text in source.texts(np.arange(len(source))))
