"""CIFAR-10, VGG13 -> VGG8, all labels.

    jkd distill --config=configs/cifar10.py --config.data.path=CIFAR10 --workdir=runs/cifar10

`data.path` is a folder with train.tar.gz and test.tar.gz, or train/ and test/, of `<split>/<class>/<file>`; or use
`--config.data.source=tfds:cifar10 --config.data.path=TFDS_DIR`. 2,000 training images are put aside for the diagnosis.

Variants:
  smoke   5,400 images, a quarter-width teacher, 2 epochs, 1 seed: minutes on a laptop
  small   20,000 images, quarter-width VGG13 -> eighth-width VGG8, 10 epochs, 3 seeds: under an hour on 2 cores
"""

from ml_collections import ConfigDict

from jkd import config as base


def get_config(arg: str = "") -> ConfigDict:
    config = base.default()
    config.name = "cifar10"
    config.seeds = (0, 1, 2)
    config.data.update(source="images", val=0.04, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
    config.graph.update(views=("teacher", "input"), diagnosis="holdout")
    for network in (config.teacher, config.student):
        network.width = 64
        network.train.update(steps=0, epochs=240, batch=64, checkpoint_every=2000, log_every=100, eval_every=2000)
        network.train.augment.update(pad_crop=4, flip=True)
        network.train.optimizer.update(name="sgd", learning_rate=0.05, momentum=0.9, weight_decay=5e-4, schedule="step")
    config.teacher.model = "vgg13"
    config.student.model = "vgg8"
    labels = {"cross_entropy": 0.1}
    config.students = {
        "cross_entropy": {"objective": {"cross_entropy": 1.0}},
        "kd": {"objective": labels | {"kd": {"weight": 0.9, "temperature": 4.0}}},
        "knowledge_graph": {
            "objective": labels | {"joined_beliefs": 0.9, "projection": 0.1},
            "graph": {"edges": "real", "inject": False},
        },
    }
    return base.variant(config, arg, {"smoke": smoke, "small": small})


def smoke(config: ConfigDict) -> None:
    config.seeds = (0,)
    config.data.update(limit=6000, test_limit=1000, val=0.1)
    _narrow(config, teacher=16, student=8, epochs=2)
    for network in (config.teacher, config.student):
        network.train.update(log_every=20, eval_every=0)


def small(config: ConfigDict) -> None:
    config.data.update(limit=22_000, val=1 / 11)
    _narrow(config, teacher=16, student=8, epochs=10)


def _narrow(config: ConfigDict, teacher: int, student: int, epochs: int) -> None:
    config.teacher.width, config.student.width = teacher, student
    for network in (config.teacher, config.student):
        network.train.update(epochs=epochs, checkpoint_every=500, eval_every=1000)
        network.train.optimizer.update(schedule="cosine", warmup=0.05)
