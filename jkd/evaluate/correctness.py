"""Accuracy and negative log likelihood, and the checks that every metric shares."""

import numpy as np
from jaxtyping import Float, Integer


def log_softmax(logits: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
    """Log probabilities, float64."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def accuracy(logits: Float[np.ndarray, "n c"], labels: Integer[np.ndarray, " n"]) -> float:
    """Share of samples whose largest logit is the label's, in [0, 1]; the first of equal logits counts."""
    logits, labels = checked(logits, labels)
    return float((logits.argmax(axis=1) == labels).mean())


def nll(logits: Float[np.ndarray, "n c"], labels: Integer[np.ndarray, " n"]) -> float:
    """Mean negative log probability of the label, in nats."""
    logits, labels = checked(logits, labels)
    return float(-log_softmax(logits)[np.arange(len(labels)), labels].mean())


def checked(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays, logits in float64.

    Raises:
      ValueError: when there is no sample, or shapes, labels or logits are not what a metric is defined for.
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ValueError(f"expected logits [N, C] and labels [N], N >= 1; got {logits.shape} and {labels.shape}")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"labels {labels.min()} to {labels.max()} do not fit {logits.shape[1]} classes")
    if np.isnan(logits).any():
        raise ValueError(f"{int(np.isnan(logits).any(axis=1).sum())} of {len(logits)} rows of logits hold NaN")
    return logits, labels
