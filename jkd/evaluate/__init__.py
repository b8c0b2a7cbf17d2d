"""How good, how well calibrated, how faithful, how repeatable and how fast: from stored outputs, in float64 NumPy.

Logits are `[N, C]`, labels and predictions integers `[N]`; of detectors, `nms` makes detections inside jit, and
`detection` scores them. A metric of no samples is refused, never NaN.
"""

from jkd.evaluate.bootstrap import RESAMPLES, Span, bootstrap, percentiles, resampled_means, resampled_runs
from jkd.evaluate.calibration import brier, ece, fit_temperature
from jkd.evaluate.correctness import accuracy, confusion, f1, log_softmax, matthews, nll
from jkd.evaluate.detection import agreement_of_boxes, coco, voc_ap50, voc_map50
from jkd.evaluate.fidelity import agreement, kl
from jkd.evaluate.intervals import Interval, interval, paired, student_t_quantile
from jkd.evaluate.pairs import (
    Churn,
    churn,
    churn_by_sample,
    expected_churn,
    expected_over_pairs,
    jaccard,
    jaccard_by_sample,
    jensen_shannon,
    jensen_shannon_by_sample,
    over_pairs,
    over_resampled_pairs,
    pseudo_values,
    random_jaccard,
    ratio_of,
    square,
)
from jkd.evaluate.speed import ms_per_image

__all__ = [
    "RESAMPLES",
    "Churn",
    "Interval",
    "Span",
    "accuracy",
    "agreement",
    "agreement_of_boxes",
    "bootstrap",
    "brier",
    "churn",
    "churn_by_sample",
    "coco",
    "confusion",
    "ece",
    "expected_churn",
    "expected_over_pairs",
    "f1",
    "fit_temperature",
    "interval",
    "jaccard",
    "jaccard_by_sample",
    "jensen_shannon",
    "jensen_shannon_by_sample",
    "kl",
    "log_softmax",
    "matthews",
    "ms_per_image",
    "nll",
    "over_pairs",
    "over_resampled_pairs",
    "paired",
    "percentiles",
    "pseudo_values",
    "random_jaccard",
    "ratio_of",
    "resampled_means",
    "resampled_runs",
    "square",
    "student_t_quantile",
    "voc_ap50",
    "voc_map50",
]
