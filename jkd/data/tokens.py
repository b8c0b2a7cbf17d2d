"""Texts to token ids by the `tokenizers` library, tokenised once, cut and padded to a few fixed lengths."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int32, Integer

from jkd import digest, files, places
from jkd.data import token_growth, wordpiece
from jkd.data.lines import lines_of
from jkd.data.texts import TextSource
from jkd.errors import UserError, some
from jkd.places import Path

# Tokens are made once, before anything is forked; threads of the library would be lost in a loader process.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# What the five are called by other families, in the same order.
NAMES = (("[PAD]", "<pad>"), ("[UNK]", "<unk>"), ("[CLS]", "<s>"), ("[SEP]", "</s>"), ("[MASK]", "<mask>"))
FREE = re.compile(r"\[unused\d+\]|madeupword\d+")  # as BERT and RoBERTa call ids that are kept free
FILE = 2**26  # most bytes of a tokenizer's file
KINDS = ("wordpiece", "word")
AT_ONCE = 4096  # texts tokenised by one call


class Tokenizer:
    """Texts to ids and back. Special tokens written out in a text, such as `[MASK]`, are text like any other.

    Attributes:
      size: ids there are.
      pad: id that fills rows up; it stands for nothing else.
      unk_id: id of what the vocabulary does not hold.
      cls_id: id at the start of a text.
      sep_id: id at its end.
      mask_id: id of a masked token.
    """

    def __init__(self, inner: Any, where: str = "tokenizer") -> None:
        """Takes a `tokenizers.Tokenizer`; `UserError` where one of the five special tokens is missing."""
        inner.no_truncation()
        inner.no_padding()
        inner.encode_special_tokens = True  # a text that holds "[PAD]" must not become padding
        self._inner = inner
        self.size: int = inner.get_vocab_size(with_added_tokens=True)
        found = [next((i for n in names if (i := inner.token_to_id(n)) is not None), None) for names in NAMES]
        missing = ["/".join(names) for names, number in zip(NAMES, found, strict=True) if number is None]
        if missing:
            raise UserError(
                f"{where}: it has no special token {some(missing)}. Expected one of BERT's or RoBERTa's form."
            )
        self.pad, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (int(number or 0) for number in found)

    @property
    def special(self) -> tuple[int, ...]:
        """The five special ids, which augmentation leaves alone: pad, unk, cls, sep, mask."""
        return (self.pad, self.unk_id, self.cls_id, self.sep_id, self.mask_id)

    @cached_property
    def reserved(self) -> tuple[int, ...]:
        """Ids that stand for no part of a text: special ones, those kept free (`[unused7]`), and gaps; ascending."""
        names = [self._inner.id_to_token(number) for number in range(self.size)]
        free = [number for number, name in enumerate(names) if name is None or FREE.fullmatch(name)]
        return tuple(sorted({*self.special, *free}))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides ids; settings of cutting and padding are jkd's own and stay out."""
        content = json.loads(self._inner.to_str())
        return digest.of_json({key: value for key, value in content.items() if key not in ("truncation", "padding")})

    def ragged(self, texts: Sequence[str], max_length: int) -> list[list[int]]:
        """Ids of each text with its special tokens; longer ones are cut to `max_length`, the last id ([SEP]) kept."""
        if max_length < 2:
            raise ValueError(f"max_length is {max_length}; expected at least 2, for [CLS] and [SEP]")
        return [_cut(one.ids, max_length, self.sep_id) for one in self._inner.encode_batch_fast(list(texts))]

    def encode(self, texts: Sequence[str], max_length: int) -> Int32[np.ndarray, "n l"]:
        """Ids, L = `max_length`: cut as `ragged` does, filled up with `pad`."""
        table = np.full((len(texts), max_length), self.pad, np.int32)
        for row, ids in zip(table, self.ragged(texts, max_length), strict=True):
            row[: len(ids)] = ids
        return table

    def strings(self, ids: Iterable[int] | Integer[np.ndarray, " n"]) -> list[str]:
        """The token of each id, such as `##ing`; `[UNK]`'s for an id that there is not."""
        unknown = self._inner.id_to_token(self.unk_id)
        return [self._inner.id_to_token(int(number)) or unknown for number in ids]

    def text(self, ids: Iterable[int] | Integer[np.ndarray, " n"]) -> str:
        """Readable text, special tokens left out."""
        return self._inner.decode([int(number) for number in ids if int(number) not in self.special])

    @property
    def json(self) -> bytes:
        """The content of a `tokenizer.json` that `load` reads; equal tokenizers give equal bytes."""
        return self._inner.to_str().encode()

    def save(self, path: Path) -> None:
        """Writes `tokenizer.json`, atomically."""
        files.write_bytes(path, self.json)


def load(path: str | Path, lowercase: bool | None = None) -> Tokenizer:
    """A tokenizer from `tokenizer.json`, `vocab.txt` (BERT's WordPiece), or a folder with one of them, in this order.

    Args:
      path: of the file or folder.
      lowercase: of a `vocab.txt`: whether it is uncased. By default what `do_lower_case` of a `tokenizer_config.json`
        beside it says, or True. A `tokenizer.json` says it itself.

    Raises:
      UserError: naming the file: not there, not of that form, too large, without BERT's special tokens, or with steps
        that make texts far longer.
    """
    path = places.path_of(path)
    if path.is_dir():
        there = [path / name for name in ("tokenizer.json", "vocab.txt") if (path / name).is_file()]
        if not there:
            found = some(sorted(entry.name for entry in path.iterdir()), 8) or "nothing"
            raise UserError(f"{path}: there is neither tokenizer.json nor vocab.txt. Found: {found}.")
        path = there[0]
    if not path.is_file():
        raise UserError(f"there is no tokenizer {path}. Give a tokenizer.json, a vocab.txt, or a folder with one.")
    if places.size(path) > FILE:
        raise UserError(f"{path}: {places.size(path)} bytes, over {FILE // 2**20} MiB. Is it a tokenizer?")
    data = files.retried(path.read_bytes)
    if path.suffix == ".json":
        inner = _parsed(data, path)
        token_growth.check(inner, str(path))
        return Tokenizer(inner, str(path))
    options = _options(path.parent / "tokenizer_config.json", lowercase)
    return from_vocabulary(list(lines_of(data, str(path))), where=str(path), **options)


def from_vocabulary(
    vocabulary: Sequence[str],
    *,
    lowercase: bool = True,
    chinese: bool = True,
    strip_accents: bool | None = None,
    kind: str = "wordpiece",
    where: str = "vocabulary",
) -> Tokenizer:
    """BERT's tokenizer over a list of tokens, whose positions are the ids.

    Args:
      vocabulary: the tokens, the five of `SPECIAL` among them.
      lowercase: whether texts are lower-cased.
      chinese: whether each Chinese character is a word.
      strip_accents: None = where texts are lower-cased.
      kind: `wordpiece` (the longest pieces that make up a word) or `word` (whole words).
      where: names it in messages.

    Raises:
      UserError: a token twice, or a special one missing.
    """
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

    ids = {token: number for number, token in enumerate(vocabulary)}
    if len(ids) < len(vocabulary):
        twice = [token for token, times in Counter(vocabulary).items() if times > 1]
        raise UserError(f"{where}: tokens that come up twice: {some(twice)}.")
    if missing := [token for token in SPECIAL if token not in ids]:
        raise UserError(f"{where}: it has no special token {some(missing)}. Expected a list of BERT's form.")
    if kind == "word":
        inner = tokenizers.Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    else:
        inner = tokenizers.Tokenizer(
            models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=wordpiece.LONGEST)
        )
        inner.decoder = decoders.WordPiece(prefix=wordpiece.INSIDE)
    inner.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=chinese, strip_accents=strip_accents, lowercase=lowercase
    )
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    inner.add_special_tokens(list(SPECIAL))
    return Tokenizer(inner, where)


def train(
    texts: Iterable[str], size: int, *, kind: str = "wordpiece", lowercase: bool = True, least: int = 2
) -> Tokenizer:
    """A tokenizer made from texts, with nothing downloaded: equal texts, in any order, give equal bytes.

    Args:
      texts: of the training split.
      size: most ids, the five special ones included.
      kind: `wordpiece` or `word`.
      lowercase: whether texts are lower-cased.
      least: occurrences that a piece or word needs.
    """
    if kind not in KINDS or size <= len(SPECIAL):
        raise UserError(
            f"tokenizer: expected {' or '.join(KINDS)} and a size over {len(SPECIAL)}, got '{kind}', {size}."
        )
    from tokenizers import normalizers, pre_tokenizers

    normalizer, pre = normalizers.BertNormalizer(lowercase=lowercase), pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in pre.pre_tokenize_str(normalizer.normalize_str(text)))
    for token in SPECIAL:
        counts.pop(token, None)
    make = wordpiece.pieces if kind == "wordpiece" else wordpiece.frequent_words
    return from_vocabulary([*SPECIAL, *make(counts, size - len(SPECIAL), least)], lowercase=lowercase, kind=kind)


def bucket(lengths: Integer[np.ndarray, " n"], buckets: Sequence[int]) -> int:
    """The smallest bucket that holds the longest of a batch; so a step compiles once a bucket, not once a length.

    Raises:
      ValueError: none does.
    """
    longest = int(np.max(lengths, initial=0))
    for length in sorted(buckets):
        if length >= longest:
            return int(length)
    raise ValueError(f"a text of {longest} tokens is longer than every bucket ({', '.join(map(str, buckets))})")


class Tokens:
    """A source's texts, tokenised once: 4 bytes a token in memory, whatever the longest text.

    Attributes:
      lengths: ids of each text, special ones included, int32 `[N]`.
      cut: how many texts were longer than `max_length`.
      size, pad: of the tokenizer.
    """

    def __init__(self, source: TextSource, tokenizer: Tokenizer, max_length: int) -> None:
        self.size, self.pad, self._sep = tokenizer.size, tokenizer.pad, tokenizer.sep_id
        self.max_length = max_length
        parts: list[np.ndarray] = []
        lengths: list[int] = []
        self.cut = 0
        for start in range(0, len(source), AT_ONCE):
            index = np.arange(start, min(start + AT_ONCE, len(source)))
            # One more than fits tells a text that is cut from one that just fits.
            for ids in tokenizer.ragged(source.texts(index), max_length + 1):
                self.cut += len(ids) > max_length
                kept = _cut(ids, max_length, self._sep)
                parts.append(np.asarray(kept, np.int32))
                lengths.append(len(kept))
        self.lengths: Int32[np.ndarray, " n"] = np.asarray(lengths, np.int32)
        self._flat = np.concatenate([*parts, np.zeros(0, np.int32)])
        self._offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths, dtype=np.int64)])

    def __len__(self) -> int:
        return len(self.lengths)

    def rows(self, index: Integer[np.ndarray, " n"], length: int) -> Int32[np.ndarray, "n length"]:
        """Ids of the texts at `index`, filled up with `pad` to `length`; longer ones are cut, their last id kept."""
        index = np.asarray(index)
        taken = np.minimum(self.lengths[index], length)
        columns = np.arange(length, dtype=np.int64)
        inside = columns[None, :] < taken[:, None]
        at = np.where(inside, self._offsets[index][:, None] + columns[None, :], 0)
        table = np.where(inside, self._flat[at] if len(self._flat) else 0, self.pad).astype(np.int32)
        over = np.flatnonzero(self.lengths[index] > length)
        last = self._flat[self._offsets[index[over] + 1] - 1]
        table[over, length - 1] = np.where(last == self._sep, last, table[over, length - 1])
        return table


def _cut(ids: list[int], length: int, sep: int) -> list[int]:
    if len(ids) <= length:
        return ids
    return [*ids[: length - 1], sep] if ids[-1] == sep else ids[:length]


def _parsed(data: bytes, path: Path) -> Any:
    import tokenizers

    try:
        return tokenizers.Tokenizer.from_buffer(data)
    except Exception as error:  # of the library's own making
        what = " ".join(str(error).split())[:300]
    except BaseException as error:  # a panic of its Rust code counts as no Exception
        if type(error).__name__ != "PanicException":
            raise
        what = "its reader gave up"
    raise UserError(f"{path} is no tokenizer.json that can be read ({what}). Copy it again.")


def _options(path: Path, lowercase: bool | None) -> dict[str, Any]:
    """What a `tokenizer_config.json` says of the normaliser, where there is one."""
    said = files.read_json(path, files.JSON) if path.is_file() else {}
    said = said if isinstance(said, dict) else {}
    return dict(
        lowercase=bool(said.get("do_lower_case", True)) if lowercase is None else lowercase,
        chinese=bool(said.get("tokenize_chinese_chars", True)),
        strip_accents=said.get("strip_accents") if isinstance(said.get("strip_accents"), bool) else None,
    )
