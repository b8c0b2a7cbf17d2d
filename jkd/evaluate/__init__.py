"""How good, how well calibrated, how faithful and how repeatable: from stored logits, in float64 NumPy.

Logits are `[N, C]`, labels and predictions integers `[N]`. A metric of no samples is refused, never NaN.
"""

from jkd.evaluate.bootstrap import RESAMPLES, Span, bootstrap, resampled_means
from jkd.evaluate.calibration import brier, ece, fit_temperature
from jkd.evaluate.correctness import accuracy, log_softmax, nll
from jkd.evaluate.fidelity import agreement, churn, kl
from jkd.evaluate.intervals import Interval, interval, paired, student_t_quantile

__all__ = [
    "RESAMPLES",
    "Interval",
    "Span",
    "accuracy",
    "agreement",
    "bootstrap",
    "brier",
    "churn",
    "ece",
    "fit_temperature",
    "interval",
    "kl",
    "log_softmax",
    "nll",
    "paired",
    "resampled_means",
    "student_t_quantile",
]
