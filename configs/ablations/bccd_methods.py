"""Blood cells: what each method gives the small detector, with all labels and with few.

    jkd distill --config=configs/ablations/bccd_methods.py --workdir=runs/bccd_methods
    jkd distill --config=configs/ablations/bccd_methods.py:few --workdir=runs/bccd_methods_few

All rows share the yolo term on the true boxes, the steps, the size and the teacher; a method adds its own term. With
few labels `plain` sees annotated images alone, and of the others' batches half is annotated
(`sampling.labelled_share`), so that a step of theirs has half the true boxes of one of `plain`. Rows with
`pseudo_labels` learn the boxes that the teacher is sure of in images that nobody has annotated, too: with all labels
there are none, and they are what they are without it. `ld` is a bounded form of localisation distillation, for heads of
anchors rather than of distributions over edges. Beliefs are joined over the views alone; in the two rows that end in
`projection` the student's features are drawn, too, to what the teacher's say of an object and of its neighbours, those
that stand beside it in the image among them. Variants are those of `configs/bccd.py`, and one more:
  on_top   images without labels come on top of those with: batches of all rows but `plain` are twice as large, which
           gives a step of theirs the true boxes of one of `plain`, and costs twice the time
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jkd import config as base

ON_TOP = "on_top"


def get_config(arg: str = "") -> ConfigDict:
    names = arg.split(",")
    config = base.load(f"{Path(__file__).parents[1] / 'bccd.py'}:{','.join(name for name in names if name != ON_TOP)}")
    config.name = "bccd_methods"
    rows = students()
    if ON_TOP in names:
        for name in rows.keys() - {"plain"}:
            rows[name]["train"] = {"batch": 2 * config.student.train.batch}
    with config.unlocked():
        config.students = ConfigDict(rows)
    config.report.reference = "plain"
    return config


def students() -> dict[str, Any]:
    labels = {"yolo": 1.0}
    necks = {"student_tap": "neck*", "teacher_tap": "neck*"}
    found = labels | {"pseudo_labels": 1.0}
    joined = found | {"joined_beliefs": 1.0}
    shaped = {"projection": {"weight": 0.1, "detach": False}}
    return {
        "plain": {"objective": labels, "sampling": {"of": "labelled"}},
        "kd": {"objective": labels | {"class_kd": 1.0, "kd": {"weight": 1.0, "temperature": 2.0}}},
        "fgd": {"objective": labels | {"fgd": 1.0}},
        "ld": {"objective": labels | {"localization_kd": 1.0}},
        "cwd": {"objective": labels | {"cwd": {"weight": 1.0} | necks}},
        "hint": {"objective": labels | {"confident_hint": 1.0}},
        "objectness_scaled": {"objective": labels | {"objectness_scaled": 0.5}},
        "pseudo_labels": {"objective": found},
        "random_edges": {"objective": joined, "graph": {"edges": "random", "gate": False}},
        "knowledge_graph": {"objective": joined, "graph": {"edges": "real"}},
        "random_edges_projection": {"objective": joined | shaped, "graph": {"edges": "random", "gate": False}},
        "knowledge_graph_projection": {"objective": joined | shaped, "graph": {"edges": "real"}},
    }
