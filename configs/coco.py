"""COCO: yolo-fastest-1.1-xl with its published weights as the teacher of yolo-fastest-1.1.

    jkd distill --config=configs/coco.py --config.data.path=COCO --workdir=runs/coco

COCO holds `images/<split>` and `labels/<split>` in YOLO's form; for COCO's own JSON, of 2017:
`--config.data.source=coco --config.data.train=train2017 --config.data.test=val2017`. The teacher is loaded, not
trained. To measure published weights and train nothing:

    jkd distill --config=configs/coco.py --config.data.path=COCO --only=teacher --workdir=runs/coco
    jkd evaluate --workdir=runs/coco --student=teacher [--min-score=0.2]

`--min-score` is for comparison with programs that drop what scores less, as OpenCV's reader of Darknet networks does.

Variants:
  subset  the 128 and 64 images in `../shared/data/coco_subset`, which tell whether weights are read rightly
  small   the smaller network in the teacher's place, to measure that one
"""

from ml_collections import ConfigDict

from jkd import config as base

DARKNET = "../shared/data/yolo_fastest/"


def get_config(arg: str = "") -> ConfigDict:
    config = base.default()
    config.name = "coco"
    config.task = "detection"
    config.data.update(source="yolo", path="", train="train", test="val", names=f"{DARKNET}coco.names", image_size=320)
    config.graph.update(views=("teacher", "crop", "context"), diagnosis="none")
    for network, name in ((config.teacher, "yolo-fastest-1.1-xl"), (config.student, "yolo-fastest-1.1")):
        network.update(model="yolo", cfg=f"{DARKNET}{name}.cfg")
        network.train.update(steps=0, epochs=12, batch=64)
        network.train.optimizer.update(name="adamw", learning_rate=5e-4, warmup=0.02, schedule="cosine", clip=10.0)
        network.train.augment.update(flip=True, jitter=0.2, mosaic=0.5, hue=0.02, saturation=1.3, exposure=1.3)
    config.teacher.weights = f"{DARKNET}yolo-fastest-1.1-xl.weights"
    config.student.init = f"{DARKNET}yolo-fastest-1.1.weights"
    labels = {"yolo": 1.0}
    config.students = {
        "plain": {"objective": labels},
        "objectness_scaled": {"objective": labels | {"objectness_scaled": 0.5}},
    }
    config.report.reference = "plain"
    return base.variant(config, arg, {"subset": subset, "small": small})


def subset(config: ConfigDict) -> None:
    config.data.path = "../shared/data/coco_subset"


def small(config: ConfigDict) -> None:
    config.teacher.update(cfg=f"{DARKNET}yolo-fastest-1.1.cfg", weights=f"{DARKNET}yolo-fastest-1.1.weights")
