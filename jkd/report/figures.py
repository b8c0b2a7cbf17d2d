"""The report's figures: learning curves, accuracy over bytes, paired differences, the graph's diagnosis."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from jkd.report import text
from jkd.report.collect import Part, Results
from jkd.report.plots import WIDTH, Theme, canvas, drawable
from jkd.report.summary import TEACHER, reference_of
from jkd.report.tables import entries, sign_of

Curve = Mapping[int, Sequence[float]]  # step -> one value a run


def curves(results: Results, summary: Mapping[str, Any], theme: Theme) -> Figure | None:
    """Training loss, and the primary metric on validation where measured, over steps: median and range of the runs."""
    networks = {TEACHER: list(results.teachers.values())}
    students = [name for name in entries(summary) if name in results.students]
    networks |= {name: list(results.students[name].values()) for name in students}
    wanted = ("loss", f"val_{summary['primary']['metric']}")
    keys = [key for key in wanted if any(_gather(parts, key) for parts in networks.values())]
    if not keys:
        return None
    figure, axes = canvas(WIDTH, 0.7 + 2.2 * len(keys), len(keys))
    for axis, key in zip(axes, keys, strict=True):
        for index, (name, parts) in enumerate(networks.items()):
            curve = _gather(parts, key)
            if not curve:
                continue
            steps = sorted(curve)
            middle, low, high = ([f(curve[step]) for step in steps] for f in (np.median, np.min, np.max))
            colour = theme.ink if name == TEACHER else theme.cycle[(index - 1) % len(theme.cycle)]
            style = "--" if name == TEACHER else "-"
            axis.plot(steps, middle, style, color=colour, linewidth=1.4, label=drawable(name, index))
            axis.fill_between(steps, low, high, color=colour, alpha=0.10, linewidth=0)
        axis.set_xlabel("step")
        axis.set_title(key.replace("_", " ").replace("val ", "validation "), loc="left", fontsize=8.5)
        if key == "loss" and axis.dataLim.y0 > 0:
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.yaxis.set_minor_formatter(NullFormatter())
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=7.5)
    return figure


def over_bytes(summary: Mapping[str, Any], theme: Theme) -> Figure | None:
    """The primary metric over bytes on disk, with intervals; names beside their points."""
    metric = summary["primary"]["metric"]
    points: list[tuple[str, int, float, dict[str, Any]]] = []
    for index, (name, entry) in enumerate(entries(summary).items()):
        size, value = summary["receipt"].get(name, {}).get("bytes"), entry["metrics"][metric]
        if size and value["mean"] is not None:
            points.append((name, index, float(size), value))
    if not points:
        return None
    scale = 100 if metric in text.PERCENT else 1
    figure, (axis,) = canvas(WIDTH, 3.0)
    for name, index, size, value in points:
        mean = value["mean"] * scale
        bar = None if value["low"] is None else [[mean - value["low"] * scale], [value["high"] * scale - mean]]
        colour = theme.ink if name == TEACHER else theme.cycle[(index - 1) % len(theme.cycle)]
        axis.errorbar([size], [mean], yerr=bar, fmt="o", markersize=4, color=colour, linewidth=1, capsize=2)
    axis.set_xscale("log")
    sizes = [point[2] for point in points]
    axis.set_xlim(min(sizes) / 1.6, max(sizes) * 3.2)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.size(value).replace(".0 ", " ")))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("bytes on disk")
    axis.set_ylabel(metric + (" (%)" if scale == 100 else ""))
    _name_points(axis, [(drawable(n, i), size, value["mean"] * scale) for n, i, size, value in points])
    return figure


def differences(summary: Mapping[str, Any], theme: Theme) -> Figure | None:
    """Everyone's primary metric minus the reference student's, with paired intervals."""
    metric, reference = summary["primary"]["metric"], reference_of(summary)
    if reference is None:
        return None
    rows = []
    for index, name in enumerate(entries(summary)):
        entry = summary["paired"].get(name, {}).get(reference, {}).get(metric)
        if entry and entry["mean"] is not None:
            rows.append((drawable(name, index), entry))
    if not rows:
        return None
    scale = 100 if metric in text.PERCENT else 1
    sign = sign_of(summary)
    figure, (axis,) = canvas(WIDTH, 0.7 + 0.28 * len(rows))
    axis.axvline(0, color=theme.ink, linewidth=0.9)
    for place, (_, entry) in enumerate(rows):
        span = [] if entry["low"] is None else [entry["low"] * scale, entry["high"] * scale]
        better = bool(span) and min(sign * end for end in span) > 0
        colour = theme.cycle[0] if better else theme.ink
        if span:
            axis.plot(span, [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
        axis.plot([entry["mean"] * scale], [place], "o", color=colour, markersize=5)
    axis.set_yticks(range(len(rows)), [name for name, _ in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)
    index = list(entries(summary)).index(reference)
    points = " (percentage points)" if scale == 100 else ""
    axis.set_xlabel(f"{metric} minus that of {drawable(reference, index)}{points}")
    return figure


def diagnosis(summary: Mapping[str, Any], theme: Theme) -> Figure | None:
    """Every candidate's NLL after one fitted temperature, view by view; the line is no edges."""
    found = summary["graph"]["diagnosis"]
    if not found or len(found["rows"]) < 2:
        return None
    views = list(dict.fromkeys(row["view"] for row in found["rows"] if row["view"] != "none"))
    strengths = sorted({row["strength"] for row in found["rows"] if row["view"] != "none"})
    figure, (axis,) = canvas(WIDTH, 0.8 + 0.32 * len(views))
    axis.axvline(found["no_edges"]["nll_fitted"], color=theme.ink, linewidth=1, linestyle="--")
    for row in found["rows"][1:]:
        place = views.index(row["view"])
        shade = 0.3 + 0.7 * (strengths.index(row["strength"]) + 1) / len(strengths)
        better = row["nll_fitted"] < found["no_edges"]["nll_fitted"]
        colour = theme.cycle[0] if better else theme.cycle[1]
        axis.plot([row["nll_fitted"]], [place], "o", color=colour, alpha=shade, markersize=5, markeredgewidth=0)
    best = found["best"]
    place = views.index(best["view"])
    axis.plot([best["nll_fitted"]], [place], "o", markersize=10, markerfacecolor="none", markeredgecolor=theme.ink)
    axis.set_yticks(range(len(views)), [drawable(view, index) for index, view in enumerate(views)])
    axis.set_ylim(len(views) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel("NLL on held-back labels; left is better")
    return figure


def _gather(parts: Sequence[Part], key: str) -> dict[int, list[float]]:
    """A quantity's values by step, of those steps that every run logged."""
    gathered: dict[int, list[float]] = {}
    for part in parts:
        for line in part.curve():
            value = line.get(key)
            if value is not None and np.isfinite(value):
                gathered.setdefault(int(line["step"]), []).append(float(value))
    return {step: values for step, values in gathered.items() if len(values) == len(parts)}


def _name_points(axis: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Writes names to the right of the points, moved apart where they would lie on each other."""
    low, high = axis.get_ylim()
    gap = (high - low) * 0.075
    below = -np.inf
    for name, size, value in sorted(points, key=lambda point: point[2]):
        place = max(value, below + gap)
        below = place
        arrow = {"arrowstyle": "-", "linewidth": 0.5, "alpha": 0.5, "shrinkA": 0, "shrinkB": 4}
        axis.annotate(
            name,
            (size, value),
            xytext=(size * 1.12, place),
            va="center",
            fontsize=7.5,
            arrowprops=arrow if abs(place - value) > gap / 4 else None,
        )
