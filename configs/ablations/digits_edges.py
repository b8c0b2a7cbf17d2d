"""Digits with few labels: what the edges know, one row at a time.

    jkd distill --config=configs/ablations/digits_edges.py --workdir=runs/digits_edges

The quickstart's 16 replicates with more rows: KD at T = 1, 2 and 4; label smoothing, set and picked by folds; random
and same-class random edges; the real edges of each view alone and of their mean. Nothing was set for this table: the
settings are those of the quickstart, and every `auto` is picked by folds over the 60 labels.

What are 40 more labels worth, to choose by or to train on? Three variants answer it beside the main table:
  labels_100  the same pools with 100 labels to train on, choices by folds over them: pairs with the main table
  choose_40   view, strength, mix and smoothing picked by a hold-out of 40 more labels, put aside before the pools are
              drawn, so the pools are others than the main table's
  choose_0    the pools of choose_40, choices by folds over the 60 labels: pairs with choose_40

  smoke       2 replicates of 200 steps
"""

from pathlib import Path

from ml_collections import ConfigDict

from jkd import config as base

DIGITS = Path(__file__).parents[1] / "digits.py"
ASIDE = 40 / 1197  # of the training images


def get_config(arg: str = "") -> ConfigDict:
    config = base.load(str(DIGITS))
    config.name = "digits_edges"
    labels = {"cross_entropy": 0.1}
    joined = {"objective": labels | {"joined_beliefs": 0.9}}
    students = {"cross_entropy": {"objective": {"cross_entropy": 1.0}, "sampling": {"of": "labelled"}}}
    for temperature in (1, 2, 4):
        terms = {"kd": {"weight": 0.9, "temperature": float(temperature)}}
        students[f"kd_t{temperature}"] = {"objective": labels | terms}
    for name, smoothing in {"02": 0.2, "04": 0.4, "auto": "auto"}.items():
        terms = {"label_smoothing": {"weight": 0.9, "smoothing": smoothing}}
        students[f"label_smoothing_{name}"] = {"objective": labels | terms}
    for kind in ("random", "class_random"):
        students[f"{kind}_edges"] = joined | {"graph": {"edges": kind, "gate": False}}
    for view in ("teacher", "input", "mean"):
        students[f"{view}_edges"] = joined | {"graph": {"edges": "real", "gate": False, "view": view}}
    students["knowledge_graph"] = joined | {"graph": {"edges": "real"}}
    config.students = students
    config.report.reference = "kd_t4"
    variants = {"smoke": smoke, "choose_40": choose_40, "choose_0": choose_0, "labels_100": labels_100}
    return base.variant(config, arg, variants)


def smoke(config: ConfigDict) -> None:
    config.replicates = 2
    for network in (config.teacher, config.student):
        network.train.update(steps=200, steps_per_call=50, log_every=50)


def labels_100(config: ConfigDict) -> None:
    config.data.labels = 100


def choose_40(config: ConfigDict) -> None:
    config.data.val = ASIDE
    config.graph.diagnosis = "holdout"


def choose_0(config: ConfigDict) -> None:
    config.data.val = ASIDE
