"""Student-t intervals of a mean, and of the mean of paired differences, over a handful of runs.

"Student" (Gosset) 1908, The probable error of a mean.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Values = Sequence[int | float] | np.ndarray


class Interval(NamedTuple):
    """Mean, sample standard deviation, count and both ends of an interval; `None` where not defined."""

    mean: float | None
    sd: float | None
    n: int
    low: float | None
    high: float | None


def interval(values: Values, confidence: float = 0.95) -> Interval:
    """The mean of `values` and its two-sided Student-t interval.

    With one value there is a mean alone; with none, nothing. Sums are exact (`math.fsum`), so the order
    of the values does not matter.
    """
    numbers = [float(value) for value in values]
    n = len(numbers)
    if n == 0:
        return Interval(None, None, 0, None, None)
    mean = math.fsum(numbers) / n
    if n == 1:
        return Interval(mean, None, 1, None, None)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in numbers) / (n - 1))
    half = student_t_quantile((1 + confidence) / 2, n - 1) * sd / math.sqrt(n)
    return Interval(mean, sd, n, mean - half, mean + half)


def paired(a: Values, b: Values, confidence: float = 0.95) -> Interval:
    """The mean of a - b over pairs, and its interval. Runs of one seed or replicate stand at one index."""
    return interval([x - y for x, y in zip(a, b, strict=True)], confidence)


def student_t_quantile(probability: float, freedom: int | float) -> float:
    """The t below which a share `probability` of Student's distribution lies, `freedom` degrees of freedom.

    Inverts P(T > t) = I_x(freedom / 2, 1 / 2) / 2, x = freedom / (freedom + t^2), by bisection on log t.
    """
    if not 0 < probability < 1 or freedom <= 0:
        raise ValueError(f"expected 0 < probability < 1 and freedom > 0, got {probability} and {freedom}")
    if probability < 0.5:
        return -student_t_quantile(1 - probability, freedom)
    if probability == 0.5:
        return 0.0
    low, high = math.log(1e-12), math.log(1e12)
    for _ in range(100):
        middle = (low + high) / 2
        square = math.exp(2 * middle)
        # both x and 1 - x are formed without cancellation
        tail = _beta_share(freedom / 2, 0.5, freedom / (freedom + square), square / (freedom + square)) / 2
        low, high = (middle, high) if tail > 1 - probability else (low, middle)
    return math.exp((low + high) / 2)


def _beta_share(a: int | float, b: int | float, x: float, y: float) -> float:
    """The regularised incomplete beta function I_x(a, b), y = 1 - x, by the tail that converges fast."""
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta_share(b, a, y, x)
    if x <= 0:
        return 0.0
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(y)
    return math.exp(front) / (a * _fraction(a, b, x))


def _fraction(a: int | float, b: int | float, x: float) -> float:
    """The continued fraction 1 + d1 / (1 + d2 / (1 + ...)) of I_x(a, b) (DLMF 8.17.22), by Lentz's method."""
    tiny = 1e-300
    value = numerator = 1.0
    denominator = 0.0
    for step in range(1, 10_000):
        m = step // 2
        if step % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        denominator = 1 / ((1 + d * denominator) or tiny)
        numerator = (1 + d / numerator) or tiny
        value *= numerator * denominator
        if abs(numerator * denominator - 1) < 1e-15:
            break
    return value
