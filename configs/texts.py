"""Texts of your own, from one file: a small transformer, trained from scratch, and the students that learn from it.

    jkd distill --config=configs/texts.py --config.data.path=FILE.csv --config.data.text=COLUMN \
        --config.data.label=COLUMN --workdir=runs/texts

Columns go by name or by position, counted from 0. FILE may be a .tsv, .csv or .jsonl, of which a part is held out as
the test split; or a folder with `train` and `test`. A tokenizer is made of the training texts; with
`--config.teacher.init=FOLDER` of a Hugging Face BERT it is that one's, and `configs/trec.py:minilm` shows students that
are cut out of it. Settings are those of `configs/trec.py`, in steps rather than epochs.

Variants, as in `configs/texts.py:smoke`:
  smoke  a few steps of everything
"""

from pathlib import Path

from ml_collections import ConfigDict

from jkd import config as base


def get_config(arg: str = "") -> ConfigDict:
    config = base.load(f"{Path(__file__).parent / 'trec.py'}")
    config.name = "texts"
    config.replicates = 1
    config.seeds = (0, 1, 2)
    config.data.update(source="texts", path="texts.csv", max_length=64, buckets=(16, 32), val=0.1)
    for network, steps in ((config.teacher, 1000), (config.student, 2000)):
        network.train.update(steps=steps, epochs=0, group_by_length=20)
    return base.variant(config, arg, {"smoke": smoke})


def smoke(config: ConfigDict) -> None:
    config.seeds = (0,)
    for network in (config.teacher, config.student):
        network.train.update(steps=20, log_every=10)
