"""Words and numbers for tables and pages: everything that comes from data is made visible and escaped."""

import html
import math
from collections.abc import Mapping
from typing import Any

# Shares, shown in percent; other metrics as they are.
PERCENT = (
    *("accuracy", "f1", "f1_binary", "ece", "agreement", "seed_churn", "replicate_churn"),
    *("map", "map50", "map75", "voc_map50"),
    *("churn", "good_churn", "bad_churn", "both_wrong_churn", "expected_churn", "jaccard"),
)
BYTE_UNITS = ("B", "kB", "MB", "GB", "TB")
COUNT_UNITS = ("", "k", "M", "G", "T")
DASH = "–"


def visible(value: Any) -> str:
    """Text in which every control, bidirectional or zero-width character can be seen, on a terminal too."""

    def show(character: str) -> str:
        code = ord(character)
        if code < 0x20:
            return chr(0x2400 + code)  # the control pictures
        if code == 0x7F:
            return "␡"
        if 0x80 <= code < 0xA0 or 0x200B <= code <= 0x200F or 0x2028 <= code <= 0x202E:
            return f"\\u{code:04x}"
        if 0x2060 <= code <= 0x206F or code == 0xFEFF or 0xD800 <= code <= 0xDFFF:
            return f"\\u{code:04x}"
        return character

    return "".join(show(character) for character in str(value))


def escape(value: Any) -> str:
    """`visible` text that is safe in HTML, within tags and within quoted attributes."""
    return html.escape(visible(value), quote=True)


def number(metric: str, value: float | int | None, signed: bool = False) -> str:
    """A metric's value: shares in percent to one decimal, others to three; a dash where not measured."""
    if value is None or not math.isfinite(value):
        return DASH
    digits, scale = (1, 100) if metric in PERCENT else (3, 1)
    text = f"{abs(value) * scale:.{digits}f}"
    if float(text) == 0:
        return text
    return f"{'−' if value < 0 else '+' if signed else ''}{text}"


def spread(metric: str, entry: Mapping[str, Any]) -> str:
    """`mean ± half-width` of a summary entry; the mean alone where there is no interval."""
    mean = number(metric, entry["mean"])
    if entry["low"] is None or entry["high"] is None:
        return mean
    return f"{mean} ± {number(metric, (entry['high'] - entry['low']) / 2)}"


def interval(metric: str, entry: Mapping[str, Any]) -> str:
    """`[low, high]` of a paired entry, signed; a dash where there is none."""
    if entry["low"] is None or entry["high"] is None:
        return DASH
    return f"[{number(metric, entry['low'], True)}, {number(metric, entry['high'], True)}]"


def amount(value: float | int | None, units: tuple[str, ...] = COUNT_UNITS) -> str:
    """Three significant figures with a unit in steps of 1,000: `17.3 kB`, `1.2M`."""
    if value is None:
        return DASH
    size, step = float(value), 0
    while size >= 999.5 and step < len(units) - 1:
        size, step = size / 1000, step + 1
    text = f"{size:.0f}" if step == 0 or size >= 99.95 else f"{size:.1f}"
    return f"{text} {units[step]}" if units is BYTE_UNITS else f"{text}{units[step]}"


def size(value: float | int | None) -> str:
    """Bytes for people."""
    return amount(value, BYTE_UNITS)


def milliseconds(value: float | int | None) -> str:
    """A latency."""
    return DASH if value is None else f"{value:.3g} ms"


def plural(count: int, word: str) -> str:
    """`1 seed`, `16 seeds`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def join(words: list[str]) -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""
