"""What a config may say: choices, ranges, and combinations that cannot work."""

import re
from typing import Any

from ml_collections import ConfigDict

from jkd import methods
from jkd.config.defaults import AUTO
from jkd.config.tree import as_dict, flatten
from jkd.errors import UserError, did_you_mean

LARGE_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
CHOICES: dict[str, tuple[Any, ...]] = {
    "task": ("classification", "detection"),
    "reduction": ("plain", "elastic"),
    "parallelism": ("jit", "pmap"),
    "model": (
        "mlp",
        *("vgg8", "vgg11", "vgg13", "vgg16", "vgg19"),
        *("resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110"),
        *("resnet8x4", "resnet32x4", "wrn_16_1", "wrn_16_2", "wrn_40_1", "wrn_40_2", "wrn_28_10"),
        *LARGE_RESNETS,
        *("bert", "bigru", "fasttext", "yolo"),
    ),
    "pooling": ("auto", "cls", "mean", "max"),
    "layout": ("cifar", "torchvision"),
    "dtype": ("float32", "bfloat16"),
    "optimizer.name": ("adam", "adamw", "sgd", "lamb", "lion", "rmsprop"),
    "optimizer.schedule": ("constant", "cosine", "linear", "step"),
    "data.broken": ("refuse", "skip"),
    "activation": ("gelu", "gelu_new", "relu"),
    "data.fit": ("stretch", "letterbox"),
    "data.interpolation": ("bilinear", "antialiased"),
    "data.origin": (0, 1),
    "yolo.overlap": ("iou", "giou", "diou", "ciou"),  # of boxes, an option of yolo
    "data.header": ("auto", "yes", "no"),
    "data.quotes": ("auto", "yes", "no"),
    "data.errors": ("strict", "replace"),
    "data.overlap": ("drop", "keep", "refuse"),
    "data.noise": ("none", "symmetric", "pair_flip"),
    "graph.diagnosis": ("folds", "holdout", "none"),
    "graph.edges": ("real", "random", "class_random", "none"),
    "sampling.of": ("pool", "labelled"),
    "sampling.by": ("uniform", "class_balanced", "facility_location"),
}
SOURCES = ("digits", "images", "npz", "texts", "trec", "trec:fine", "shapes", "voc", "coco", "yolo")
VIEWS = ("teacher", "input", "lexical", "opening", "crop", "context")
# key -> (least, most): both inclusive
RANGES: dict[str, tuple[float, float]] = {
    "replicates": (1, 10_000),
    "teacher.seed": (0, 2**31 - 1),
    "devices": (0, 1_000_000),
    "shards": (1, 4096),
    "width": (1, 1_000_000),
    "depth": (0, 1_000),
    "attention_heads": (1, 4096),
    "feed_forward": (0, 2**18),
    "embedding_width": (0, 2**16),
    "rows": (1, 2**26),
    "ngrams": (1, 16),
    "hidden": (0, 2**16),
    "dropout": (0, 0.95),
    "train.steps": (0, 10**9),
    "train.epochs": (0, 10**6),
    "train.batch": (1, 10**7),
    "train.accumulate": (1, 10**5),
    "train.steps_per_call": (1, 10**5),
    "train.group_by_length": (0, 10**5),
    "train.checkpoint_every": (0, 10**9),
    "train.digest_every": (1, 10**9),
    "train.log_every": (1, 10**9),
    "train.eval_every": (0, 10**9),
    "train.ema": (0, 0.999999),
    "optimizer.learning_rate": (0, 1e6),
    "optimizer.momentum": (0, 0.9999),
    "optimizer.weight_decay": (0, 100),
    "optimizer.clip": (0, 1e9),
    "optimizer.warmup": (0, 1),
    "augment.shift": (0, 1024),
    "augment.pad_crop": (0, 1024),
    "augment.cutout": (0, 4096),
    "augment.mixup": (0, 100),
    "augment.cutmix": (0, 100),
    "augment.jitter": (0, 0.45),
    "augment.hue": (0, 0.5),
    "augment.saturation": (1, 10),
    "augment.exposure": (1, 10),
    "augment.mosaic": (0, 1),
    "augment.mask": (0, 0.99),
    "augment.drop": (0, 0.99),
    "augment.replace": (0, 0.99),
    "data.limit": (0, 10**12),
    "data.test_limit": (0, 10**12),
    "data.image_size": (0, 16_384),
    "data.max_boxes": (0, 10_000),
    "cfg_width": (0.01, 16),
    "cfg_depth": (0.01, 16),
    "data.max_pixels": (1, 178_956_970),  # what Pillow opens at all
    "data.broken_limit": (0, 1),
    "data.test_share": (0.001, 0.9),
    "data.max_chars": (1, 10**7),
    "data.max_length": (3, 2**17),
    "data.vocabulary": (100, 10**6),
    "data.timeout": (0, 10**6),
    "data.val": (0, 0.9),
    "data.pool": (0, 10**12),
    "data.labels": (0, 10**12),
    "data.noise_rate": (0, 1),
    "data.workers": (0, 256),
    "graph.k": (1, 1024),
    "graph.temperature": (1e-4, 1e4),
    "graph.rounds": (0, 10_000),
    "graph.predicted_as": (1, 100_000),
    "graph.block": (1, 10**6),
    "graph.folds": (2, 100),
    "graph.strength": (0, 1),
    "graph.mix": (0, 1),
    "graph.sharpen": (0.01, 100),
    "sampling.budget": (0, 10**12),
    "sampling.labelled_share": (0, 1),
    "projection": (1, 65_536),
    "heads": (0, 256),
    "report.cards": (0, 1000),
    "report.neighbours": (1, 1000),
    # of objective terms
    "weight": (0, 1e9),
    "temperature": (1e-4, 1e4),
    "smoothing": (0, 1),
}


def check(config: ConfigDict) -> None:
    """Refuses the first value out of range or combination that cannot work, naming its key."""
    for path, value in flatten(as_dict(config)).items():
        for key, choices in CHOICES.items():
            if (path == key or path.endswith("." + key)) and value not in choices:
                raise UserError(f"{path}: {value!r} is not one of them.{did_you_mean(str(value), choices)}")
        for key, (least, most) in RANGES.items():
            if (path == key or path.endswith("." + key)) and value != AUTO and not least <= value <= most:
                raise UserError(f"{path}: expected {least} to {most}, got {value}.")
        if path.endswith(".warmup") and ".objective." in path and not 0 <= value <= 1:
            raise UserError(f"{path}: expected a share of the run from 0 to 1, got {value}.")
        if path.endswith(".schedule") and ".objective." in path and value not in methods.SCHEDULES:
            raise UserError(f"{path}: {value!r} is not one of them.{did_you_mean(str(value), methods.SCHEDULES)}")
    if not config.students:
        raise UserError("students: there is none. Name at least one, as in config.students = {'kd': {...}}.")
    if not config.seeds or len(set(config.seeds)) < len(config.seeds):
        raise UserError(f"seeds: expected one or more different whole numbers, got {config.seeds}.")
    if any(not float(seed).is_integer() or not 0 <= seed < 2**31 for seed in config.seeds):
        raise UserError(f"seeds: expected whole numbers from 0 to 2**31 - 1, got {config.seeds}.")
    if config.reduction == "elastic" and config.parallelism == "pmap":
        raise UserError("parallelism: 'pmap' adds up in plain order. Use 'jit' with reduction = 'elastic'.")
    _check_data(config)
    _check_network(config.teacher, "teacher")
    if config.teacher.init == "teacher":
        raise UserError("teacher.init: 'teacher' is for students, which are cut out of it. Give a folder, or ''.")
    for name, student in config.students.items():
        _check_network(student, f"students.{name}")
        _check_student(config, name, student)
    for where, network in (("teacher", config.teacher), *((f"students.{n}", s) for n, s in config.students.items())):
        if network.train.accumulate > 1 and config.reduction == "elastic":
            raise UserError(
                f"{where}.train.accumulate: with reduction = 'elastic', config.shards cuts the batch. Use 1."
            )
        if network.train.accumulate > 1 and config.parallelism == "pmap":
            raise UserError(f"{where}.train.accumulate: with parallelism = 'pmap' devices cut the batch. Use 1.")
    for key in ("cards_student", "reference"):
        name = config.report[key]
        if name != AUTO and name not in config.students:
            raise UserError(f"report.{key}: there is no student '{name}'.{did_you_mean(name, config.students)}")


def _check_data(config: ConfigDict) -> None:
    data, graph = config.data, config.graph
    source = data.source
    if source not in SOURCES and not re.fullmatch(r"tfds:[\w./:-]+", source):
        raise UserError(f"data.source: {source!r} is not one of them.{did_you_mean(source, [*SOURCES, 'tfds:NAME'])}")
    if list(data.buckets) != sorted(set(data.buckets)) or any(size < 2 for size in data.buckets):
        raise UserError(f"data.buckets: expected rising lengths from 2 on, got {data.buckets}.")
    if source in ("images", "npz", "texts", "voc", "coco", "yolo") and not data.path:
        raise UserError(f"data.path: data.source = '{source}' needs one, as in --config.data.path=FOLDER.")
    if data.labels and data.pool and data.labels > data.pool:
        raise UserError(f"data.labels: {data.labels} labels do not fit in a pool of {data.pool}.")
    if (data.noise == "none") != (data.noise_rate == 0):
        raise UserError(f"data.noise_rate: {data.noise_rate} does not go with data.noise = '{data.noise}'.")
    if not data.mean or len(data.mean) != len(data.std) or not all(value > 0 for value in data.std):
        raise UserError(f"data.std: expected {len(data.mean)} positive numbers, one a channel, got {data.std}.")
    if graph.diagnosis == "folds" and (config.teacher.fn or config.teacher.weights):
        raise UserError(
            "graph.diagnosis: 'folds' trains fold teachers, but the teacher is loaded. Use 'holdout' or 'none'."
        )
    if config.teacher.variables and not config.teacher.fn:
        raise UserError("teacher.variables: these are the variables of teacher.fn, which is not set.")
    if config.teacher.fn and config.teacher.weights:
        raise UserError("teacher: set fn or weights, not both.")
    if data.val and data.val_split:
        raise UserError(f"data.val: {data.val:g}, but data.val_split names '{data.val_split}'. Set one of the two.")
    if graph.diagnosis == "holdout" and not (data.val or data.val_split):
        raise UserError("graph.diagnosis: 'holdout' needs a validation split; set data.val above 0, or use 'folds'.")
    if not graph.views or len(set(graph.views)) < len(graph.views):
        raise UserError(f"graph.views: expected one or more different views, got {graph.views}.")
    for view in graph.views:
        if view not in (*VIEWS, *graph.files):
            known = [*VIEWS, *graph.files]
            raise UserError(
                f"graph.views: unknown view '{view}'.{did_you_mean(view, known)} A file view is named in graph.files."
            )


def _check_network(network: ConfigDict, where: str) -> None:
    train = network.train
    if train.steps and train.epochs:
        raise UserError(f"{where}.train: steps = {train.steps} and epochs = {train.epochs}. Set one of them to 0.")
    if network.layout != "cifar" and not (network.model.startswith("vgg") or network.model in LARGE_RESNETS):
        raise UserError(
            f"{where}.layout: '{network.layout}' is for a vgg, or a resnet of 18 layers and more for large images, but "
            f"{where}.model is '{network.model}'."
        )
    if network.model == "yolo" and not network.cfg:
        raise UserError(f"{where}.cfg: a yolo needs one, a Darknet .cfg or 'small'.")
    if not train.steps and not train.epochs:
        raise UserError(f"{where}.train: set steps or epochs above 0.")
    if train.batch % train.accumulate:
        raise UserError(
            f"{where}.train.accumulate: {train.batch} samples cannot be cut into {train.accumulate} equal parts."
        )
    bounds = train.optimizer.boundaries
    if list(bounds) != sorted(bounds) or not all(0 < bound < 1 for bound in bounds):
        raise UserError(f"{where}.train.optimizer.boundaries: expected rising shares between 0 and 1, got {bounds}.")


def _check_student(config: ConfigDict, name: str, student: ConfigDict) -> None:
    where = f"students.{name}"
    terms, graph = student.objective, student.graph
    if student.heads < 1:
        raise UserError(f"{where}.heads: expected 1 to 256, got {student.heads}.")
    if not any(term.weight for term in terms.values()):
        raise UserError(f"{where}.objective: no term has a weight. Name one, as in {{'kd': {{'weight': 1.0}}}}.")
    reads = {methods.METHODS[term].edges for term, settings in terms.items() if settings.weight}
    if student.sampling.labelled_share and student.train.group_by_length:
        raise UserError(
            f"{where}.sampling.labelled_share: {student.sampling.labelled_share:g}, but train.group_by_length sorts "
            "samples over batches. Set one of them to 0."
        )
    samples_by_edges = student.sampling.by == "facility_location"
    if graph.edges != "none" and reads <= {""} and not samples_by_edges:
        raise UserError(f"{where}.graph.edges: '{graph.edges}', but no objective term uses edges. Add joined_beliefs.")
    if graph.edges == "none" and ("beliefs" in reads or samples_by_edges):
        raise UserError(f"{where}.graph.edges: 'none', but joined beliefs or facility_location need edges. Use 'real'.")
    if graph.view not in (AUTO, "mean", *config.graph.views):
        known = [AUTO, "mean", *config.graph.views]
        raise UserError(f"{where}.graph.view: the graph has no view '{graph.view}'.{did_you_mean(graph.view, known)}")
    smoothing = AUTO if any(term.get("smoothing") == AUTO for term in terms.values()) else 0.0
    chosen = "beliefs" in reads and AUTO in (graph.view, graph.strength, graph.mix)
    if config.graph.diagnosis == "none" and (chosen or smoothing == AUTO):
        raise UserError(f"{where}: '{AUTO}' is picked by the diagnosis, but graph.diagnosis is 'none'. Give values.")
    if student.sampling.by == "facility_location" and graph.view == AUTO and config.graph.diagnosis == "none":
        raise UserError(f"{where}.graph.view: '{AUTO}' is picked by the diagnosis, but graph.diagnosis is 'none'.")
