"""Accuracy and negative log likelihood, and the checks that every metric shares."""

import numpy as np
from jaxtyping import Float, Int64, Integer


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


def confusion(logits: Float[np.ndarray, "n c"], labels: Integer[np.ndarray, " n"]) -> Int64[np.ndarray, "c c"]:
    """How many samples of each class (rows) are answered with each (columns)."""
    logits, labels = checked(logits, labels)
    classes = logits.shape[1]
    return np.bincount(labels * classes + logits.argmax(axis=1), minlength=classes**2).reshape(classes, classes)


def f1(logits: Float[np.ndarray, "n c"], labels: Integer[np.ndarray, " n"], average: str = "macro") -> float:
    """2 TP / (2 TP + FP + FN): the harmonic mean of precision and recall, in [0, 1].

    Args:
      logits, labels: of N samples.
      average: `macro`, the mean over classes that are a label or an answer of some sample; or `binary`, of class 1.
    """
    table = confusion(logits, labels)
    if average == "binary" and len(table) != 2:
        raise ValueError(f"a binary F1 is of 2 classes, not of {len(table)}")
    hits, there = np.diag(table), table.sum(0) + table.sum(1)
    each = 2 * hits / np.maximum(there, 1)
    return float(each[1] if average == "binary" else each[there > 0].mean())


def matthews(logits: Float[np.ndarray, "n c"], labels: Integer[np.ndarray, " n"]) -> float:
    """Matthews' correlation of answers and labels, in [-1, 1], for any number of classes; 0 where one is constant.

    Reference: Gorodkin 2004, Comparing two K-category assignments by a K-category correlation coefficient.
    """
    table = confusion(logits, labels).astype(np.float64)
    n, true, said = table.sum(), table.sum(1), table.sum(0)
    spread = np.sqrt((n**2 - true @ true) * (n**2 - said @ said))
    return float((np.trace(table) * n - true @ said) / spread) if spread else 0.0


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
