"""TREC questions in six classes: BERT to a smaller transformer, a recurrent network, a bag of n-grams.

    jkd distill --config=configs/trec.py --workdir=runs/trec

The questions ship with jkd; the 11 test questions that are training questions, too, are left out of training. As it
stands, the teacher is a small transformer trained from scratch. To fine-tune a BERT and cut the students out of it:

    jkd distill --config=configs/trec.py:minilm --config.teacher.init=PATH/all_minilm_l6_v2 --workdir=runs/trec

(or hf:ORG/NAME@REVISION). Pool, teacher and graph are made anew in each of 3 replicates.

Variants, as in `configs/trec.py:minilm,few`:
  smoke    a few steps of everything
  minilm   a BERT folder as the teacher, and students of a fifth of its size that start from its layers
  few      20 labels a class, the rest of the pool unlabelled; 8 replicates
  fine     the fifty fine classes, with the six coarse ones as concepts

The views of the teacher from scratch, and what `configs/ablations/text_methods.py` says of smoothing and temperatures,
were set beforehand on two replicates whose questions were all of the training split: 800 of them were put aside to be
scored, with the test questions and all that repeat one of them left out.
"""

from ml_collections import ConfigDict

from jkd import config as base


def get_config(arg: str = "") -> ConfigDict:
    config = base.default()
    config.name = "trec"
    config.replicates = 3
    config.data.update(source="trec", max_length=48, buckets=(16, 24), val=0.1)
    config.graph.update(views=("lexical", "opening"), diagnosis="holdout")
    config.teacher.update(model="bert", width=128, depth=3, attention_heads=4, dropout=0.1)
    config.student.update(model="bert", width=96, depth=2, attention_heads=4, dropout=0.1)
    for network, rate, epochs in ((config.teacher, 5e-4, 6), (config.student, 1e-3, 12)):
        network.train.update(steps=0, epochs=epochs, batch=32, log_every=50, checkpoint_every=0, group_by_length=50)
        network.train.optimizer.update(name="adamw", learning_rate=rate, warmup=0.1, schedule="linear", clip=1.0)
    config.students = students()
    config.report.reference = "kd"
    return base.variant(config, arg, {"smoke": smoke, "minilm": minilm, "few": few, "fine": fine})


def students() -> dict[str, dict[str, object]]:
    """The headline rows; `configs/ablations/text_methods.py:trec` has every method."""
    labels = {"cross_entropy": 0.1}
    kd = labels | {"kd": {"weight": 0.9, "temperature": 2.0}}
    return {
        "cross_entropy": {"objective": {"cross_entropy": 1.0}, "sampling": {"of": "labelled"}},
        "kd": {"objective": kd},
        # The projection is of detached features: it explains the student on the report's cards and does not shape it.
        "knowledge_graph": {
            "objective": labels | {"joined_beliefs": 0.9, "projection": 0.1},
            "graph": {"edges": "real"},
        },
        "bigru": {"model": "bigru", "width": 64, "depth": 1, "init": "", "objective": kd},
        "fasttext": {"model": "fasttext", "width": 28, "init": "", "objective": kd},
    }


def smoke(config: ConfigDict) -> None:
    config.replicates = 1
    config.data.update(limit=400, test_limit=100)
    for network in (config.teacher, config.student):
        network.train.update(steps=20, epochs=0, log_every=10)


def minilm(config: ConfigDict) -> None:
    config.graph.views = ("teacher", "lexical", "opening")
    config.teacher.pooling = "mean"
    config.teacher.train.optimizer.learning_rate = 1e-4
    config.student.update(width=256, depth=3, attention_heads=8, embedding_width=64, pooling="mean", init="teacher")
    config.student.train.optimizer.learning_rate = 3e-4
    for name in ("bigru", "fasttext"):
        config.students[name].update(pooling="max" if name == "bigru" else "auto", embedding_width=64)
        config.students[name]["train"] = {"optimizer": {"learning_rate": 2e-3}}


def few(config: ConfigDict) -> None:
    config.replicates = 8
    config.data.labels = 120
    config.graph.diagnosis = "folds"
    config.teacher.train.update(steps=150, epochs=0)
    config.students["cross_entropy"]["train"] = {"steps": 300, "epochs": 0}


def fine(config: ConfigDict) -> None:
    config.data.source = "trec:fine"
    config.graph.taxonomy = "trec"
