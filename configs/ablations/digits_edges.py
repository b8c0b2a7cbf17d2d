"""Digits with few labels: what the edges know, one row at a time.

    jkd distill --config=configs/ablations/digits_edges.py --workdir=runs/digits_edges

The quickstart's 16 replicates with more rows: KD at T = 1, 2 and 4; label smoothing; random and same-class random
edges; the real edges of each view alone and of their mean; and, as variants, the same choices made by 40 more labels
that the students do not train on, beside what those labels are worth when they are trained on.

Variants:
  smoke      2 replicates of 200 steps
  choose_40  view, strength and mix by a hold-out of 40 more labels instead of folds
  labels_100 by folds again, with those 40 labels to train on
"""

from pathlib import Path

from ml_collections import ConfigDict

from jkd import config as base

DIGITS = Path(__file__).parents[1] / "digits.py"


def get_config(arg: str = "") -> ConfigDict:
    config = base.load(str(DIGITS))
    config.name = "digits_edges"
    labels = {"cross_entropy": 0.1}
    joined = {"objective": labels | {"joined_beliefs": 0.9}}
    students = {f"kd_t{t}": {"objective": labels | {"kd": {"weight": 0.9, "temperature": float(t)}}} for t in (1, 2, 4)}
    for smoothing in (0.2, "auto"):
        terms = {"label_smoothing": {"weight": 0.9, "smoothing": smoothing}}
        students[f"label_smoothing_{smoothing}".replace("0.", "0")] = {"objective": labels | terms}
    students["label_smoothing"] = {"objective": labels | {"label_smoothing": {"weight": 0.9, "smoothing": 0.4}}}
    for kind in ("random", "class_random"):
        students[f"{kind}_edges"] = joined | {"graph": {"edges": kind, "gate": False}}
    for view in ("teacher", "input", "mean"):
        students[f"{view}_edges"] = joined | {"graph": {"edges": "real", "gate": False, "view": view}}
    students["knowledge_graph"] = joined | {"graph": {"edges": "real"}}
    config.students = students
    variants = {"smoke": smoke, "choose_40": choose_40, "labels_100": labels_100}
    return base.variant(config, arg, variants)


def smoke(config: ConfigDict) -> None:
    config.replicates = 2
    for network in (config.teacher, config.student):
        network.train.update(steps=200, steps_per_call=50, log_every=50)


def choose_40(config: ConfigDict) -> None:
    config.data.val = 40 / 1197
    config.graph.diagnosis = "holdout"


def labels_100(config: ConfigDict) -> None:
    config.data.labels = 100
