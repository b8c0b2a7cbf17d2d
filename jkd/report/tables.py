"""The plain-text table for terminals and READMEs, and the finding in a sentence: both from summary.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from jkd.report import text
from jkd.report.summary import TEACHER, pairs_of, reference_of
from jkd.tasks import make_task

DIFFERING = {
    "churn": "churn",
    "good_churn": "good",
    "bad_churn": "bad",
    "both_wrong_churn": "both wrong",
    "normalised_churn": "normalised",
    "js": "JS",
}
# Shown with bootstrap intervals; summary.json has all of them.
RESAMPLED = {
    "churn": "churn",
    "good_churn": "good",
    "bad_churn": "bad",
    "agreement": "agreement",
    "normalised_churn": "normalised",
    "js": "JS",
}


def table(summary: Mapping[str, Any]) -> str:
    """Teacher and students with their figures, then what each differs by from the reference student.

    `±` is half the width of the 95 % interval over the n replicates (or seeds) in the last column.
    """
    primary = summary["primary"]["metric"]
    metrics = {metric: metric for metric in make_task(summary["config"]["task"]).figures} | {churn_of(summary): "churn"}
    rows = [["", *metrics.values(), "parameters", "bytes", "n"]]
    for name, entry in entries(summary).items():
        receipt = summary["receipt"].get(name, {})
        figures = [text.spread(metric, entry["metrics"][metric]) for metric in metrics]
        size = [text.amount(receipt.get("params")), text.size(receipt.get("bytes"))]
        rows.append([text.visible(name), *figures, *size, str(entry["metrics"][primary]["n"])])
    lines = [_aligned(rows), "", _legend(summary, metrics)]
    return "\n".join(lines + _differences(summary, primary) + _differing(summary)).replace(
        "−", "-"
    )  # the ASCII sign is easier to search for


def entries(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The teacher's entry, then the students' from worst to best by the primary metric, missing ones last."""
    metric, sign = summary["primary"]["metric"], sign_of(summary)

    def rank(name: str) -> tuple[bool, float, str]:
        mean = summary["students"][name]["metrics"][metric]["mean"]
        return mean is None, sign * (mean or 0.0), name

    names = sorted(summary["students"], key=rank)
    return {TEACHER: summary["teacher"]} | {name: summary["students"][name] for name in names}


def unit(summary: Mapping[str, Any]) -> str:
    """What intervals and pairs are over."""
    return "replicate" if summary["config"]["replicates"] > 1 else "seed"


def churn_of(summary: Mapping[str, Any]) -> str:
    """The metric that a table's one column of churn shows."""
    return "seed_churn" if pairs_of(summary) == "seeds" else "replicate_churn"


def finding(summary: Mapping[str, Any]) -> str:
    """What the run found, in one or two sentences, from the paired differences."""
    metric = summary["primary"]["metric"]
    reference, best = reference_of(summary), best_student(summary)
    if reference is None or best is None:
        return "No student is finished yet."
    entry = summary["paired"][best][reference][metric]
    means = [summary["students"][name]["metrics"][metric]["mean"] for name in (best, reference)]
    new, old = (_value(metric, mean) for mean in means)
    lead = f"{_label(best)} reaches {new} {metric}, {_label(reference)} {old}"
    if sign_of(summary) * (means[0] - means[1]) < 0:
        lead = f"No student does better than {_label(reference)} ({old} {metric})"
        lead += f": the nearest, {_label(best)}, has {new}"
    if entry["mean"] is None:
        return f"{lead}; they have no {unit(summary)} in common, so nothing can be said of the difference."
    difference = f"a difference of {_points(metric, entry['mean'])}"
    if entry["low"] is None:
        return f"{lead}: {difference}, from one {unit(summary)}, so without an interval."
    span = f"{text.number(metric, entry['low'], True)} to {text.number(metric, entry['high'], True)}"
    paired = f"paired 95 % interval {span}, n = {entry['n']}"
    if entry["low"] <= 0 <= entry["high"]:
        verdict = f"{lead}: {difference} ({paired}), an interval that includes 0, so neither is shown to be better."
    else:
        verdict = f"{lead}: {difference} ({paired})."
    return verdict + _over_teacher(summary, best, metric)


def sign_of(summary: Mapping[str, Any]) -> int:
    """1 where more of the primary metric is better, else -1."""
    return 1 if summary["primary"]["direction"] == "max" else -1


def best_student(summary: Mapping[str, Any]) -> str | None:
    """The student with the best mean of the primary metric, the reference aside; None without another."""
    metric, sign = summary["primary"]["metric"], sign_of(summary)
    reference = reference_of(summary)
    means = {name: entry["metrics"][metric]["mean"] for name, entry in summary["students"].items()}
    if reference is None or means[reference] is None:
        return None
    others = {name: sign * mean for name, mean in means.items() if name != reference and mean is not None}
    return max(others, key=lambda name: others[name]) if others else None


def _over_teacher(summary: Mapping[str, Any], best: str, metric: str) -> str:
    entry = summary["paired"].get(best, {}).get(TEACHER, {}).get(metric, {"low": None})
    if entry["low"] is None:
        return ""
    sign = sign_of(summary)
    edges = sorted((sign * entry["low"], sign * entry["high"]))
    verb = "beats" if edges[0] > 0 else "stays behind" if edges[1] < 0 else "is not told apart from"
    return f" It {verb} its own teacher ({_points(metric, entry['mean'])} {text.interval(metric, entry)})."


def _differences(summary: Mapping[str, Any], metric: str) -> list[str]:
    reference = reference_of(summary)
    if reference is None:
        return []
    rows = []
    for name in entries(summary):
        entry = summary["paired"].get(name, {}).get(reference, {}).get(metric)
        if entry is not None and entry["mean"] is not None:
            figures = [
                text.number(metric, entry["mean"], True),
                text.interval(metric, entry),
                f"n = {entry['n']}",
            ]
            rows.append([f"  {text.visible(name)}", *figures])
    if not rows:
        return []
    return [
        "",
        f"{metric} minus that of {text.visible(reference)}, paired, with its 95 % interval:",
        _aligned(rows),
    ]


def differing(summary: Mapping[str, Any], kind: str) -> tuple[dict[str, dict[str, Any]], list[int]]:
    """What `variance` has of each network with pairs of that kind, in the order of `entries`; every k of neighbours."""
    found = {name: summary["variance"][name][kind] for name in entries(summary)}
    found = {name: entry for name, entry in found.items() if entry}
    return found, list(dict.fromkeys(some["k"] for entry in found.values() for some in entry["neighbours"] or ()))


def resampled_over(entry: Mapping[str, Any], kind: str) -> dict[str, str]:
    """Which bootstrap intervals an entry of `variance` has, and what they are over in a word."""
    words = {"over_inputs": "inputs", "over_runs": kind}
    return {over: word for over, word in words.items() if entry[over]["churn"]["low"] is not None}


def _differing(summary: Mapping[str, Any]) -> list[str]:
    """How far two runs differ: the parts of churn, and what the neighbours have in common; then with intervals."""
    kind = pairs_of(summary)
    found, ks = differing(summary, kind) if kind else ({}, [])
    if not kind or not found:
        return []
    nearest = [f"{k} nearest" for k in ks]
    rows = [["", *DIFFERING.values(), *nearest, "pairs"]]
    ends = [["", "over", *RESAMPLED.values(), *nearest]]
    for name, entry in found.items():
        shares = {some["k"]: some for some in entry["neighbours"] or ()}
        figures = [text.number(measure, entry[measure]["mean"]) for measure in DIFFERING]
        common = [text.number("jaccard", shares[k]["jaccard"]["mean"]) if k in shares else text.DASH for k in ks]
        rows.append([f"  {text.visible(name)}", *figures, *common, str(entry["pairs"])])
        for place, (over, what) in enumerate(resampled_over(entry, kind).items()):
            spans = [_span(measure, entry[over][measure]) for measure in RESAMPLED]
            common = [_span("jaccard", shares[k][over]) if k in shares else text.DASH for k in ks]
            ends.append(["" if place else f"  {text.visible(name)}", what, *spans, *common])
    which = "two seeds of a replicate" if kind == "seeds" else "two replicates (pool, labels and teacher, too)"
    lines = ["", f"how far {which} differ; JS in nats, normalised: 1 = independent errors:", _aligned(rows)]
    if ks:
        lines.append("  k nearest: overlap (Jaccard) of the training samples that both look up, in percent")
    if ends[1:]:
        lines += ["", f"95 % intervals of the same by bootstrap, over test inputs and over {kind}:", _aligned(ends)]
    return lines


def _span(measure: str, entry: Mapping[str, Any]) -> str:
    low, high = (text.number(measure, entry[end]) for end in ("low", "high"))
    return text.DASH if low == text.DASH else f"{low}..{high}"


def _legend(summary: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    labels = summary["labels"]
    shares = ", ".join(name for metric, name in columns.items() if metric in text.PERCENT)
    lines = [f"mean ± half of the 95 % interval over {unit(summary)}s; {shares} in percent"]
    if labels["train"] is not None:
        lines.append(f"labels used: {labels['train']} to train, {labels['choose']} more to choose settings")
    differing = {
        name: entry["labels"]
        for name, entry in entries(summary).items()
        if entry["labels"]["train"] is not None and entry["labels"] != labels
    }
    for name, own in differing.items():
        lines.append(f"  {text.visible(name)}: {own['train']} to train, {own['choose']} more to choose")
    expected = len(summary["config"]["seeds"]) * summary["config"]["replicates"]
    short = {
        name: len(entry["digests"]) for name, entry in summary["students"].items() if len(entry["digests"]) < expected
    }
    lines += [f"unfinished: {text.visible(name)}, {done} of {expected} runs" for name, done in short.items()]
    return "\n".join(lines)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[0] = row[0].ljust(widths[0])
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _label(name: str) -> str:
    return text.visible(name)


def _value(metric: str, value: float) -> str:
    return text.number(metric, value) + (" %" if metric in text.PERCENT else "")


def _points(metric: str, value: float) -> str:
    return text.number(metric, value, True) + (" points" if metric in text.PERCENT else "")
