"""Intervals over test samples: what another test set of the same size would have changed, the runs as they are.

Efron 1979, Bootstrap methods: another look at the jackknife.
"""

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
        count = min(rows, resamples - start)
        drawn = random.bits("bootstrap", size, block, size=count * size) % np.uint64(size)
        cell = drawn.astype(np.int64).reshape(count, size) + np.arange(count)[:, None] * size
        times = np.bincount(cell.ravel(), minlength=count * size).reshape(count, size)
        means[start : start + count] = times @ scores / size
    return means


def bootstrap(scores: Float[np.ndarray, "n m"], confidence: float = 0.95, resamples: int = RESAMPLES) -> list[Span]:
    """The mean of every column and its percentile interval over resampled samples."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled_means(scores, resamples), [tail, 1 - tail], axis=0)
    return [Span(*map(float, column)) for column in zip(np.mean(scores, axis=0), low, high, strict=True)]
