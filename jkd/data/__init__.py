"""Images and texts by index, and what a run draws from them.

A `Source` gives labelled images of one size, or texts, in a stable order with stable ids and a fingerprint: embedded
digits, image folders and tars, npz, TFDS. `open_dataset` makes a training and a test source from
`config.data`; `make_split` draws what one replicate trains on (pool, visible labels, noise, validation);
`batches` streams it, a pure function of the step; `normalize` and `augment` run inside jit, one key per
sample. `textset.load` makes two `TextSource`s from TSV, CSV, JSON lines, TREC's form or TFDS, and `tokens` turns their
texts into ids. Images with objects are `ObjectSource`s (`object_sets`: VOC, COCO, YOLO text, TFDS, rendered shapes),
augmented with their boxes by `augment_boxes`. Pillow and TFDS are only imported by a source that needs them.
"""

from jkd.data.augment import augment, normalize
from jkd.data.dataset import DataSet, open_dataset
from jkd.data.inputs import Images, Inputs
from jkd.data.pipeline import batches, order
from jkd.data.sources import Source
from jkd.data.split import Split, make_split

__all__ = [
    "DataSet",
    "Images",
    "Inputs",
    "Source",
    "Split",
    "augment",
    "batches",
    "make_split",
    "normalize",
    "open_dataset",
    "order",
]
