"""A run of seconds that passes through all that has to repeat: what `launch/repeat.py` makes again and again.

    jkd distill --config=configs/repeat.py --workdir=runs/repeat

An MLP teacher on 40 labelled digits, its graph, and three students that see them in different ways: an MLP in one
program of 5 steps a call, an MLP in one of a step (with dropout, a projection and relations over the global batch), and
a VGG with BatchNorm and CutMix. With elastic reduction, the default here, their digests are the same on any number of
devices, processes, loader workers and cores. What they learn does not matter.
"""

from ml_collections import ConfigDict

from jkd import config as base


def get_config(arg: str = "") -> ConfigDict:
    config = base.default()
    config.name = "repeat"
    config.reduction, config.shards = "elastic", 8
    config.data.update(source="digits", limit=300, test_limit=60, pool=200, labels=40, mean=(0.3,), std=(0.37,))
    config.graph.update(folds=2, views=("teacher", "input"))
    for network in (config.teacher, config.student):
        network.update(model="mlp", width=16, depth=1)
        network.train.update(steps=20, batch=16, steps_per_call=1, log_every=5, checkpoint_every=1, digest_every=10)
        network.train.augment.shift = 1
    config.teacher.train.update(steps_per_call=5, checkpoint_every=10)
    chunked = {"steps_per_call": 5, "checkpoint_every": 10}
    distilled = {"cross_entropy": 0.1, "kd": 0.9}
    config.students = {
        "mlp_chunks": {"objective": distilled, "train": chunked},
        "mlp": {
            "objective": {"joined_beliefs": 0.8, "rkd": 0.1, "projection": {"weight": 0.1, "detach": False}},
            "graph": {"edges": "real"},
            "dropout": 0.2,
        },
        "cnn": {"objective": distilled, "model": "vgg8", "width": 4, "train": {"augment": {"cutmix": 1.0}}},
    }
    return base.variant(config, arg, {"plain": plain, "short": short})


def plain(config: ConfigDict) -> None:
    config.reduction = "plain"


def short(config: ConfigDict) -> None:
    """Without what takes time and is not asked about: fold teachers, checkpoints, steps beyond the first few."""
    config.graph.diagnosis = "none"
    config.teacher.train.update(steps=10, checkpoint_every=0)
    config.student.train.update(steps=8, checkpoint_every=0)
    config.students.mlp.graph.update(view="mean", strength=0.8, mix=0.8)
    del config.students["mlp_chunks"]
