"""From settings to a training and a test source of texts with one list of classes."""

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jkd.data import delimited, jsonlines, trec
from jkd.data.folder import existing
from jkd.data.lines import decoder_of, read_lines
from jkd.data.sources import hash_order, keep
from jkd.data.texts import Column, Row, Rules, TextSource, collect, same
from jkd.errors import UserError, did_you_mean, some
from jkd.places import Path, path_of

DEFAULTS: Mapping[str, Any] = MappingProxyType(
    dict(
        source="texts",  # texts (files), trec, trec:fine (without a path: the embedded set), or tfds:NAME
        path="",  # a folder of files, one file, or TFDS's data_dir
        train="train",  # a split: FILE below path, or its name without the ending
        test="test",
        val_split="",  # one more split, whose texts are for choices; empty = none
        text="",  # the column, key or feature of the text, by name or by position from 0; empty = by its usual names
        label="",
        header="auto",  # tsv, csv: whether the first row names the columns: yes, no, auto
        delimiter="",  # tsv, csv: one character; empty = by the file's ending
        quotes="auto",  # tsv, csv: whether texts may stand in ": yes, no, auto (not in a tsv)
        encoding="",  # empty = utf-8, and latin-1 for TREC's form
        errors="strict",  # strict (refuse bytes that do not decode) or replace (by U+FFFD)
        max_chars=20_000,  # characters of a text; the rest is cut
        classes=(),  # class names in label order, where labels are numbers from 0 or to fix the order; () = as found
        overlap="drop",  # training texts that are in the test split, too: drop, keep, refuse
        test_share=0.2,  # of one file: share of its distinct texts that is held out as the test split
        limit=0,  # keep so many training samples by a fixed rule; 0 = all
        test_limit=0,
        broken="refuse",  # refuse or skip rows that cannot be used
        broken_limit=0.001,  # share of a split's rows that may be skipped
    )
)
CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    dict(
        header=delimited.HEADERS,
        quotes=delimited.QUOTES,
        errors=("strict", "replace"),
        overlap=("drop", "keep", "refuse"),
        broken=("refuse", "skip"),
    )
)
KINDS = ("texts", "trec", "trec:fine", "tfds:NAME")
SUFFIXES = (".tsv", ".csv", ".jsonl", ".txt")
CLASSES = 10_000  # most class names
INTEGER = re.compile(r"[+-]?[0-9]{1,9}")
LAYOUT = "Expected <split>.tsv, .csv, .jsonl or .txt (TREC's form), such as train.tsv."


class Loaded(NamedTuple):
    """What settings name.

    Attributes:
      train: the training split, and behind it the validation split where there is one.
      test: the test split.
      aside: how many texts of `train`, its last, are the validation split's.
    """

    train: TextSource
    test: TextSource
    aside: int


def load(settings: Mapping[str, Any] | ConfigDict) -> Loaded:
    """Training and test source.

    - Files: `PATH/<split>` as it is named, or with `.tsv`, `.csv`, `.jsonl` or `.txt`. Ids are `<split>/<row>`, rows
      counted from 0, whatever is skipped or limited.
    - One file: `data.test_share` of its distinct labelled texts, those that come first by SHA-256 of what they say, are
      the test split with all their copies. No text is on both sides, and nobody's side depends on the order of rows.
    - A validation split keeps what is not in the test split, and takes away from the training split what it has.
    - Classes: the labels of all splits, in the order of their numbers if all are whole numbers, else of their names.
      An empty label is none; so is -1 where `data.classes` names the classes that numbers mean.

    Args:
      settings: any of the keys of `DEFAULTS`; other keys are passed over.

    Raises:
      UserError: an unknown kind or choice, a path or layout that is not as expected, rows that cannot be used, fewer
        than two classes, a test sample without a label, or an overlap that is to be refused.
    """
    given = {**DEFAULTS, **{key: settings[key] for key in DEFAULTS if key in settings}}
    for key, known in CHOICES.items():
        if given[key] not in known:
            raise UserError(f"data.{key}: expected one of {', '.join(known)}, got '{given[key]}'.")
    if given["max_chars"] < 1:
        raise UserError(f"data.max_chars: expected at least 1, got {given['max_chars']}.")
    kind, _, rest = str(given["source"]).partition(":")
    names: Sequence[str] = given["classes"]
    if kind == "tfds" and rest:
        names, columns = _of_tfds(rest, given)
    elif given["source"] in KINDS:
        columns = _of_files(given)
    else:
        hint = did_you_mean(str(given["source"]), KINDS)
        raise UserError(f"data.source: expected {', '.join(KINDS)}, got '{given['source']}'.{hint}")
    train, test, *others = columns
    classes, of_label = _classes([label for column in columns for label in column.labels], names, train.name)
    others = [_without_overlap(column, [test], given["overlap"]) for column in others]
    train = _without_overlap(train, [test, *others], given["overlap"])
    made = _source(train, classes, of_label, given["limit"])
    aside = sum(len(column.texts) for column in others)
    for column in others:
        made = made.with_more(_source(column, classes, of_label, 0))
    return Loaded(made, _tested(test, classes, of_label, given["test_limit"]), aside)


def _rules(given: Mapping[str, Any]) -> Rules:
    return Rules(int(given["max_chars"]), given["broken"], float(given["broken_limit"]))


def _of_tfds(name: str, given: Mapping[str, Any]) -> tuple[Sequence[str], list[Column]]:
    from jkd.data import tfds_texts

    columns, names = [], []
    for split in _splits(given):
        found, rows = tfds_texts.rows(name, given["path"], split, given["text"], given["label"], given["errors"])
        columns.append(collect(rows, f"tfds:{name}:{split}", split, _rules(given)))
        names.append(found)
    if any(each != names[0] for each in names):
        raise UserError(f"tfds:{name}: the splits have different classes.")
    return names[0], columns


def _of_files(given: Mapping[str, Any]) -> list[Column]:
    rules, is_trec = _rules(given), given["source"] != "texts"
    if is_trec and not given["path"]:
        _check_no_split(given, "the embedded questions have none")
        return [
            collect(trec.rows(trec.embedded(split), given["source"] == "trec:fine"), f"trec:{split}", split, rules)
            for split in ("train", "test")
        ]
    root = existing(given["path"])
    if root.is_file():
        _check_no_split(given, f"{root} is one file")
        return _held_out(collect(_rows(root, given), str(root), "train", rules), float(given["test_share"]))
    return [
        collect(_rows(_file(root, split), given), f"{_file(root, split)}", split, rules) for split in _splits(given)
    ]


def _check_no_split(given: Mapping[str, Any], why: str) -> None:
    if given["val_split"]:
        raise UserError(f"data.val_split: '{given['val_split']}', but {why}. Set data.val, a share, instead.")


def _splits(given: Mapping[str, Any]) -> list[str]:
    """Of training and test, and of validation where there is one; no two are the same."""
    if given["train"] == given["test"]:
        raise UserError(f"data.train and data.test are both '{given['train']}'. The test split must be another one.")
    splits = [given["train"], given["test"], *([given["val_split"]] if given["val_split"] else [])]
    if len(set(splits)) < len(splits):
        raise UserError(f"data.val_split: '{given['val_split']}' is data.train or data.test. Name another split.")
    return splits


def _file(root: Path, split: str) -> Path:
    if "://" in split:
        return path_of(split)
    for suffix in ("", *SUFFIXES):
        if (root / f"{split}{suffix}").is_file():
            return root / f"{split}{suffix}"
    found = some(sorted(entry.name for entry in root.iterdir()), 8) or "nothing"
    raise UserError(f"data.path: {root} has no split '{split}'. {LAYOUT} Found: {found}.")


def _rows(path: Path, given: Mapping[str, Any]) -> Iterator[Row]:
    rows = _raw_rows(path, given)
    if not given["classes"] or "-1" in given["classes"]:
        return rows
    return (row._replace(label="") if row.label == "-1" else row for row in rows)


def _raw_rows(path: Path, given: Mapping[str, Any]) -> Iterator[Row]:
    suffix = path.suffix.lower()
    as_trec = given["source"] != "texts" or suffix == ".txt"
    encoding = given["encoding"] or (trec.ENCODING if as_trec else "utf-8")
    decoder_of(encoding, given["errors"])  # a wrong name is refused before the file is opened
    lines = read_lines(path, encoding, given["errors"])
    if as_trec:
        return trec.rows(lines, given["source"] == "trec:fine")
    if suffix in (".jsonl", ".json"):
        return jsonlines.rows(lines, given["text"], given["label"], str(path))
    if suffix not in (".tsv", ".csv") and not given["delimiter"]:
        raise UserError(f"{path}: expected {', '.join(SUFFIXES)}, got '{suffix}'. Or give data.delimiter.")
    delimiter = given["delimiter"] or ("\t" if suffix == ".tsv" else ",")
    if len(delimiter) != 1 or delimiter in '\r\n"':
        raise UserError(f"data.delimiter: expected one character, got {delimiter!r}.")
    form = delimited.Form(str(given["text"]), str(given["label"]), given["header"], delimiter, given["quotes"])
    return delimited.rows(lines, form, str(path))


def _held_out(whole: Column, share: float) -> list[Column]:
    """Training and test rows of one file, all copies of a text on one side."""
    if not 0 < share < 1:
        raise UserError(f"data.test_share: expected a share between 0 and 1, got {share:g}.")
    said = [same(text).hex() for text in whole.texts]
    known = sorted({what for what, label in zip(said, whole.labels, strict=True) if label})
    if len(known) < 2:
        raise UserError(f"{whole.name}: {len(known)} distinct labelled texts are too few to hold some out for a test.")
    count = min(max(1, round(share * len(known))), len(known) - 1)
    chosen = {known[int(i)] for i in hash_order(known, "texts/test")[:count]}
    inside, outside = [], []
    for index, (what, label) in enumerate(zip(said, whole.labels, strict=True)):
        if what not in chosen:
            inside.append(index)
        elif label:  # an unlabelled copy of a test text serves nobody
            outside.append(index)
    train, test = whole.take(inside), whole.take(outside)
    test.ids = [f"test/{name.removeprefix('train/')}" for name in test.ids]
    test.skipped, test.counts = [], dict.fromkeys(test.counts, 0)  # counted once, with the training split
    train.name, test.name = f"{whole.name}:train", f"{whole.name}:test"
    return [train, test]


def _classes(labels: Sequence[str], names: Sequence[str], where: str) -> tuple[tuple[str, ...], dict[str, int]]:
    """Class names, and the number of each label as it stands in the files; -1 for none."""
    there = set(labels) - {""}
    numeric = all(INTEGER.fullmatch(label) for label in there)
    if len(there) > CLASSES:
        raise UserError(f"{where}: {len(there)} different labels, over {CLASSES}. Is data.label the right column?")
    if names and not (there <= set(names)) and numeric:
        of_label = {label: int(label) for label in there}
        strange = [label for label in there if not 0 <= int(label) < len(names)]
    elif names:
        of_label = {label: list(names).index(label) for label in there if label in names}
        strange = sorted(there - set(names))
    else:
        names = sorted(there, key=lambda label: (int(label), label)) if numeric else sorted(there)
        of_label, strange = {label: number for number, label in enumerate(names)}, []
    if strange:
        raise UserError(
            f"{where}: labels that data.classes does not name: {some(sorted(strange))}. Named: {some(names)}."
        )
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(f"{where}: the classes are: {some(names) or 'none'}. Expected at least two, each once.")
    return tuple(str(name) for name in names), of_label


def _without_overlap(train: Column, others: Sequence[Column], rule: str) -> Column:
    there = {same(text) for column in others for text in column.texts}
    twice = [index for index, text in enumerate(train.texts) if same(text) in there]
    train.counts["overlap"] = len(twice)
    if not twice or rule == "keep":
        return train
    where = " or ".join(column.name for column in others)
    if rule == "refuse":
        shown = some([train.ids[index] for index in twice])
        raise UserError(f"{train.name}: {len(twice)} texts are in {where}, too: {shown}. Set data.overlap='drop'.")
    kept = np.setdiff1d(np.arange(len(train.texts)), twice)
    if not len(kept):
        raise UserError(f"{train.name}: every text of it is in {where}, too.")
    return train.take(kept.tolist())


def _source(column: Column, classes: tuple[str, ...], of_label: dict[str, int], limit: int) -> TextSource:
    labels = np.array([of_label.get(label, -1) for label in column.labels], np.int32)
    whole = TextSource(column.name, classes, column.ids, labels, column.texts, column.skipped, column.counts)
    return whole.take(keep(column.ids, int(limit))) if limit else whole


def _tested(column: Column, classes: tuple[str, ...], of_label: dict[str, int], limit: int) -> TextSource:
    missing = [name for name, label in zip(column.ids, column.labels, strict=True) if label not in of_label]
    if missing:
        raise UserError(
            f"{column.name}: {len(missing)} of {len(column.ids)} test samples have no label: {some(missing)}. All need "
            "one; is there another split, such as data.test='validation'?"
        )
    return _source(column, classes, of_label, limit)
