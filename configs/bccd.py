"""Blood cells: yolo-fastest-1.1-xl to yolo-fastest-1.1, both from their COCO weights.

    jkd distill --config=configs/bccd.py --workdir=runs/bccd

A folder with the four Darknet files is expected in `../shared/data/yolo_fastest`, the VOC folder BCCD in
`../shared/data/bccd/BCCD`; other places by `--config.teacher.cfg`, `.init` and so on. Train and val are joined, and 87
of their 292 images put aside for choices by a fixed rule, so that 205 are left to train on; the 72 of test are looked
at once, in the end.

Variants, as in `configs/bccd.py:few` and combined as in `:cpu,few`:
  smoke    a few steps of everything, on 96 pixels
  cpu      160 pixels and fewer epochs, for all rows alike
  few      20 annotated images of the 205, the others without labels, and none to choose by; 3 replicates
  scratch  the student starts from drawn weights instead of COCO's
"""

from typing import Any

from ml_collections import ConfigDict

from jkd import config as base

DARKNET = "../shared/data/yolo_fastest/"


def get_config(arg: str = "") -> ConfigDict:
    config = base.default()
    config.name = "bccd"
    config.task = "detection"
    config.seeds = (0, 1, 2)
    config.data.update(source="voc", path="../shared/data/bccd/BCCD", train="train+val", test="test", val=0.298)
    config.data.update(image_size=320, classes=("RBC", "WBC", "Platelets"))
    config.graph.update(views=("teacher", "crop", "context"), diagnosis="holdout")
    for network, name in ((config.teacher, "yolo-fastest-1.1-xl"), (config.student, "yolo-fastest-1.1")):
        network.update(model="yolo", cfg=f"{DARKNET}{name}.cfg", init=f"{DARKNET}{name}.weights")
        network.train.update(steps=0, epochs=40, batch=16, log_every=20)
        network.train.optimizer.update(name="adamw", learning_rate=1e-3, warmup=0.05, schedule="cosine", clip=10.0)
        network.train.augment.update(flip=True, jitter=0.15, hue=0.02, saturation=1.3, exposure=1.3)
    config.students = students()
    config.report.reference = "plain"
    return base.variant(config, arg, {"smoke": smoke, "cpu": cpu, "few": few, "scratch": scratch})


def students() -> dict[str, Any]:
    """The plain student, KD, and the graph with its control."""
    labels = {"yolo": 1.0}
    joined = labels | {"joined_beliefs": 1.0}
    return {
        "plain": {"objective": labels, "sampling": {"of": "labelled"}},
        "kd": {"objective": labels | {"kd": {"weight": 1.0, "temperature": 2.0}}},
        "objectness_scaled": {"objective": labels | {"objectness_scaled": 0.5}},
        "random_edges": {"objective": joined, "graph": {"edges": "random", "gate": False}},
        # The projection is of detached features: it explains the student on the report's cards and does not shape it.
        "knowledge_graph": {"objective": joined | {"projection": 0.1}, "graph": {"edges": "real"}},
    }


def smoke(config: ConfigDict) -> None:
    config.seeds = (0,)
    config.data.update(image_size=96, limit=60, test_limit=10)
    for network in (config.teacher, config.student):
        network.train.update(steps=4, epochs=0, batch=4, log_every=2)


def cpu(config: ConfigDict) -> None:
    config.data.image_size = 160
    for network in (config.teacher, config.student):
        network.train.batch = 8
        if not network.train.steps:  # as `few` and `smoke` set them, before or after
            network.train.epochs = 20


def few(config: ConfigDict) -> None:
    config.seeds = (0,)
    config.replicates = 3
    config.data.labels = 20
    config.graph.update(diagnosis="folds", folds=2)  # no boxes are spent on the choices; each fold trains a teacher
    config.student.sampling.labelled_share = 0.5  # rows that see all images see boxes in half of a batch, not a tenth
    for network in (config.teacher, config.student):  # epochs would be over 20 images for some rows, 205 for others
        network.train.update(steps=network.train.steps or 500, epochs=0)


def scratch(config: ConfigDict) -> None:
    config.student.init = ""
