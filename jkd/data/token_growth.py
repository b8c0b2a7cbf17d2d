"""How much longer a tokenizer from elsewhere can make a text: a few steps that double it take all memory there is."""

import base64
import json
import math
from collections.abc import Iterator
from typing import Any

from jkd.errors import UserError

GROWTH = 64.0  # most times its length that a text may come to; XLM-R and ALBERT come to 16
STEPS = 1000  # most steps, each of which goes through every text
NFKC = 18  # characters that one may become by Unicode's own rules, which maps of characters are made from
BYTES = 4  # of a character at most, each of which `ByteLevel` makes a character
SPACED = 3  # characters that `BertNormalizer` makes of a Chinese one


def check(tokenizer: Any, where: str) -> None:
    """Refuses a `tokenizers.Tokenizer` whose steps could make a text over `GROWTH` times as long, or are very many.

    Each step is taken to do its worst on every character, and on what the one before it did.

    Raises:
      UserError: naming `where`, what is too much, and its kind of step.
    """
    ways = {"encodes": ("normalizer", "pre_tokenizer", "post_processor"), "decodes": ("decoder",)}
    for way, parts in ways.items():
        steps = [step for part in parts for step in _steps(_content(getattr(tokenizer, part)), part)]
        if len(steps) > STEPS:
            raise UserError(f"{where}: it {way} by {len(steps)} steps; expected at most {STEPS}.")
        factors = [_factor(step) for step in steps]
        maps = [at for at, step in enumerate(steps) if step["type"] == "Precompiled"]
        for at in maps[:1]:  # one that follows Unicode is usual
            factors[at] = max(1.0, factors[at] / NFKC)
        if (growth := math.prod(factors)) > GROWTH:
            raise UserError(
                f"{where}: its {len(steps)} steps, most of all '{_worst(steps, factors)}', can make a text "
                f"{growth:.3g} times as long when it {way}; expected at most {GROWTH:g}. Take steps out of it, or "
                "another tokenizer."
            )


def _worst(steps: list[dict[str, Any]], factors: list[float]) -> str:
    """The kind of step whose factors come to the most together."""
    by_kind: dict[str, float] = {}
    for step, factor in zip(steps, factors, strict=True):
        by_kind[step["type"]] = by_kind.get(step["type"], 1.0) * factor
    return max(by_kind, key=lambda kind: by_kind[kind])


def _content(part: Any) -> Any:
    return None if part is None else json.loads(part.__getstate__())


def _steps(content: Any, part: str) -> Iterator[dict[str, Any]]:
    """The steps of a part in order, those of sequences within sequences, too; each says its `part`."""
    if isinstance(content, list):
        for inner in content:
            yield from _steps(inner, part)
    elif isinstance(content, dict) and content.get("type") == "Sequence":
        for inner in content.values():
            yield from _steps(inner, part)
    elif isinstance(content, dict) and "type" in content:
        yield content | {"part": part}


def _factor(step: dict[str, Any]) -> float:
    """Times its length that a step can make a text at most; 1 where it can only add what a later one would not."""
    kind = step["type"]
    if kind == "Replace":
        text, pattern = len(step["content"]), step["pattern"]
        least = len(pattern.get("String", ""))  # a regular expression may match nothing at all, everywhere
        return max(1.0, text / least) if least else 1.0 + text
    if kind == "Prepend":
        return 1.0 + len(step["prepend"])
    if kind == "Precompiled":
        return _longest(step["precompiled_charsmap"])
    if kind == "TemplateProcessing":
        ids = {name: len(token["ids"]) for name, token in step["special_tokens"].items()}
        return float(sum(ids.get(piece.get("SpecialToken", {}).get("id"), 1) for piece in step["single"]))
    known = {"ByteLevel": BYTES, "BertNormalizer": SPACED, "Metaspace": 2}
    return float(known.get(kind, 1)) if step["part"] in ("normalizer", "pre_tokenizer") else 1.0


def _longest(charsmap: str) -> float:
    """Characters of the longest text in a map of characters: a trie behind its length, then texts that end in NUL."""
    data = base64.b64decode(charsmap)
    texts = data[4 + int.from_bytes(data[:4], "little") :]
    return float(max(len(text.decode(errors="replace")) for text in texts.split(b"\0")))
