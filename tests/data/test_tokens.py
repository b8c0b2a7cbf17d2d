import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.data import tokens
from jkd.data.texts import TextSource
from jkd.data.tokens import SPECIAL, Tokenizer, Tokens, bucket, from_vocabulary, train
from jkd.errors import UserError

TEXTS = ["What is the capital of Peru ?", "What is a liver enzyme ?", "who was the first man on the moon", "what what"]


@pytest.fixture(scope="module")
def made() -> Tokenizer:
    return train(TEXTS, 60, least=1)


def source_of(texts: list[str]) -> TextSource:
    return TextSource("set", ("a", "b"), [f"t/{i}" for i in range(len(texts))], np.zeros(len(texts), np.int32), texts)


def test_rows_begin_and_end_with_special_tokens_and_are_padded(made: Tokenizer) -> None:
    rows = made.encode(["what is", ""], 8)
    assert rows.dtype == np.int32 and rows.shape == (2, 8)
    assert made.strings(rows[0]) == ["[CLS]", "what", "is", "[SEP]", *["[PAD]"] * 4]
    assert made.strings(rows[1]) == ["[CLS]", "[SEP]", *["[PAD]"] * 6]
    assert made.special == (0, 1, 2, 3, 4) and made.text(rows[0]) == "what is"


def test_what_is_too_long_is_cut_and_keeps_its_end(made: Tokenizer) -> None:
    row = made.encode(["what what what what what"], 4)[0]
    assert made.strings(row) == ["[CLS]", "what", "what", "[SEP]"]
    with pytest.raises(ValueError, match="at least 2"):
        made.encode(["x"], 1)


def test_special_tokens_in_a_text_are_text(made: Tokenizer) -> None:
    for token in SPECIAL:
        inside = made.ragged([f"what {token} is {token}"], 50)[0][1:-1]
        assert not set(inside) & {made.pad, made.cls_id, made.sep_id, made.mask_id}


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_any_text_becomes_ids_in_range_without_padding_inside(made: Tokenizer, text: str) -> None:
    ids = made.ragged([text], 32)[0]
    assert 2 <= len(ids) <= 32 and ids[0] == made.cls_id and ids[-1] == made.sep_id
    assert all(0 < number < made.size for number in ids)


@pytest.mark.parametrize("kind", ["wordpiece", "word"])
def test_training_gives_the_same_bytes_each_time(kind: str) -> None:
    code = f"import sys; from jkd.data import tokens; made = tokens.train({TEXTS!r}, 60, kind={kind!r})"
    code += "; sys.stdout.buffer.write(made.json)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7"}
    there = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout
    assert there == train(TEXTS[::-1], 60, kind=kind).json


def test_kinds_and_case() -> None:
    words = train(TEXTS, 60, kind="word", least=1)
    assert words.strings(words.ragged(["What is whatever"], 9)[0]) == ["[CLS]", "what", "is", "[UNK]", "[SEP]"]
    cased = train(TEXTS, 200, kind="word", lowercase=False, least=1)
    assert cased.strings(cased.ragged(["What what"], 9)[0])[1:-1] == ["What", "what"]
    assert words.size <= 60
    with pytest.raises(UserError, match="expected wordpiece or word and a size over 5, got 'bpe'"):
        train(TEXTS, 60, kind="bpe")


def test_saved_and_loaded_and_pickled_it_is_the_same(made: Tokenizer, tmp_path: Path) -> None:
    made.save(tmp_path / "tokenizer.json")
    for again in (tokens.load(tmp_path / "tokenizer.json"), tokens.load(tmp_path), pickle.loads(pickle.dumps(made))):
        assert again.fingerprint == made.fingerprint and again.json == made.json
        np.testing.assert_array_equal(again.encode(TEXTS, 12), made.encode(TEXTS, 12))


def test_the_fingerprint_is_about_ids_not_about_padding(made: Tokenizer, tmp_path: Path) -> None:
    content = json.loads(made.json)
    content["truncation"] = {"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    again = tokens.load(tmp_path)
    assert again.fingerprint == made.fingerprint
    np.testing.assert_array_equal(again.encode(TEXTS, 12), made.encode(TEXTS, 12))
    assert train(TEXTS, 61, least=1).fingerprint != made.fingerprint
    assert train(TEXTS, 60, least=1, lowercase=False).fingerprint != made.fingerprint


def test_a_vocabulary_file_is_berts_and_a_config_beside_it_says_its_case(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, "hello", "Hello", "##s", "ha"]) + "\n")
    assert tokens.load(tmp_path).encode(["Hellos"], 4).tolist() == [[2, 5, 7, 3]]
    assert tokens.load(tmp_path, lowercase=False).encode(["Hellos"], 4).tolist() == [[2, 6, 7, 3]]
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert tokens.load(tmp_path / "vocab.txt").encode(["Hellos"], 4).tolist() == [[2, 6, 7, 3]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", "{}", "no tokenizer.json that can be read"),
        ("tokenizer.json", "[" * 100_000, "no tokenizer.json that can be read"),
        (
            "tokenizer.json",
            '{"model": {"type": "WordPiece", "vocab": {"a": -1}}}',
            "no tokenizer.json that can be read",
        ),
        ("vocab.txt", "a\nb\n", r"no special token \[PAD\], \[UNK\], \[CLS\], \[SEP\], \[MASK\]"),
        ("vocab.txt", "\n".join([*SPECIAL, "a", "a"]), "tokens that come up twice: a"),
        ("notes.txt", "x", "neither tokenizer.json nor vocab.txt. Found: notes.txt"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        tokens.load(tmp_path)


def test_missing_and_huge_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="there is no tokenizer"):
        tokens.load(tmp_path / "nowhere.json")
    monkeypatch.setattr(tokens, "FILE", 3)
    (tmp_path / "vocab.txt").write_text("abcd")
    with pytest.raises(UserError, match="4 bytes, over"):
        tokens.load(tmp_path)


def test_a_tokenizer_of_another_family_needs_the_same_five(tmp_path: Path) -> None:
    import tokenizers

    inner = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}, unk_token="<unk>")
    )
    with pytest.raises(UserError, match=r"no special token \[MASK\]/<mask>"):
        Tokenizer(inner)
    inner.add_special_tokens(["<mask>"])
    assert Tokenizer(inner).special == (1, 3, 0, 2, 4)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["what", "what is", "what is the moon", "", "a b c d e f g"]), max_size=6), st.data())
def test_tokens_once_are_tokens_each_time(made: Tokenizer, texts: list[str], data: st.DataObject) -> None:
    once = Tokens(source_of(texts), made, 8)
    length = data.draw(st.integers(2, 12))
    index = np.array(data.draw(st.lists(st.integers(0, max(len(texts) - 1, 0)), max_size=5 if texts else 0)), np.int64)
    expected = made.encode([texts[i] for i in index], min(length, 8))
    rows = once.rows(index, length)
    assert rows.dtype == np.int32 and rows.shape == (len(index), length)
    np.testing.assert_array_equal(rows[:, :8], expected[:, :length])
    assert (rows[:, 8:] == made.pad).all()
    assert once.lengths.tolist() == [len(ids) for ids in made.ragged(texts, 8)]
    assert once.cut == sum(len(ids) > 8 for ids in made.ragged(texts, 100))


@settings(deadline=None)
@given(st.lists(st.integers(0, 64), max_size=5), st.lists(st.integers(1, 64), min_size=1, max_size=4))
def test_the_bucket_is_the_smallest_that_holds_all(lengths: list[int], buckets: list[int]) -> None:
    given_lengths = np.array(lengths, np.int32)
    if max(lengths, default=0) > max(buckets):
        with pytest.raises(ValueError, match="longer than every bucket"):
            bucket(given_lengths, buckets)
    else:
        found = bucket(given_lengths, buckets)
        assert found in buckets and found >= max(lengths, default=0)
        assert not any(max(lengths, default=0) <= other < found for other in buckets)


def test_minilm_gives_the_golden_ids(shared: Path) -> None:
    folder = shared / "data" / "all_minilm_l6_v2"
    texts = json.loads((shared / "golden" / "bert" / "minilm_texts.json").read_text())
    with np.load(shared / "golden" / "bert" / "minilm.npz", allow_pickle=False) as golden:
        ids, mask = golden["input_ids"], golden["attention_mask"].astype(bool)
    whole, listed = tokens.load(folder / "tokenizer.json"), tokens.load(folder / "vocab.txt")
    assert whole.fingerprint == listed.fingerprint and whole.special == (0, 100, 101, 102, 103)
    for tokenizer in (whole, listed):
        found = tokenizer.encode(texts, ids.shape[1])
        np.testing.assert_array_equal(found != tokenizer.pad, mask)
        # The golden rows were cut without regard to [SEP], which stands last here.
        last = np.arange(ids.shape[1])[None, :] == ids.shape[1] - 1
        differs = found != ids
        assert (differs <= last).all() and differs.sum() <= 1 and (found[differs] == tokenizer.sep_id).all()


def test_from_vocabulary_needs_each_token_once() -> None:
    with pytest.raises(UserError, match=r"vocabulary: it has no special token \[MASK\]"):
        from_vocabulary(SPECIAL[:4])
