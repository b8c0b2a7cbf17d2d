"""Rendered shapes: detection with nothing but what ships with jkd.

    jkd distill --config=configs/shapes.py --workdir=runs/shapes

Variants, as in `configs/shapes.py:smoke`:
  smoke   a few steps of everything
"""

from ml_collections import ConfigDict

from jkd import config as base


def get_config(arg: str = "") -> ConfigDict:
    config = base.default()
    config.name = "shapes"
    config.task = "detection"
    config.seeds = (0, 1, 2)
    config.data.update(source="shapes", limit=1200, test_limit=300, labels=100)
    # No boxes are spent on the choices alone; each fold trains a teacher.
    config.graph.update(views=("teacher", "crop", "context"), diagnosis="folds", folds=2)
    config.teacher.update(model="yolo", cfg="small")
    config.student.update(model="yolo", cfg="small", cfg_width=0.5)
    config.student.sampling.labelled_share = 0.5
    for network in (config.teacher, config.student):
        network.train.update(steps=1500, batch=16, log_every=50)
        network.train.optimizer.update(name="adamw", learning_rate=3e-3, warmup=0.05, schedule="cosine", clip=10.0)
        network.train.augment.update(flip=True, jitter=0.1)
    config.students = {
        "plain": {"objective": {"yolo": 1.0}, "sampling": {"of": "labelled"}},
        "pseudo_labels": {"objective": {"yolo": 1.0, "pseudo_labels": 1.0}},
        "kd": {"objective": {"yolo": 1.0, "kd": {"weight": 1.0, "temperature": 2.0}}},
        "random_edges": {
            "objective": {"yolo": 1.0, "joined_beliefs": 1.0},
            "graph": {"edges": "random", "gate": False},
        },
        # The projection is of detached features: it explains the student on the report's cards and does not shape it.
        "knowledge_graph": {
            "objective": {"yolo": 1.0, "joined_beliefs": 1.0, "projection": 0.1},
            "graph": {"edges": "real"},
        },
    }
    for name in ("random_edges", "knowledge_graph"):  # where images without boxes lend the teacher's
        row = config.students[name]
        config.students[f"{name}_pseudo"] = {**row, "objective": {**row["objective"], "pseudo_labels": 1.0}}
    config.report.reference = "plain"
    return base.variant(config, arg, {"smoke": smoke})


def smoke(config: ConfigDict) -> None:
    config.seeds = (0,)
    config.data.update(limit=80, test_limit=20, labels=40)
    for network in (config.teacher, config.student):
        network.train.update(steps=10, batch=8, log_every=5)
