"""Accuracy and its paired differences with intervals over test inputs: by bootstrap, the runs as they are.

They answer another question than the intervals over seeds or replicates, which keep the test inputs as they are: what
another test split of the same size would have changed.
"""

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float64

from jkd import evaluate
from jkd.report.collect import Key, Part, Results
from jkd.tasks import Task

Right = dict[int, np.ndarray]  # unit -> share of its runs that are right, by test input


def points(results: Results, teacher: str, labels: np.ndarray, task: Task) -> dict[str, Any]:
    """Means as in `metrics` and `paired`, with percentile intervals over resampled test inputs.

    Returns:
      `resamples`; `n`, the number of test inputs; `accuracy`, by name; `paired`, by name and name. An interval is
      `mean`, `low`, `high`, each None where there is nothing.
    """
    over_seeds = results.unit == "seed"
    if task.answers is None:
        names = [teacher, *results.students]
        paired = {one: {other: _entry(None) for other in names if other != one} for one in names}
        return {"resamples": 0, "n": len(labels), "accuracy": {name: _entry(None) for name in names}, "paired": paired}

    def score(parts: list[Part]) -> np.ndarray:
        assert task.answers is not None
        return np.mean([task.answers(part.predictions()) == labels for part in parts], axis=0)

    right = {name: _right(parts, 1 if over_seeds else 0, score) for name, parts in results.students.items()}
    teachers = {replicate: score([part]) for replicate, part in results.teachers.items()}
    beside = dict.fromkeys(results.seeds, teachers[0]) if over_seeds and 0 in teachers else teachers
    right = {teacher: beside} | right
    columns = {(name, ""): _mean(by, list(by)) for name, by in right.items()}
    for a, b in combinations(right, 2):
        common = [unit for unit in right[a] if unit in right[b]]
        columns[a, b] = _mean(right[a], common) - _mean(right[b], common)
    there = {names: column for names, column in columns.items() if np.isfinite(column).all()}
    spans = evaluate.bootstrap(np.column_stack(list(there.values()))) if there else []
    found = dict(zip(there, spans, strict=True))
    paired = {name: {} for name in right}
    for a, b in combinations(right, 2):
        span = found.get((a, b))
        paired[a][b] = _entry(span)
        paired[b][a] = _entry(span and evaluate.Span(-span.mean, -span.high, -span.low))
    return {
        "resamples": evaluate.RESAMPLES,
        "n": len(labels),
        "accuracy": {name: _entry(found.get((name, ""))) for name in right},
        "paired": paired,
    }


def _right(parts: Mapping[Key, Part], place: int, score: Callable[[list[Part]], np.ndarray]) -> Right:
    units: dict[int, list[Part]] = {}
    for key, part in sorted(parts.items()):
        units.setdefault(key[place], []).append(part)
    return {unit: score(some) for unit, some in units.items()}


def _mean(right: Right, units: list[int]) -> Float64[np.ndarray, " n"]:
    """Mean over units; NaN where there is none."""
    return np.mean([right[unit] for unit in units], axis=0) if units else np.full(1, np.nan)


def _entry(span: evaluate.Span | None) -> dict[str, float | None]:
    return dict.fromkeys(evaluate.Span._fields) if span is None else span._asdict()
