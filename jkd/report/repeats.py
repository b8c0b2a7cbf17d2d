"""How far runs of one network differ, and what test inputs have to do with it: the page's section and its figure."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from jkd.report import markup, text
from jkd.report.plots import WIDTH, Plot, Theme, canvas, drawable
from jkd.report.resampled import RESAMPLES
from jkd.report.summary import pairs_of, reference_of
from jkd.report.tables import DIFFERING, RESAMPLED, differing, entries, resampled_over, unit

PAIRS = {
    "seeds": "pairs of seeds of one replicate",
    "replicates": "pairs of replicates, which differ in their pool, labels and teacher too",
    None: "pairs of runs, of which there are none here",
}
SPREAD = ("churn", "normalised_churn")  # shown with their intervals; summary.json has all of them
PARTS = {"good_churn": "good", "bad_churn": "bad", "both_wrong_churn": "both wrong"}


def title(summary: Mapping[str, Any]) -> str:
    """The section's heading."""
    return "How far replicates differ" if pairs_of(summary) == "replicates" else "How far seeds differ"


def section(summary: Mapping[str, Any], plot: Plot | None) -> str:
    """Churn and its parts over pairs of runs, and both kinds of intervals side by side."""
    kinds = [kind for kind in ("seeds", "replicates") if any(by[kind] for by in summary["variance"].values())]
    caption = (
        "Churn, split by what becomes of an answer when one run takes the place of another. The line is the churn of "
        "runs with the same accuracies that err independently, their wrong answers spread evenly over the classes."
    )
    tables = "".join(_pairs(summary, kind, kind == kinds[0]) + _resampled(summary, kind) for kind in kinds)
    return (
        (tables or "<p>There are no two runs to compare yet.</p>") + markup.figure(plot, caption) + _intervals(summary)
    )


def draw(summary: Mapping[str, Any], theme: Theme) -> Figure | None:
    """Churn in its parts as bars, and what independent errors would give as a line across."""
    kind = pairs_of(summary)
    rows = [(name, summary["variance"][name][kind]) for name in entries(summary)] if kind else []
    shown = [(drawable(name, index), entry) for index, (name, entry) in enumerate(rows) if entry]
    if not shown:
        return None
    figure, (axis,) = canvas(WIDTH, 1.0 + 0.28 * len(shown))
    for place, (_, entry) in enumerate(shown):
        start = 0.0
        known = PARTS if entry["good_churn"]["mean"] is not None else {"churn": "churn"}
        for index, (part, what) in enumerate(known.items()):
            width = 100 * entry[part]["mean"]
            colour = (theme.cycle[0], theme.cycle[1], theme.faint)[index]
            axis.barh(place, width, left=start, height=0.6, color=colour, label=None if place else what)
            start += width
        if entry["expected_churn"]["mean"] is None:
            continue
        expected = 100 * entry["expected_churn"]["mean"]
        label = None if place else "if errors were independent"
        axis.plot([expected] * 2, [place - 0.4, place + 0.4], color=theme.ink, linewidth=1.4, label=label)
    axis.set_yticks(range(len(shown)), [name for name, _ in shown])
    axis.set_ylim(len(shown) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel(f"test inputs on which two {kind} differ (%)")
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=7.5)
    return figure


def _pairs(summary: Mapping[str, Any], kind: str, explained: bool) -> str:
    found, ks = differing(summary, kind)
    rows = []
    for name, entry in found.items():
        shares = {some["k"]: some for some in entry["neighbours"] or ()}
        cells = [_figure(measure, entry[measure]) for measure in DIFFERING]
        rows.append([text.escape(name), *cells, *(_shared(shares.get(k)) for k in ks), f"{entry['pairs']:,}"])
    caption = f"Mean over {PAIRS[kind]}; ± half of its 95 % interval over {unit(summary)}s (Student-t)."
    if explained:
        caption += _explained(bool(ks))
    head = ["", *DIFFERING.values(), *(f"{k} nearest" for k in ks), "pairs"]
    return markup.table(head, rows, caption)


def _resampled(summary: Mapping[str, Any], kind: str) -> str:
    """Bootstrap intervals over test inputs and, a row below, over the runs that are compared."""
    found, ks = differing(summary, kind)
    rows = []
    for name, entry in found.items():
        for over, what in resampled_over(entry, kind).items():
            shares = {some["k"]: some[over] for some in entry["neighbours"] or ()}
            cells = [_span(measure, entry[over][measure]) for measure in RESAMPLED]
            nearest = [_span("jaccard", shares[k]) if k in shares else text.DASH for k in ks]
            rows.append([text.escape(name), what, *cells, *nearest])
    if not rows:
        return ""
    drawn = "the seeds of each replicate" if kind == "seeds" else "the replicates"
    caption = (
        f"95 % intervals of the same means by bootstrap: percentiles of {RESAMPLES:,} resamples. Inputs: other test "
        f"inputs, the runs as they are. {kind.capitalize()}: {drawn} drawn with replacement, the test inputs as they "
        "are; one that is drawn twice is not compared with itself, and a draw of one alone is drawn again. Two have no "
        f"such interval, that of three is coarse, and with fewer than twenty {kind} it is too narrow"
    )
    caption += ": the one above, ±, is the better." if kind == f"{unit(summary)}s" else "."
    head = ["", "over", *RESAMPLED.values(), *(f"{k} nearest" for k in ks)]
    return markup.table(head, rows, caption)


def _figure(measure: str, entry: Mapping[str, Any]) -> str:
    shown = text.spread(measure, entry) if measure in SPREAD else text.number(measure, entry["mean"])
    return _nowrap(shown)


def _explained(neighbours: bool) -> str:
    caption = (
        " Churn is the share of test inputs on which the two predict different classes, in percent: good where the run "
        "with the higher number is right and the other wrong, bad where it is the other way round, and both wrong. "
        "Normalised: churn over that of runs with the same accuracies that err independently. JS: Jensen-Shannon "
        "divergence of the predicted distributions, in nats, at most 0.693."
    )
    if neighbours:
        caption += (
            " Nearest: what the training samples that both look up nearest to a test input in the projected space "
            "have in common, Jaccard index in percent; in brackets that of as many drawn at random."
        )
    return caption


def _shared(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return text.DASH
    return _nowrap(f"{text.number('jaccard', entry['jaccard']['mean'])} ({text.number('jaccard', entry['random'])})")


def _intervals(summary: Mapping[str, Any]) -> str:
    """Accuracy and its differences to the reference, with intervals over units and over test inputs."""
    points, reference = summary["points"], reference_of(summary)
    if not points["resamples"]:  # a metric that is no mean over test inputs
        return ""
    rows = []
    for name, entry in entries(summary).items():
        over_units, over_points = entry["metrics"]["accuracy"], points["accuracy"][name]
        cells = [text.number("accuracy", over_units["mean"]), _ends(over_units), _ends(over_points)]
        paired = [text.DASH] * 3
        if reference is not None and name != reference:
            difference = summary["paired"][name][reference]["accuracy"]
            ends = [_ends(difference, True), _ends(points["paired"][name][reference], True)]
            paired = [text.number("accuracy", difference["mean"], True), *ends]
        rows.append([text.escape(name), *cells, *paired])
    over = f"{unit(summary)}s"
    head = ["", "accuracy", over, "inputs", f"minus {reference or 'nobody'}", f"{over}, paired", "inputs, paired"]
    caption = (
        f"95 % intervals of two kinds, neither of which includes the other. Over {unit(summary)}s: Student-t, the test "
        f"inputs as they are. Over inputs: percentiles of {points['resamples']:,} resamples of the {points['n']:,} "
        "test inputs, the runs as they are. Differences are paired by run and by input."
    )
    return markup.table(head, rows, caption)


def _ends(entry: Mapping[str, Any], signed: bool = False) -> str:
    if entry["low"] is None or entry["high"] is None:
        return text.DASH
    low, high = (text.number("accuracy", entry[end], signed) for end in ("low", "high"))
    return _nowrap(f"[{low}, {high}]")


def _span(measure: str, entry: Mapping[str, Any]) -> str:
    """An interval that may be broken between its ends: there are many columns of them."""
    if entry["low"] is None or entry["high"] is None:
        return text.DASH
    low, high = (text.number(measure, entry[end]) for end in ("low", "high"))
    return f"{_nowrap(f'[{low},')} {_nowrap(f'{high}]')}"


def _nowrap(cell: str) -> str:
    return f'<span class="nowrap">{cell}</span>'
