"""How good, how well calibrated, how faithful and how repeatable: from stored logits, in float64 NumPy.

Logits are `[N, C]`, labels and predictions integers `[N]`. A metric of no samples is refused, never NaN.
"""

from jkd.evaluate.bootstrap import RESAMPLES, Span, bootstrap, resampled_means
from jkd.evaluate.calibration import brier, ece, fit_temperature
from jkd.evaluate.correctness import accuracy, log_softmax, nll
from jkd.evaluate.fidelity import agreement, kl
from jkd.evaluate.intervals import Interval, interval, paired, student_t_quantile
from jkd.evaluate.pairs import (
    Churn,
    churn,
    expected_churn,
    jaccard,
    jensen_shannon,
    over_pairs,
    pseudo_values,
    random_jaccard,
    ratio_of,
)

__all__ = [
    "RESAMPLES",
    "Churn",
    "Interval",
    "Span",
    "accuracy",
    "agreement",
    "bootstrap",
    "brier",
    "churn",
    "ece",
    "expected_churn",
    "fit_temperature",
    "interval",
    "jaccard",
    "jensen_shannon",
    "kl",
    "log_softmax",
    "nll",
    "over_pairs",
    "paired",
    "pseudo_values",
    "random_jaccard",
    "ratio_of",
    "resampled_means",
    "student_t_quantile",
]
