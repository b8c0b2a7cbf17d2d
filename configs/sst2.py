"""SST-2 sentiment: a fine-tuned BERT to a smaller transformer, a recurrent network, and a bag of n-grams under 1 MB.

    jkd distill --config=configs/sst2.py --config.data.path=DATA --config.teacher.init=PATH/all_minilm_l6_v2

DATA holds `sst2_phrases/train.tsv` (all phrases of the training sentences, as GLUE has them) and `sst2/test.tsv` (the
1,821 test sentences); training phrases that repeat a test sentence are left out. Settings are to be chosen on
`sst2/dev.tsv`, as in `--config.data.test=sst2/dev.tsv`.

Variants, as in `configs/sst2.py:few`:
  smoke      a few steps of everything, of 2,000 phrases
  sentences  trained on the 6,920 sentences of `sst2/train.tsv`
  few        of these, 20 labels a class; the rest without labels; 4 replicates
"""

from ml_collections import ConfigDict

from jkd import config as base

RELATIONS = ("query_relations", "key_relations", "value_relations")


def get_config(arg: str = "") -> ConfigDict:
    config = base.default()
    config.name = "sst2"
    config.seeds = (0, 1, 2)
    config.data.update(source="texts", train="sst2_phrases/train.tsv", test="sst2/test.tsv", path="../shared/data")
    config.data.update(max_length=64, buckets=(16, 32), classes=("0", "1"), val=0.02)
    config.graph.update(views=("teacher", "lexical"), diagnosis="holdout")
    config.teacher.update(model="bert", width=128, depth=3, dropout=0.1)
    config.teacher.train.update(steps=0, epochs=2, batch=64, log_every=100)
    config.teacher.train.optimizer.update(name="adamw", learning_rate=5e-5, warmup=0.1, schedule="linear", clip=1.0)
    # Word vectors of 64 coordinates: a table of 30,522 words of full width would alone be half of the teacher.
    config.student.update(model="bert", width=192, depth=3, attention_heads=6, embedding_width=64, dropout=0.1)
    config.student.train.update(steps=0, epochs=4, batch=64, log_every=100)
    config.student.train.optimizer.update(name="adamw", learning_rate=5e-4, warmup=0.1, schedule="linear", clip=1.0)
    labels = {"cross_entropy": 0.1}
    kd = labels | {"kd": {"weight": 0.9, "temperature": 2.0}}
    joined = labels | {"joined_beliefs": 0.9}
    relations = {term: {"weight": 1.0, "layers": "final", "heads": 12} for term in RELATIONS}
    config.students = {
        "cross_entropy": {"objective": {"cross_entropy": 1.0}, "sampling": {"of": "labelled"}},
        "kd": {"objective": kd},
        "label_smoothing": {"objective": labels | {"label_smoothing": {"weight": 0.9, "smoothing": 0.2}}},
        "tinybert": {"objective": kd | {"hidden": 1.0, "attention": 1.0}},
        "minilmv2": {"objective": kd | relations},
        "random_edges": {"objective": joined, "graph": {"edges": "random", "gate": False}},
        "knowledge_graph": {"objective": joined | {"projection": 0.1}, "graph": {"edges": "real"}},
        "bigru": {"model": "bigru", "width": 128, "depth": 1, "embedding_width": 64, "objective": kd},
        "fasttext": {"model": "fasttext", "width": 28, "objective": kd},
    }
    config.report.reference = "kd"
    return base.variant(config, arg, {"smoke": smoke, "sentences": sentences, "few": few})


def smoke(config: ConfigDict) -> None:
    config.seeds = (0,)
    config.data.update(limit=2000, test_limit=200, val=0.1)
    for network in (config.teacher, config.student):
        network.train.update(steps=20, epochs=0, log_every=10)


def sentences(config: ConfigDict) -> None:
    config.data.update(train="sst2/train.tsv", val=0.1)


def few(config: ConfigDict) -> None:
    sentences(config)
    config.seeds = (0,)
    config.replicates = 4
    config.data.update(labels=40)
    config.graph.diagnosis = "folds"
