"""CIFAR-100, VGG13 -> VGG8 and other pairs, by the recipe that published tables of distillation methods share.

    jkd distill --config=configs/cifar100.py --config.data.path=CIFAR100 --workdir=runs/cifar100

240 epochs of batch 64, SGD 0.05 with momentum 0.9 and weight decay 5e-4, divided by 10 after 150, 180 and 210 epochs;
crop with 4 pixels of padding, flip; KD at T = 4, 0.1 cross-entropy + 0.9 KD; methods beside KD with their usual
weights. Published there (last epoch): teacher 74.64, student alone 70.36, KD 72.98, FitNet 71.02, RKD 71.48, SP 72.68.
Other pairs of these tables are variants: `:resnet56_20`, `:resnet110_32`, `:resnet32x4_8x4`, `:wrn_40_2_16_2` and
`:wrn_40_2_40_1` (published: teacher 72.34, student 69.06, KD 70.66 for the first; 79.42, 72.50, 73.33 for the third).
Here 1,000 training images are put aside for the diagnosis, so the two are close but not the same protocol.
Set `--config.graph.taxonomy=FILE.json` for concept nodes. A GPU or TPU job; each student is one `--only=NAME/SEED`.

Variants:
  smoke   the full networks for 50 steps on 2,000 images, to see that all of it runs
"""

from functools import partial
from typing import Any

from ml_collections import ConfigDict

from jkd import config as base

PAIRS = {
    "resnet56_20": ("resnet56", "resnet20"),
    "resnet110_32": ("resnet110", "resnet32"),
    "resnet32x4_8x4": ("resnet32x4", "resnet8x4"),
    "wrn_40_2_16_2": ("wrn_40_2", "wrn_16_2"),
    "wrn_40_2_40_1": ("wrn_40_2", "wrn_40_1"),
}


def get_config(arg: str = "") -> ConfigDict:
    config = base.default()
    config.name = "cifar100"
    config.seeds = (0, 1, 2)
    config.data.update(source="images", val=0.02, mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761))
    config.graph.update(views=("teacher", "input"), diagnosis="holdout")
    for network in (config.teacher, config.student):
        network.width = 64
        network.train.update(steps=0, epochs=240, batch=64, checkpoint_every=2000, log_every=100, eval_every=5000)
        network.train.augment.update(pad_crop=4, flip=True)
        network.train.optimizer.update(name="sgd", learning_rate=0.05, momentum=0.9, weight_decay=5e-4, schedule="step")
        network.train.optimizer.boundaries = (150 / 240, 180 / 240, 210 / 240)
    config.teacher.model, config.student.model = "vgg13", "vgg8"
    config.students = students("stage4")
    pairs = {name: partial(pair, names=names) for name, names in PAIRS.items()}
    return base.variant(config, arg, {"smoke": smoke} | pairs)


def students(last: str) -> dict[str, Any]:
    """The rows; `last` is the tap of the last stage."""
    labels = {"cross_entropy": 0.1}
    kd = labels | {"kd": {"weight": 0.9, "temperature": 4.0}}
    joined = labels | {"joined_beliefs": 0.9}
    return {
        "cross_entropy": {"objective": {"cross_entropy": 1.0}},
        "kd": {"objective": kd},
        "fitnet": {"objective": {"cross_entropy": 1.0, "fitnet": _taps(100.0, "stage2")}},
        "rkd": {"objective": {"cross_entropy": 1.0, "rkd": 1.0}},
        "sp": {"objective": {"cross_entropy": 1.0, "sp": _taps(3000.0, last)}},
        "random_edges": {"objective": joined, "graph": {"edges": "random", "gate": False, "inject": False}},
        "knowledge_graph": {
            "objective": joined | {"projection": 0.1},
            "graph": {"edges": "real", "inject": False},
        },
    }


def pair(config: ConfigDict, names: tuple[str, str]) -> None:
    """A teacher and a student of three stages, as wide as published."""
    for network, name in zip((config.teacher, config.student), names, strict=True):
        network.update(model=name, width=16)
    with config.unlocked():
        config.students = ConfigDict(students("stage3"))


def smoke(config: ConfigDict) -> None:
    config.seeds = (0,)
    config.data.update(limit=2000, test_limit=500, val=0.1)
    for network in (config.teacher, config.student):
        network.train.update(steps=50, epochs=0, checkpoint_every=10, log_every=10, eval_every=0)


def _taps(weight: float, tap: str) -> dict[str, float | str]:
    return {"weight": weight, "student_tap": tap, "teacher_tap": tap}
