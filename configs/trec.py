"""TREC questions in six classes: BERT to a smaller transformer, a recurrent network, a bag of n-grams.

    jkd distill --config=configs/trec.py --workdir=runs/trec

The questions ship with jkd; the 11 test questions that are training questions, too, are left out of training. Without
anything else the teacher is a small transformer trained from scratch. With a BERT folder it is fine-tuned:

    --config.teacher.init=PATH/all_minilm_l6_v2      (or hf:ORG/NAME@REVISION)

Variants, as in `configs/trec.py:few`, and combined as in `:minilm,few`:
  smoke    a few steps of everything
  few      20 labels a class, the rest of the pool unlabelled; 4 replicates
  fine     the fifty fine classes, with the six coarse ones as concepts
"""

from ml_collections import ConfigDict

from jkd import config as base


def get_config(arg: str = "") -> ConfigDict:
    config = base.default()
    config.name = "trec"
    config.seeds = (0, 1, 2)
    config.data.update(source="trec", max_length=48, buckets=(16, 24, 32), val=0.1)
    config.graph.update(views=("teacher", "lexical", "opening"), diagnosis="holdout")
    config.teacher.update(model="bert", width=128, depth=3, attention_heads=4, dropout=0.1)
    config.teacher.train.update(steps=0, epochs=6, batch=32, log_every=50)
    config.teacher.train.optimizer.update(name="adamw", learning_rate=5e-4, warmup=0.1, schedule="linear", clip=1.0)
    config.student.update(model="bert", width=96, depth=2, attention_heads=4, dropout=0.1)
    config.student.train.update(steps=0, epochs=12, batch=32, log_every=50)
    config.student.train.optimizer.update(name="adamw", learning_rate=1e-3, warmup=0.1, schedule="linear", clip=1.0)
    labels = {"cross_entropy": 0.1}
    joined = labels | {"joined_beliefs": 0.9}
    kd = labels | {"kd": {"weight": 0.9, "temperature": 2.0}}
    config.students = {
        "cross_entropy": {"objective": {"cross_entropy": 1.0}, "sampling": {"of": "labelled"}},
        "kd": {"objective": kd},
        "label_smoothing": {"objective": labels | {"label_smoothing": {"weight": 0.9, "smoothing": 0.2}}},
        "tinybert": {"objective": kd | {"hidden": 1.0, "attention": 1.0}},
        "minilmv2": {
            "objective": kd | {term: {"weight": 1.0, "layers": "final", "heads": 8} for term in RELATIONS},
        },
        "random_edges": {"objective": joined, "graph": {"edges": "random", "gate": False}},
        "knowledge_graph": {"objective": joined | {"projection": 0.1}, "graph": {"edges": "real"}},
        "bigru": {"model": "bigru", "width": 64, "depth": 1, "objective": kd},
        "fasttext": {"model": "fasttext", "width": 28, "objective": kd},
    }
    config.report.reference = "kd"
    return base.variant(config, arg, {"smoke": smoke, "few": few, "fine": fine})


RELATIONS = ("query_relations", "key_relations", "value_relations")


def smoke(config: ConfigDict) -> None:
    config.seeds = (0,)
    config.data.update(limit=400, test_limit=100)
    for network in (config.teacher, config.student):
        network.train.update(steps=20, epochs=0, log_every=10)


def few(config: ConfigDict) -> None:
    config.seeds = (0,)
    config.replicates = 4
    config.data.update(labels=120)
    config.graph.diagnosis = "folds"


def fine(config: ConfigDict) -> None:
    config.data.source = "trec:fine"
