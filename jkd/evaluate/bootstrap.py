"""Intervals over test samples: what another test set of the same size would have changed, the runs as they are.
And over runs: what as many other seeds would have changed, the test samples as they are.

Efron 1979, Bootstrap methods: another look at the jackknife.
"""

from itertools import count
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from jkd import random

RESAMPLES = 10_000
BLOCK = 2**19  # draws made at once


class Span(NamedTuple):
    """A mean and both ends of its interval."""

    mean: float
    low: float
    high: float


def resampled_means(scores: Float[np.ndarray, "n m"], resamples: int = RESAMPLES) -> Float64[np.ndarray, "b m"]:
    """Means of every column over samples drawn with replacement, `resamples` times n of them.

    All columns see the same draws, so the means of a difference are the difference of the means. The draws are a
    function of n alone. Holds a block of about 2**19 draws at a time.

    Args:
      scores: one score per sample and quantity, such as whether an answer is right.
      resamples: how often a test set is drawn.
    """
    size = len(scores)
    if not size:
        raise ValueError(f"expected scores [N, M], N >= 1; got {scores.shape}")
    scores = np.asarray(scores, np.float64)
    rows = max(1, BLOCK // size)
    means = np.empty((resamples, scores.shape[1]))
    for block, start in enumerate(range(0, resamples, rows)):
        sets = min(rows, resamples - start)
        drawn = random.bits("bootstrap", size, block, size=sets * size) % np.uint64(size)
        cell = drawn.astype(np.int64).reshape(sets, size) + np.arange(sets)[:, None] * size
        times = np.bincount(cell.ravel(), minlength=sets * size).reshape(sets, size)
        means[start : start + sets] = times @ scores / size
    return means


def resampled_runs(runs: int, group: int = 0, resamples: int = RESAMPLES) -> Float64[np.ndarray, "b r"]:
    """How often each run is among as many drawn with replacement, `resamples` times.

    For what is measured over pairs of different runs, so a draw of one run alone is drawn again: 1 of 9 with three
    runs, 1 of 625 with five. The draws are a function of `runs` and `group` alone.

    Args:
      runs: how many there are, two at least.
      group: of runs that are drawn apart from others, by number.
      resamples: how often runs are drawn.
    """
    if runs < 2:
        raise ValueError(f"expected two runs or more to make pairs of; got {runs}")
    found = np.empty((0, runs))
    for again in count():
        drawn = (random.bits("runs", runs, group, again, size=resamples * runs) % np.uint64(runs)).astype(np.int64)
        cell = drawn.reshape(resamples, runs) + np.arange(resamples)[:, None] * runs
        times = np.bincount(cell.ravel(), minlength=resamples * runs).reshape(resamples, runs).astype(np.float64)
        found = np.concatenate([found, times[times.max(axis=1) < runs]])
        if len(found) >= resamples:
            break
    return found[:resamples]


def bootstrap(scores: Float[np.ndarray, "n m"], confidence: float = 0.95, resamples: int = RESAMPLES) -> list[Span]:
    """The mean of every column and its percentile interval over resampled samples."""
    means = resampled_means(scores, resamples)
    return [percentiles(*pair, confidence) for pair in zip(np.mean(scores, axis=0), means.T, strict=True)]


def percentiles(value: float, resampled: Float[np.ndarray, " b"], confidence: float = 0.95) -> Span:
    """A figure with the percentile interval of what it is in resamples."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Span(float(value), float(low), float(high))
