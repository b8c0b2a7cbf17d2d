"""Runs of seconds that pass through all that has to repeat: what `launch/repeat.py` makes again and again.

    jkd distill --config=configs/repeat.py --workdir=runs/repeat

A teacher on 40 labelled samples, its graph, and students that see them in different ways. With elastic reduction, the
default here, their digests are the same on any number of devices, processes, loader workers and cores. What they learn
does not matter. The images are digits: an MLP in one program of 5 steps a call, an MLP in one of a step (with dropout,
a projection and relations over the global batch), and a VGG with BatchNorm and CutMix.

Variants, as in `configs/repeat.py:text,short`:
  text     TREC questions of several lengths, masked: a recurrent network, and a transformer with dropout that matches
           layers and joins over the graph
  objects  rendered shapes: a detector with BatchNorm in mosaics, with boxes and classes of teacher and graph
  plain    plain reduction
  short    without what takes time and is not asked about: fold teachers, checkpoints, steps beyond the first few
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
    return base.variant(config, arg, {"text": text, "objects": objects, "plain": plain, "short": short})


# What images are normalised by goes back to the default in both of these: it is refused where nobody reads it.
def text(config: ConfigDict) -> None:
    config.data.update(source="trec", max_length=24, buckets=(12,), vocabulary=300, mean=(0.5,), std=(0.5,))
    config.graph.views = ("teacher", "lexical")
    for network in (config.teacher, config.student):
        network.update(model="bert", width=16, depth=1, attention_heads=2, feed_forward=32, dropout=0.1)
        network.train.update(steps_per_call=1, group_by_length=4)
        network.train.augment.update(shift=0, mask=0.1)
    layers = {"hidden": 0.1, "attention": 0.1, "value_relations": {"weight": 0.1, "layers": "final", "heads": 2}}
    config.students = {
        "bigru": {"objective": {"cross_entropy": 0.1, "kd": 0.9}, "model": "bigru", "width": 8, "depth": 1},
        "bert": {"objective": {"joined_beliefs": 0.8, "projection": 0.1} | layers, "graph": {"edges": "real"}},
    }


def objects(config: ConfigDict) -> None:
    config.task = "detection"
    config.data.update(source="shapes", image_size=64, limit=100, test_limit=16, pool=80, mean=(0.5,), std=(0.5,))
    config.graph.views = ("teacher", "crop")
    for network in (config.teacher, config.student):
        network.update(model="yolo", cfg="small")
        network.train.update(steps_per_call=1)
        network.train.augment.update(shift=0, flip=True, jitter=0.1, mosaic=0.5)
    config.student.cfg_width = 0.5
    everything = {"yolo": 1.0, "pseudo_labels": 0.5, "kd": 0.5, "joined_beliefs": 0.5}
    config.students = {"yolo": {"objective": everything, "graph": {"edges": "real"}}}


def plain(config: ConfigDict) -> None:
    config.reduction = "plain"


def short(config: ConfigDict) -> None:
    config.graph.diagnosis = "none"
    config.teacher.train.update(steps=10, checkpoint_every=0)
    config.student.train.update(steps=8, checkpoint_every=0)
    with config.student.graph.ignore_type():
        config.student.graph.update(view="mean", strength=0.8, mix=0.8)
    for name in {"mlp_chunks", "bigru"} & set(config.students):
        del config.students[name]
