"""Texts: what each method gives a student, beside the graph; on SST-2 or TREC, with all labels or few.

    jkd distill --config=configs/ablations/text_methods.py:sst2,sentences --config.teacher.init=PATH/all_minilm_l6_v2
    jkd distill --config=configs/ablations/text_methods.py:trec,minilm,few --config.teacher.init=PATH/all_minilm_l6_v2
    jkd distill --config=configs/ablations/text_methods.py:trec,fasttext

The first name says which config it starts from, `configs/sst2.py` or `configs/trec.py`; the next are its variants.
All rows share the data, the teacher, the student and its schedule. Two more names change the student, and leave out the
rows that match layers, which ask for a transformer on both sides:
  bigru     a recurrent network, trained from scratch
  fasttext  a bag of n-grams under 1 MB
KD has three temperatures and smoothing a set share and one picked by the folds that pick the graph's settings, so that
the graph is held against the best of each.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jkd import config as base

FAMILIES: dict[str, dict[str, Any]] = {
    "bigru": {"model": "bigru", "width": 128, "depth": 1, "embedding_width": 64, "pooling": "max", "init": ""},
    "fasttext": {"model": "fasttext", "embedding_width": 0, "pooling": "auto", "init": ""},
}
LAYERS = ("tinybert", "minilmv2")


def get_config(arg: str = "") -> ConfigDict:
    start, *names = arg.split(",") if arg else ["sst2"]
    family = next((name for name in names if name in FAMILIES), "")
    variants = ",".join(name for name in names if name != family)
    config = base.load(f"{Path(__file__).parents[1] / start}.py{':' * bool(variants)}{variants}")
    config.name = f"{start}_methods"
    plain = dict(config.students["cross_entropy"])  # with the steps that a variant may give it
    rows = {"cross_entropy": plain} | students()
    own = dict(config.students.get(family, {}))
    if family:
        config.student.train.optimizer.learning_rate = 2e-3
        config.student.update({key: value for key, value in own.items() if key != "objective"} | FAMILIES[family])
        rows = {name: row for name, row in rows.items() if name not in LAYERS}
    with config.unlocked():
        config.students = ConfigDict(rows, type_safe=False)
    config.report.reference = "kd"
    return config


def students() -> dict[str, Any]:
    labels = {"cross_entropy": 0.1}
    kd = labels | {"kd": {"weight": 0.9, "temperature": 2.0}}
    joined = labels | {"joined_beliefs": 0.9}
    relations = ("query_relations", "key_relations", "value_relations")
    return {
        "kd_t1": {"objective": labels | {"kd": {"weight": 0.9, "temperature": 1.0}}},
        "kd": {"objective": kd},
        "kd_t4": {"objective": labels | {"kd": {"weight": 0.9, "temperature": 4.0}}},
        "label_smoothing": {"objective": labels | {"label_smoothing": {"weight": 0.9, "smoothing": 0.4}}},
        "label_smoothing_auto": {"objective": labels | {"label_smoothing": {"weight": 0.9, "smoothing": "auto"}}},
        "tinybert": {"objective": kd | {"hidden": 1.0, "attention": 1.0}},
        "minilmv2": {"objective": kd | {term: {"weight": 1.0, "layers": "final", "heads": 8} for term in relations}},
        "random_edges": {"objective": joined, "graph": {"edges": "random", "gate": False}},
        "class_random_edges": {"objective": joined, "graph": {"edges": "class_random", "gate": False}},
        "knowledge_graph": {"objective": joined, "graph": {"edges": "real"}},
        "knowledge_graph_projection": {"objective": joined | {"projection": 0.1}, "graph": {"edges": "real"}},
    }
