"""SST-2 sentiment: a fine-tuned BERT to a smaller transformer, a recurrent network, and a bag of n-grams under 1 MB.

    jkd distill --config=configs/sst2.py --config.data.path=DATA --config.teacher.init=PATH/all_minilm_l6_v2

DATA holds `sst2_phrases/train.tsv` (all phrases of the training sentences, as GLUE has them) and `sst2/test.tsv` (the
1,821 test sentences) and `sst2/dev.tsv` (872 sentences, on which all choices are made); training phrases that repeat
a sentence of these are left out. A share of the phrases would be no validation split: nearly each of them is a part of
another one.

Variants, as in `configs/sst2.py:few`; every method is in `configs/ablations/text_methods.py`:
  smoke      a few steps of everything, of 2,000 phrases
  sentences  trained on the 6,920 sentences of `sst2/train.tsv`
  few        of these, 20 labels a class; the rest without labels; 4 replicates
"""

from ml_collections import ConfigDict

from jkd import config as base


def get_config(arg: str = "") -> ConfigDict:
    config = base.default()
    config.name = "sst2"
    config.seeds = (0, 1, 2)
    config.data.update(source="texts", path="../shared/data", train="sst2_phrases/train.tsv", test="sst2/test.tsv")
    config.data.update(max_length=48, buckets=(16, 32), classes=("0", "1"), val_split="sst2/dev.tsv")
    config.graph.update(views=("teacher", "lexical"), diagnosis="holdout")
    config.teacher.update(model="bert", dropout=0.1, pooling="mean")
    # A fifth of the teacher: word vectors of 64 coordinates, since a table of 30,522 words of full width would alone be
    # half of it; three blocks of two thirds of the width.
    config.student.update(model="bert", width=256, depth=3, attention_heads=8, embedding_width=64, dropout=0.1)
    config.student.update(pooling="mean", init="teacher")
    # The teacher's rate suits a MiniLM of width 384, on `sst2/dev.tsv`; a bert-base wants a tenth of it.
    for network, rate, epochs in ((config.teacher, 2e-4, 2), (config.student, 3e-4, 3)):
        network.train.update(steps=0, epochs=epochs, batch=64, log_every=100, checkpoint_every=0, group_by_length=50)
        network.train.optimizer.update(name="adamw", learning_rate=rate, warmup=0.1, schedule="linear", clip=1.0)
    labels = {"cross_entropy": 0.1}
    kd = labels | {"kd": {"weight": 0.9, "temperature": 2.0}}
    light = {"init": "", "objective": kd, "train": {"optimizer": {"learning_rate": 2e-3}}}
    # A row of the table for each word, and dropout.
    words = {"model": "fasttext", "width": 8, "rows": 30522, "ngrams": 1, "hidden": 0, "dropout": 0.3}
    words["train"] = {"optimizer": {"learning_rate": 5e-3}}
    config.students = {
        "cross_entropy": {"objective": {"cross_entropy": 1.0}, "sampling": {"of": "labelled"}},
        "kd": {"objective": kd},
        "kd_from_scratch": {"objective": kd, "init": ""},
        # The projection is of detached features: it explains the student on the report's cards and does not shape it.
        "knowledge_graph": {
            "objective": labels | {"joined_beliefs": 0.9, "projection": 0.1},
            "graph": {"edges": "real"},
        },
        "bigru": light | {"model": "bigru", "width": 128, "depth": 1, "pooling": "max"},
        "fasttext": light | words,
    }
    config.report.reference = "kd"
    return base.variant(config, arg, {"smoke": smoke, "sentences": sentences, "few": few})


def smoke(config: ConfigDict) -> None:
    config.seeds = (0,)
    config.data.update(limit=2000, test_limit=200, val_split="", val=0.1)
    for network in (config.teacher, config.student):
        network.train.update(steps=20, epochs=0, log_every=10)


def sentences(config: ConfigDict) -> None:
    config.data.train = "sst2/train.tsv"


def few(config: ConfigDict) -> None:
    sentences(config)
    config.seeds = (0,)
    config.replicates = 4
    config.data.update(labels=40, val_split="")  # choices are made by folds over these
    config.graph.diagnosis = "folds"
    config.teacher.train.update(steps=100, epochs=0, batch=32)
    config.students["cross_entropy"]["train"] = {"steps": 200, "epochs": 0}
