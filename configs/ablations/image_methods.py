"""Images: every published method that jkd has for them, beside the graph; VGG13 -> VGG8 or another pair on CIFAR.

    jkd distill --config=configs/ablations/image_methods.py --config.data.path=CIFAR100 --workdir=runs/methods
    jkd distill --config=configs/ablations/image_methods.py:cifar100,resnet32x4_8x4 --config.data.path=CIFAR100 ...
    jkd distill --config=configs/ablations/image_methods.py:cifar10,small --config.data.path=CIFAR10 --workdir=runs/few

The first name says which config it starts from, `configs/cifar100.py` or `configs/cifar10.py`; the next are its
variants. All rows share the data, the teacher, the student and its schedule. Nothing here was tuned: weights and taps
are what public code has for CIFAR-100, for this pair if it can be (a loss over several taps is summed there and shared
out here, so its weight stands as many times as high). They are guesses where that code has none, or jkd's form is
another: `activation_boundary` and `fsp`, which it trains before the other losses, not beside them; `overhaul`, whose
stages it does not weigh alike; `batch_order_cc`, `multi_level`, `review`, `irg`, `cckd`, `gkd`, `ickd`, `cwd`,
`pkd`, `logit_mse`.

One more name:
  alone   without the KD term in the rows whose papers add none; otherwise all rows of features are beside 0.1
          cross-entropy + 0.9 KD, so that what they add to it is seen
"""

import re
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jkd import config as base


def get_config(arg: str = "") -> ConfigDict:
    start, *names = arg.split(",") if arg else ["cifar100"]
    variants = ",".join(name for name in names if name != "alone")
    config = base.load(f"{Path(__file__).parents[1] / start}.py{':' * bool(variants)}{variants}")
    config.name = f"{start}_methods"
    vgg = config.teacher.model.startswith("vgg")
    rows = students(stages=4 if vgg else 3, alone="alone" in names)
    widths = [network.width * _times(network.model) for network in (config.teacher, config.student)]
    if widths[0] != widths[1]:
        del rows["fsp"]  # it compares tables whose size is the widths
    if not vgg:
        del rows["irg"]  # two successive stages would have to be of one width
    with config.unlocked():
        config.students = ConfigDict(rows, type_safe=False)
    config.report.reference = "kd"
    return config


def _times(model: str) -> int:
    """How many times as wide as its family a residual network is by its name."""
    found = re.search(r"(?:x|wrn_\d+_)(\d+)$", model)
    return int(found[1]) if found else 1


def students(stages: int = 4, alone: bool = False) -> dict[str, Any]:
    labels = {"cross_entropy": 0.1}
    kd = labels | {"kd": {"weight": 0.9, "temperature": 4.0}}
    joined = labels | {"joined_beliefs": 0.9}
    beside = {"cross_entropy": 1.0} if alone else kd
    every = tuple(f"stage{stage}" for stage in range(1, stages + 1))
    before = tuple(f"preact{stage}" for stage in range(1, stages + 1))
    last = every[-1]

    def at(weight: float, *taps: str, teacher: str = "stage", **options: Any) -> dict[str, Any]:
        names = ",".join(taps)
        return {"weight": weight, "student_tap": names, "teacher_tap": names.replace("stage", teacher)} | options

    of_logits = {
        "cross_entropy": {"cross_entropy": 1.0},
        "kd": kd,
        "dkd": {"cross_entropy": 1.0, "dkd": {"beta": 6.0, "warmup": 20 / 240}},
        "dist": {"cross_entropy": 1.0, "dist": {"inter_weight": 2.0, "intra_weight": 2.0}},
        "logit_standardization": labels | {"logit_standardization": {"weight": 9.0, "temperature": 2.0}},
        "wsld": {"cross_entropy": 1.0, "wsld": {"weight": 2.25, "temperature": 4.0}},
        "nkd": {"cross_entropy": 1.0, "nkd": {"weight": 1.0, "gamma": 3.5, "temperature": 3.0}},
        "transformed_teacher": {"cross_entropy": 1.0, "transformed_teacher": {"weight": 45.0, "temperature": 10.0}},
        "multi_level": labels | {"multi_level": {"instance_weight": 6.75, "batch_weight": 2.25, "class_weight": 2.25}},
        "logit_mse": labels | {"logit_mse": 0.1},
        "label_smoothing": labels | {"label_smoothing": {"weight": 0.9, "smoothing": "auto"}},
    }
    of_features = {
        "fitnet": at(100.0, "stage2"),
        "attention_transfer": at(1000.0 * stages, *every),
        "sp": at(3000.0, last),
        "batch_order_cc": 0.02,
        "cckd": 1.0,
        "vid": at(1.0 * stages, *every),
        "rkd": 1.0,
        "pkt": 30_000.0,
        "activation_boundary": at(0.003 * stages, *before),
        "overhaul": at(0.001 * stages, *before),
        "factor_transfer": at(200.0, last),
        "fsp": at(50.0, "stage0", *every),
        "nst": at(50.0 * stages, *every),
        "crd": 0.8,
        "hkd": 3.0,
        "review": at(1.0, *every, "embedding", teacher="preact", warmup=20 / 240),
        "gkd": 1.0,
        "irg": {"irg_edge": 0.005, "irg_transformation": at(0.005, "stage3", "stage4")},
        "ickd": at(2.5, last),
        "cwd": at(1.0, last),
        "pkd": at(1.0, last),
    }
    rows = {name: {"objective": terms} for name, terms in of_logits.items()}
    for name, term in of_features.items():
        rows[name] = {"objective": beside | (term if name == "irg" else {name: term})}
    return rows | {
        "random_edges": {"objective": joined, "graph": {"edges": "random", "gate": False, "inject": False}},
        "knowledge_graph": {"objective": joined, "graph": {"edges": "real", "inject": False}},
        "knowledge_graph_projection": {
            "objective": joined | {"projection": 0.1},
            "graph": {"edges": "real", "inject": False},
        },
    }
