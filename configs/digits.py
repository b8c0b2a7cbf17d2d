"""Digits with few labels: the quickstart.

    jkd distill --config=configs/digits.py --workdir=runs/digits

60 labelled of 900 pool images, 600 fixed test images, 16 replicates: pool, labels, teacher and graph are made anew in
each, and the intervals are over them. View, strength and mix are picked by 5 folds over the same 60 labels; nothing
else in a run sees a label. About 3 minutes on 2 cores.

Set beforehand, on 24 other replicates scored on the 297 training images outside their pools, never on the test split:
the students' learning rate (the same for all; of .001, .003, .01, .02), and the smoothing (of .2 to .6).

Variants, as in `configs/digits.py:full`:
  smoke   2 replicates of 200 steps, to see that everything works
  full    every label of the pool, clean: no gain is expected
  noisy   every label, 40 % of them flipped to the next class
  budget  a transfer set of 60 of the 900 images, picked by different rules
"""

from ml_collections import ConfigDict

from jkd import config as base


def get_config(arg: str = "") -> ConfigDict:
    config = base.default()
    config.name = "digits"
    config.replicates = 16
    config.data.update(source="digits", pool=900, labels=60, mean=(0.3,), std=(0.37,))
    config.graph.views = ("teacher", "input")
    for network in (config.teacher, config.student):
        network.train.update(steps=2000, batch=64, steps_per_call=100, log_every=100)
        network.train.augment.shift = 1
    config.student.train.optimizer.update(learning_rate=0.01, schedule="cosine")
    config.teacher.update(model="mlp", width=128, depth=3)
    config.student.update(model="mlp", width=32, depth=2)
    labels = {"cross_entropy": 0.1}
    joined = labels | {"joined_beliefs": 0.9}
    config.students = {
        "cross_entropy": {"objective": {"cross_entropy": 1.0}, "sampling": {"of": "labelled"}},
        "kd": {"objective": labels | {"kd": {"weight": 0.9, "temperature": 4.0}}},
        "label_smoothing": {"objective": labels | {"label_smoothing": {"weight": 0.9, "smoothing": 0.4}}},
        "random_edges": {"objective": joined, "graph": {"edges": "random", "gate": False}},
        "knowledge_graph": {"objective": joined | {"projection": 0.1}, "graph": {"edges": "real"}},
    }
    return base.variant(config, arg, {"smoke": smoke, "full": full, "noisy": noisy, "budget": budget})


def smoke(config: ConfigDict) -> None:
    config.replicates = 2
    for network in (config.teacher, config.student):
        network.train.update(steps=200, steps_per_call=50, log_every=50)


def full(config: ConfigDict) -> None:
    config.data.labels = 0


def noisy(config: ConfigDict) -> None:
    config.data.update(labels=0, noise="pair_flip", noise_rate=0.4)
    config.student.graph.update(inject=False, sharpen=2.0)


def budget(config: ConfigDict) -> None:
    config.data.labels = 0
    kd = {"cross_entropy": 0.1, "kd": 0.9}
    rules = {
        "uniform": {"by": "uniform"},
        "class_balanced": {"by": "class_balanced"},
        "facility_location": {"by": "facility_location"},
    }
    students = {name: {"objective": kd, "sampling": {"budget": 60, **rule}} for name, rule in rules.items()}
    students["facility_location"]["graph"] = {"edges": "real", "view": "input"}
    students["facility_location_random"] = students["facility_location"] | {
        "graph": {"edges": "random", "view": "input"}
    }
    with config.unlocked():
        config.students = ConfigDict(students)
