"""Whether confidence means what it says."""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Integer

from jkd.evaluate.correctness import checked, log_softmax

LOWEST, HIGHEST = 1e-3, 1e3  # temperatures looked at


def ece(logits: Float[np.ndarray, "n c"], labels: Integer[np.ndarray, " n"], bins: int = 15) -> float:
    """Expected calibration error, in [0, 1]: mean gap of confidence and accuracy over bins of confidence.

    `bins` of equal width, closed on the right: (0, 1/bins], ... Naeini et al. 2015; Guo et al. 2017,
    arXiv:1706.04599.
    """
    logits, labels = checked(logits, labels)
    confidence = np.exp(log_softmax(logits).max(axis=1))
    right = logits.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    where = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    gaps = np.bincount(where, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def brier(logits: Float[np.ndarray, "n c"], labels: Integer[np.ndarray, " n"]) -> float:
    """Mean squared distance between probabilities and the one-hot label, in [0, 2]. Brier 1950."""
    logits, labels = checked(logits, labels)
    gap = np.exp(log_softmax(logits))
    gap[np.arange(len(labels)), labels] -= 1
    return float((gap**2).sum(axis=1).mean())


def fit_temperature(logits: Float[np.ndarray, "n c"], labels: Integer[np.ndarray, " n"]) -> tuple[float, float]:
    """The temperature T that minimises the NLL of softmax(logits / T), and that NLL.

    Log probabilities serve as logits too; a class at -inf stays at probability 0. The NLL is convex in 1/T,
    so the sign of its slope is bisected, on log T from 1e-3 to 1e3; a fit outside is given as the nearer
    end, as when every sample is right (T -> 0) or the logits say nothing (T -> infinity).
    """
    logits, labels = checked(logits, labels)
    with np.errstate(invalid="ignore"):
        logits = logits - logits.max(axis=1, keepdims=True)
    label = logits[np.arange(len(labels)), labels]
    finite = np.where(np.isneginf(logits), 0.0, logits)  # times probability 0, so any finite number does

    def slope(log_temperature: float) -> float:
        probabilities = np.exp(log_softmax(logits / math.exp(log_temperature)))
        return float(((probabilities * finite).sum(axis=1) - label).mean())  # d NLL / d (1/T)

    temperature = math.exp(_root(slope, math.log(LOWEST), math.log(HIGHEST)))
    scaled = log_softmax(logits / temperature)
    return temperature, float(-scaled[np.arange(len(labels)), labels].mean())


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function crosses zero in [low, high], or the end where it comes nearest."""
    if falling(low) <= 0:
        return low
    if falling(high) >= 0:
        return high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2
