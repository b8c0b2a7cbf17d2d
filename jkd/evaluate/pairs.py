"""How far runs of one recipe differ from each other, over every pair of them.

Runs are stacked along the first axis, in a fixed order. A measure of pairs is a symmetric matrix `[R, R]`, of which
only what lies off the diagonal is used: its mean over pairs, and one pseudo-value per run, which give that mean an
interval although pairs that share a run are not independent. By sample it is `[P, N]`, the pairs in the order of
`itertools.combinations`.

Expected churn. Runs a and b have accuracies A and B. If they erred independently of each other, and each wrong answer
fell on any of the other C - 1 classes alike, they would agree where both are right, A B, and where both are wrong in
the same way, (1 - A)(1 - B) / (C - 1), so that

    expected churn = 1 - A B - (1 - A)(1 - B) / (C - 1).

Normalised churn is churn over expected churn: 1 for runs that share nothing but their accuracies, less where they
find the same inputs hard. Both assumptions fail in practice: wrong answers gather on a few similar classes, which makes
the true churn of independent errors lower than this one (most so where accuracy is low; at high accuracy few inputs are
wrong twice), so that a value below 1 is in part due to that. It is undefined where no churn is expected: both always
right, or both always wrong with two classes.
"""

import math
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Integer

from jkd.evaluate.correctness import log_softmax

BLOCK = 2**20  # probabilities that the divergence holds at once


class Churn(NamedTuple):
    """Shares of samples on which two runs differ, each `[R, R]`; `good + bad + both_wrong = churn`.

    Attributes:
      churn: the two predict different classes. Fard et al. 2016, Launch and iterate.
      good: replacing the earlier run by the later one mends the answer.
      bad: replacing the earlier run by the later one spoils it.
      both_wrong: both are wrong, in different ways.
    """

    churn: np.ndarray
    good: np.ndarray
    bad: np.ndarray
    both_wrong: np.ndarray


def churn(answers: Integer[np.ndarray, "r n"], labels: Integer[np.ndarray, " n"]) -> Churn:
    """Churn of every pair of runs and its parts, from the classes they predict.

    Raises:
      ValueError: there is no sample, or the shapes differ.
    """
    return Churn(*(square(part.mean(axis=1), len(answers)) for part in churn_by_sample(answers, labels)))


def churn_by_sample(answers: Integer[np.ndarray, "r n"], labels: Integer[np.ndarray, " n"]) -> Churn:
    """`churn` before the mean over samples, each bool `[P, N]`."""
    answers, labels = np.asarray(answers), np.asarray(labels)
    if answers.ndim != 2 or answers.shape[1:] != labels.shape or not len(labels):
        raise ValueError(f"expected answers [R, N] and labels [N], N >= 1; got {answers.shape} and {labels.shape}")
    right = answers == labels
    parts = np.zeros((4, math.comb(len(answers), 2), len(labels)), bool)
    for pair, (a, b) in enumerate(combinations(range(len(answers)), 2)):
        differs = answers[a] != answers[b]
        parts[:, pair] = [differs, right[b] & ~right[a], right[a] & ~right[b], differs & ~right[a] & ~right[b]]
    return Churn(*parts)


def expected_churn(accuracy: Float[np.ndarray, " r"], classes: int) -> Float64[np.ndarray, "r r"]:
    """Churn of every pair if they erred independently and evenly over the wrong classes; see the top of this file."""
    right = np.asarray(accuracy, np.float64)
    if classes < 2:  # one class leaves nothing to differ in
        return np.zeros((len(right), len(right)))
    same = np.outer(right, right) + np.outer(1 - right, 1 - right) / (classes - 1)
    return np.clip(1 - same, 0.0, 1.0)


def expected_over_pairs(accuracy: Float[np.ndarray, "b r"], classes: int) -> Float64[np.ndarray, " b"]:
    """The mean of `expected_churn` over pairs, of B times R runs at once, R >= 2."""
    runs = accuracy.shape[1]
    if classes < 2:
        return np.zeros(len(accuracy))

    def product(shares: np.ndarray) -> np.ndarray:  # mean over pairs
        return (shares.sum(axis=1) ** 2 - (shares**2).sum(axis=1)) / (runs * (runs - 1))

    right = np.asarray(accuracy, np.float64)
    return np.clip(1 - product(right) - product(1 - right) / (classes - 1), 0.0, 1.0)


def jensen_shannon(logits: Float[np.ndarray, "r n c"]) -> Float64[np.ndarray, "r r"]:
    """Jensen-Shannon divergence of every pair's predicted distributions, mean over samples, in nats.

    H((p + q) / 2) - (H(p) + H(q)) / 2 with natural logarithms: symmetric, in [0, ln 2]. Lin 1991.
    """
    return square(jensen_shannon_by_sample(logits).mean(axis=1), len(logits))


def jensen_shannon_by_sample(logits: Float[np.ndarray, "r n c"]) -> Float64[np.ndarray, "p n"]:
    """`jensen_shannon` before the mean over samples."""
    runs, size, classes = logits.shape
    if not size:
        raise ValueError(f"expected logits [R, N, C], N >= 1; got {logits.shape}")
    found = np.zeros((math.comb(runs, 2), size))
    step = max(1, BLOCK // max(1, runs * classes))
    for start in range(0, size, step):
        shares = np.stack([np.exp(log_softmax(run[start : start + step])) for run in logits])
        own = _entropy(shares)
        for pair, (a, b) in enumerate(combinations(range(runs), 2)):
            apart = _entropy((shares[a] + shares[b]) / 2) - (own[a] + own[b]) / 2
            found[pair, start : start + step] = np.clip(apart, 0.0, np.log(2))  # rounding alone leaves the range
    return found


def jaccard(neighbours: Integer[np.ndarray, "r n k"]) -> Float64[np.ndarray, "r r"]:
    """Overlap of the neighbours that every pair of runs looks up, |A and B| / |A or B|, mean over samples, in [0, 1].

    Ids within a row are distinct, and mean the same thing in every run.
    """
    return square(jaccard_by_sample(neighbours).mean(axis=1), len(neighbours)) + np.eye(len(neighbours))


def jaccard_by_sample(neighbours: Integer[np.ndarray, "r n k"]) -> Float64[np.ndarray, "p n"]:
    """`jaccard` before the mean over samples."""
    runs, size, k = neighbours.shape
    if not size or not k:
        raise ValueError(f"expected neighbours [R, N, K], N >= 1 and K >= 1; got {neighbours.shape}")
    shares = np.zeros((math.comb(runs, 2), size))
    for pair, (a, b) in enumerate(combinations(range(runs), 2)):
        common = sum((neighbours[a] == neighbours[b][:, rank, None]).sum(axis=1) for rank in range(k))
        shares[pair] = common / (2 * k - common)
    return shares


def square(values: Float[np.ndarray, " p"], runs: int) -> Float64[np.ndarray, "r r"]:
    """One value a pair as a symmetric matrix, 0 on the diagonal."""
    matrix = np.zeros((runs, runs))
    matrix[np.triu_indices(runs, 1)] = values
    return matrix + matrix.T


def random_jaccard(nodes: int, k: int) -> float:
    """The mean `jaccard` of two sets of k nodes, each drawn at random from the same `nodes`; exact."""
    if not 1 <= k <= nodes:
        raise ValueError(f"expected 1 <= k <= nodes, got k = {k} and {nodes} nodes")
    ways = {common: math.comb(k, common) * math.comb(nodes - k, k - common) for common in range(1, k + 1)}
    return math.fsum(way / math.comb(nodes, k) * common / (2 * k - common) for common, way in ways.items())


def over_pairs(matrix: Float[np.ndarray, "r r"]) -> float | None:
    """The mean over pairs of runs; None for fewer than two runs."""
    pairs = matrix[np.triu_indices(len(matrix), 1)]
    return float(pairs.mean()) if len(pairs) else None


def over_resampled_pairs(
    matrix: Float[np.ndarray, "r r"], times: Float[np.ndarray, "b r"]
) -> Float64[np.ndarray, " b"]:
    """The mean over pairs in each of B resamples, in which every run is so many `times`.

    A pair counts as often as its two runs are drawn together. A run drawn twice is no pair with itself, which would
    count as two runs that agree. Every resample holds two different runs, as those of `resampled_runs` do.
    """
    outside = matrix * (1 - np.eye(len(matrix)))
    pairs = times.sum(axis=1) ** 2 - (times**2).sum(axis=1)
    return ((times @ outside) * times).sum(axis=1) / pairs


def pseudo_values(matrix: Float[np.ndarray, "r r"]) -> list[float]:
    """The mean over pairs as one value a run, so that it has an interval although pairs are not independent.

    The jackknife's pseudo-values R * mean(all) - (R - 1) * mean(all but this run): their mean is the mean over pairs,
    and their spread is that of a statistic of pairs. Two runs give one value, a lone run none.
    """
    runs, whole = len(matrix), over_pairs(matrix)
    if whole is None:
        return []
    if runs == 2:
        return [whole]
    sums = (matrix * (1 - np.eye(runs))).sum(axis=1)
    without = (sums.sum() / 2 - sums) / ((runs - 1) * (runs - 2) / 2)
    return (runs * whole - (runs - 1) * without).tolist()


def ratio_of(above: list[float], below: list[float]) -> list[float]:
    """Pseudo-values of a ratio of means from those of its two sides, to first order; their mean is the ratio.

    Empty where the mean below is 0.
    """
    if not below or not (mean := float(np.mean(below))) > 0:
        return []
    ratio = float(np.mean(above)) / mean
    return [ratio + (a - ratio * b) / mean for a, b in zip(above, below, strict=True)]


def _entropy(shares: np.ndarray) -> np.ndarray:
    logs = np.log(np.where(shares > 0, shares, 1.0))  # a share of 0 adds nothing
    return -(shares * logs).sum(axis=-1)
