"""Tokenizers whose steps would make a short text fill the memory."""

import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, decoders, normalizers, pre_tokenizers, processors

from jkd.data import token_growth, tokens
from jkd.data.tokens import SPECIAL, from_vocabulary
from jkd.errors import UserError

ROBERTA = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))


def _made(**parts: Any) -> Any:
    inner = from_vocabulary([*SPECIAL, "a", "b"])._inner
    for name, part in parts.items():
        setattr(inner, name, part)
    return inner


def _template(single: str, **ids: int) -> Any:
    special = [{"id": f"{name}", "ids": [5] * many, "tokens": ["a"] * many} for name, many in ids.items()]
    return processors.TemplateProcessing(single=single, pair="$A $B", special_tokens=special)


def _map(longest: int) -> Any:
    return normalizers.Precompiled(struct.pack("<I", 4) + bytes(4) + b"short\0" + b"x" * longest + b"\0")


def _replaced(times: int, pattern: Any = "a", content: str = "aa") -> Any:
    return normalizers.Sequence([normalizers.Replace(pattern, content) for _ in range(times)])


GROW: dict[str, tuple[dict[str, Any], str]] = {
    "doubled 26 times": (
        dict(normalizer=_replaced(26)),
        "its 28 steps, most of all 'Replace', can make a text 2.01e+08",
    ),
    "sequences within sequences": (
        dict(normalizer=normalizers.Sequence([_replaced(4), normalizers.Sequence([_replaced(3)])])),
        "its 9 steps, most of all 'Replace', can make a text 384 times",
    ),
    "for nothing": (dict(normalizer=_replaced(7, pattern="", content="b")), "'Replace'"),
    "a regular expression": (dict(normalizer=_replaced(2, pattern=Regex("x*"), content="b" * 9)), "'Replace'"),
    "one long text for a letter": (dict(normalizer=_replaced(1, content="a" * 100)), "can make a text 300 times"),
    "put before": (dict(normalizer=normalizers.Prepend("a" * 100)), "'Prepend'"),
    "bytes as characters": (
        dict(pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.ByteLevel() for _ in range(4)])),
        "'ByteLevel'",
    ),
    "Chinese": (dict(normalizer=normalizers.Sequence([normalizers.BertNormalizer() for _ in range(4)])), "'Bert"),
    "maps of characters": (dict(normalizer=normalizers.Sequence([_map(18), _map(40)])), "'Precompiled'"),
    "each of two parts": (
        dict(normalizer=_replaced(3), pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.ByteLevel()] * 2)),
        "when it encodes",
    ),
    "a text again and again": (
        dict(post_processor=processors.Sequence([_template("$A $A") for _ in range(7)])),
        "its 9 steps, most of all 'TemplateProcessing', can make a text 384 times",
    ),
    "a token of many ids": (dict(post_processor=_template("$A [X]", **{"[X]": 100})), "'TemplateProcessing'"),
    "read back": (
        dict(decoder=decoders.Sequence([decoders.Replace("a", "aa") for _ in range(26)])),
        "its 26 steps, most of all 'Replace', can make a text 6.71e+07 times as long when it decodes",
    ),
    "very many steps": (
        dict(normalizer=normalizers.Sequence([normalizers.Lowercase() for _ in range(1001)])),
        "it encodes by 1003 steps; expected at most 1000",
    ),
}


@pytest.mark.fault(22)
@pytest.mark.parametrize("name", GROW)
def test_steps_that_make_a_text_far_longer_are_refused(tmp_path: Path, name: str) -> None:
    parts, message = GROW[name]
    (tmp_path / "tokenizer.json").write_text(_made(**parts).to_str())
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"tokenizer\.json") as caught:
        tokens.load(tmp_path)
    assert message in str(caught.value) and time.monotonic() - begun < 2


USUAL: dict[str, dict[str, Any]] = {
    "BERT": {},
    "RoBERTa": dict(
        normalizer=None,
        pre_tokenizer=pre_tokenizers.ByteLevel(),
        post_processor=processors.Sequence([processors.ByteLevel(), ROBERTA]),
        decoder=decoders.ByteLevel(),
    ),
    "XLM-R": dict(
        normalizer=normalizers.Sequence([_map(18), normalizers.Replace(Regex(" {2,}"), "▁")]),
        pre_tokenizer=pre_tokenizers.Metaspace(),
        decoder=decoders.Metaspace(),
    ),
    "ALBERT": dict(
        normalizer=normalizers.Sequence(
            [
                *(normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD()),
                *(normalizers.StripAccents(), normalizers.Lowercase(), _map(18)),
                normalizers.Replace(Regex(" {2,}"), " "),
            ]
        ),
        pre_tokenizer=pre_tokenizers.Metaspace(),
    ),
    "CLIP": dict(
        normalizer=normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        ),
        pre_tokenizer=pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex("[a-z]+"), "removed", invert=True), pre_tokenizers.ByteLevel()]
        ),
        post_processor=ROBERTA,
    ),
    "Llama": dict(
        normalizer=normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        pre_tokenizer=None,
        decoder=decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        ),
    ),
}


@pytest.mark.parametrize("name", USUAL)
def test_what_usual_families_do_is_taken(name: str) -> None:
    token_growth.check(_made(**USUAL[name]), name)


def test_the_bound_holds_where_a_step_does_its_worst() -> None:
    inner = _made(normalizer=_replaced(3, pattern=Regex("x*"), content="b"))
    token_growth.check(inner, "it")
    assert len(inner.normalizer.normalize_str("c" * 100)) <= 2 * 2 * 2 * 101


def test_other_files_are_as_they_were(shared: Path) -> None:
    path = shared / "data" / "all_minilm_l6_v2" / "tokenizer.json"
    kept = json.loads(tokens.load(path).json)
    content = json.loads(path.read_text())
    assert all(kept[key] == content[key] for key in ("normalizer", "pre_tokenizer", "post_processor", "decoder"))
