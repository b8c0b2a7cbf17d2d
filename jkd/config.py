"""Defaults, overrides and checks. Imports no jax: a mistyped key is refused before anything is loaded.

Every key of every config is listed in `default()`, with its meaning; `configs/*.py` only say what differs.
"""

import ast
import importlib.util
import inspect
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jkd import methods
from jkd.errors import UserError, did_you_mean

AUTO = "auto"


def _network(model: str, width: int, depth: int) -> dict[str, Any]:
    return dict(
        model=model,  # mlp, vgg8, vgg11, vgg13, vgg16, vgg19
        width=width,  # mlp: units of a hidden layer; vgg: channels of the first stage (64 is the published size)
        depth=depth,  # mlp: hidden layers; vgg: its name already says
        batch_norm=False,  # mlp only; a CIFAR-layout vgg always has it
        dropout=0.0,  # share of units dropped, one key per sample
        layout="cifar",  # vgg: cifar (global average, one dense layer) or torchvision (7x7 pooling, three)
        dtype="float32",  # compute type: float32 or bfloat16 (parameters stay float32)
        train=dict(
            steps=2000,  # optimiser steps; 0 = take `epochs`
            epochs=0,  # passes over the samples trained on, where steps = 0
            batch=64,  # global batch size
            accumulate=1,  # micro-batches per step; relations still see the whole batch
            steps_per_call=1,  # steps run by one dispatch: > 1 for tiny networks; keep 1 for convolutions on CPU
            checkpoint_every=1000,  # steps; 0 = only at the end
            log_every=100,  # steps between lines of metrics.jsonl
            eval_every=0,  # steps between evaluations on the validation split; 0 = never
            ema=0.0,  # decay of an exponential moving average of parameters, used for evaluation; 0 = none
            optimizer=dict(
                name="adam",  # adam, adamw, sgd, lamb, lion, rmsprop
                learning_rate=1e-3,
                momentum=0.9,  # sgd
                nesterov=False,  # sgd
                weight_decay=0.0,
                clip=0.0,  # global gradient norm; 0 = no clipping
                schedule="constant",  # constant, cosine, linear, step
                warmup=0.0,  # share of the steps that the rate takes to rise linearly from 0
                boundaries=(0.625, 0.75, 0.875),  # step: where, as shares of all steps, the rate is multiplied
                factor=0.1,  # step: by what
            ),
            augment=dict(
                shift=0,  # pixels up to which an image is moved, zeros shifted in
                pad_crop=0,  # pixels of zero padding before a random crop to the old size
                flip=False,  # mirror half of the images left to right
                cutout=0,  # side of a square set to the mean
                mixup=0.0,  # alpha of mixup's Beta(alpha, alpha); 0 = off
                cutmix=0.0,  # alpha of CutMix's Beta(alpha, alpha); 0 = off
            ),
        ),
    )


def default() -> ConfigDict:
    """The whole tree with its defaults. `config.students` maps a name to what differs from `config.student`."""
    config = ConfigDict()
    config.name = "run"
    config.task = "classification"
    config.seeds = (0,)  # students (and nothing else) are trained once per seed
    config.replicates = 1  # how often pool, labels, teacher and graph are made anew
    config.devices = 0  # how many of the devices to use; 0 = all
    config.data = ConfigDict(
        dict(
            source="digits",  # digits, images (a folder or tars), npz, or tfds:NAME
            path="",  # folder, tar file, or npz file; for tfds the data_dir
            train="train",  # name of the training split
            test="test",  # name of the test split, evaluated once, at the end
            limit=0,  # keep so many training samples by a fixed rule; 0 = all
            test_limit=0,
            image_size=0,  # resize to this many pixels a side; 0 = as they are, and all must agree
            max_pixels=64_000_000,  # an image that claims more is refused from its header
            broken="refuse",  # refuse or skip unreadable images; skipped ones are listed in the manifest
            mean=(0.5,),  # per channel, of pixels in 0..1
            std=(0.5,),
            val=0.0,  # share of the training samples put aside by a fixed rule: for choices, never for training
            pool=0,  # samples a replicate draws for its pool; 0 = all
            labels=0,  # how many of the pool keep their label; 0 = all
            noise="none",  # none, symmetric (any other class), pair_flip (the next class)
            noise_rate=0.0,  # share of the kept labels that are wrong
            workers=0,  # loader processes; the order does not depend on it
        )
    )
    config.teacher = ConfigDict(
        _network("mlp", 128, 3)
        | dict(
            seed=0,
            weights="",  # safetensors in torch layout; the teacher is loaded, not trained
            fn="",  # module:function returning (apply, variables), or taking .variables' content
            variables="",  # file of variables for `fn`
            normalize=True,  # whether `fn` gets normalised images (as jkd's models do) or raw 0..1
        )
    )
    config.graph = ConfigDict(
        dict(
            views=("teacher", "input"),  # any of teacher, input, and names in `files`
            files=ConfigDict(dict(), type_safe=False),  # view name -> npz of embeddings by sample id, or an edge list
            k=8,  # neighbours of a sample
            temperature=0.1,  # of the row softmax over similarities
            rounds=20,  # of the belief join
            predicted_as=3,  # classes kept per sample
            block=2048,  # rows of a block of the similarity matrix
            taxonomy="",  # json file {classes, concepts, is_a}
            diagnosis="folds",  # folds (over the training labels), holdout (the validation split) or none
            folds=5,
        )
    )
    config.student = ConfigDict(
        _network("mlp", 32, 2)
        | dict(
            objective=ConfigDict(dict(), type_safe=False),  # term -> options; see `jkd methods`
            graph=dict(
                edges="none",  # real, random, class_random (random within the class), none
                view=AUTO,  # a view, mean (of all views), or auto: picked by the diagnosis
                strength=AUTO,  # a of q <- (1 - a) q0 + a W q, or auto
                mix=AUTO,  # m of the target (1 - m) teacher + m joined beliefs, or auto
                gate=True,  # switch the edges off where the diagnosis says they lose
                inject=True,  # start the join from the label where there is one; False when labels are noisy
                sharpen=1.0,  # power to which joined beliefs are raised before renormalising
            ),
            sampling=dict(
                of="pool",  # pool, or labelled
                budget=0,  # samples kept to train on; 0 = all
                by="uniform",  # uniform, class_balanced, facility_location (on the edges of `graph`)
            ),
            projection=64,  # width of the projected space, where a term uses it
            heads=4,  # attention heads of the feature join
        )
    )
    config.students = ConfigDict(dict(), type_safe=False)
    config.report = ConfigDict(dict(cards=12, cards_student=AUTO, reference=AUTO, neighbours=5))
    return config


CHOICES: dict[str, tuple[Any, ...]] = {
    "task": ("classification",),
    "model": ("mlp", "vgg8", "vgg11", "vgg13", "vgg16", "vgg19"),
    "layout": ("cifar", "torchvision"),
    "dtype": ("float32", "bfloat16"),
    "optimizer.name": ("adam", "adamw", "sgd", "lamb", "lion", "rmsprop"),
    "optimizer.schedule": ("constant", "cosine", "linear", "step"),
    "data.broken": ("refuse", "skip"),
    "data.noise": ("none", "symmetric", "pair_flip"),
    "graph.diagnosis": ("folds", "holdout", "none"),
    "graph.edges": ("real", "random", "class_random", "none"),
    "sampling.of": ("pool", "labelled"),
    "sampling.by": ("uniform", "class_balanced", "facility_location"),
}
# key -> (least, most): both inclusive
RANGES: dict[str, tuple[float, float]] = {
    "replicates": (1, 10_000),
    "devices": (0, 1_000_000),
    "width": (1, 1_000_000),
    "depth": (0, 1_000),
    "dropout": (0, 0.95),
    "train.steps": (0, 10**9),
    "train.epochs": (0, 10**6),
    "train.batch": (1, 10**7),
    "train.accumulate": (1, 10**5),
    "train.steps_per_call": (1, 10**5),
    "train.checkpoint_every": (0, 10**9),
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
    "data.limit": (0, 10**12),
    "data.test_limit": (0, 10**12),
    "data.image_size": (0, 16_384),
    "data.max_pixels": (1, 10**10),
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
    "projection": (1, 65_536),
    "heads": (1, 256),
    "report.cards": (0, 1000),
    "report.neighbours": (1, 1000),
}
# keys whose value may be the word `auto` or a number
AUTO_NUMBERS = ("graph.strength", "graph.mix", "smoothing")


def load(spec: str) -> ConfigDict:
    """Runs `get_config(arg)` of a config file given as `FILE` or `FILE:arg` and returns its result, unchecked."""
    path, _, arg = spec.partition(":")
    if not Path(path).is_file():
        there = sorted(str(file) for file in Path(path).parent.glob("*.py")) if Path(path).parent.is_dir() else []
        hint = did_you_mean(path, there) or " Give a Python file that has get_config(arg)."
        raise UserError(f"--config: there is no file {path}.{hint}")
    module_spec = importlib.util.spec_from_file_location("jkd_config_file", path)
    if module_spec is None or module_spec.loader is None:
        raise UserError(f"--config: {path} is not a Python file. Give a file that has get_config(arg).")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UserError(f"--config: {path} does not parse: {error}.") from None
    if not hasattr(module, "get_config"):
        raise UserError(f"--config: {path} has no function get_config(arg).")
    takes_arg = bool(inspect.signature(module.get_config).parameters)
    if arg and not takes_arg:
        raise UserError(f"--config: {path} has no variants, but ':{arg}' was given.")
    config = module.get_config(arg) if takes_arg else module.get_config()
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config: get_config of {path} returned {type(config).__name__}, not a ConfigDict.")
    return config


def variant(config: ConfigDict, arg: str, variants: Mapping[str, Callable[[ConfigDict], None]]) -> ConfigDict:
    """Applies the named deltas, `a,b` in order, to a config; an unknown name is a `UserError`."""
    for name in filter(None, arg.split(",")):
        if name not in variants:
            raise UserError(f"unknown variant ':{name}'.{did_you_mean(name, variants)}")
        variants[name](config)
    return config


def override(config: ConfigDict, path: str, text: str) -> None:
    """Sets `path` (as in `student.train.batch`) from a command-line text, typed as the default is."""
    keys = path.split(".")
    node: Any = config
    reference: Any = default()
    for depth, key in enumerate(keys[:-1]):
        where = ".".join(keys[:depth])
        reference = _reference(reference, where, key)
        if where == "students" and key not in node:
            raise UserError(f"--config.{path}: there is no student '{key}'.{did_you_mean(key, node)}")
        if key not in node:
            node[key] = ConfigDict(dict(), type_safe=False)
        if where.endswith("objective") and isinstance(node[key], int | float):  # the short form, `term = weight`
            with node.unlocked(), node.ignore_type():
                node[key] = ConfigDict({"weight": float(node[key])}, type_safe=False)
        node = node[key]
        if not isinstance(node, ConfigDict):
            raise UserError(f"--config.{path}: {'.'.join(keys[: depth + 1])} is a value and has no keys below it.")
    where, key = ".".join(keys[:-1]), keys[-1]
    expected = _reference(reference, where, key)
    if isinstance(expected, Mapping | ConfigDict):
        raise UserError(f"--config.{path}: this is a group; set one of its keys: {', '.join(sorted(expected))}.")
    value = _parse(text)
    problem = _type_problem(path, value, expected)
    if problem and isinstance(expected, str):
        value, problem = text, ""
    if problem:
        raise UserError(f"--config.{path}: {problem}")
    with node.unlocked(), node.ignore_type():
        node[key] = _coerce(value, expected)


def resolve(config: ConfigDict) -> ConfigDict:
    """Checks the whole tree and returns a locked copy in which every student is spelled out in full.

    Raises:
      UserError: naming the key, what was expected and what came, for the first unknown key, wrong type, value out of
        range or impossible combination.
    """
    resolved = default()
    _merge(resolved, config, "")
    students = {}
    for name, differs in (config.get("students") or {}).items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise UserError(f"students: '{name}' is not a usable name. Use letters, digits and _ . -")
        student = default().student
        _merge(student, config.get("student", {}), "student")
        _merge(student, differs, f"students.{name}")
        students[name] = student
    with resolved.unlocked():
        resolved.students = ConfigDict(students)
    _check(resolved)
    return resolved.lock()


def as_dict(config: ConfigDict) -> dict[str, Any]:
    """Plain nested dicts with lists for tuples: what is digested, printed and written to the manifest."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping | ConfigDict):
            return {key: plain(value[key]) for key in value}
        return [plain(item) for item in value] if isinstance(value, tuple | list) else value

    return plain(config)


def from_dict(tree: dict[str, Any]) -> ConfigDict:
    """The config that a manifest holds, checked again."""

    def tuples(value: Any) -> Any:
        if isinstance(value, dict):
            return ConfigDict({key: tuples(item) for key, item in value.items()}, type_safe=False)
        return tuple(tuples(item) for item in value) if isinstance(value, list) else value

    return resolve(tuples(tree))


def difference(config: ConfigDict) -> dict[str, Any]:
    """`{path: value}` of everything that is not the default; students are compared with `config.student`."""
    flat = flatten(as_dict(config))
    base = flatten(as_dict(default()))
    for name in config.students:
        base |= {f"students.{name}.{key}": value for key, value in flatten(as_dict(config.student)).items()}
    return {path: value for path, value in flat.items() if path not in base or base[path] != value}


def show(config: ConfigDict) -> str:
    """One `path = value` a line, those that differ from the default marked with `*`."""
    differs = difference(config)
    return "\n".join(
        f"{'*' if path in differs else ' '} {path} = {value!r}" for path, value in flatten(as_dict(config)).items()
    )


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a.b": value}` of nested dicts; an empty group stays a value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        flat |= flatten(value, f"{path}.") if isinstance(value, Mapping) and value else {path: value}
    return flat


def _reference(reference: Any, where: str, key: str) -> Any:
    """What the default tree has at `where.key`, following students to `student` and objectives to `methods`."""
    if where == "students":
        return default().student
    if where == "graph.files":
        return ""
    if where.endswith("objective"):
        if key not in methods.METHODS:
            raise UserError(f"{where}: unknown objective term '{key}'.{did_you_mean(key, methods.METHODS)}")
        return methods.options(key)
    if key not in reference:
        raise UserError(f"{where + '.' if where else ''}{key}: unknown key.{did_you_mean(key, reference)}")
    return reference[key]


def _merge(into: ConfigDict, differs: Any, where: str) -> None:
    """Writes `differs` over the defaults `into`, checking names and types on the way."""
    if not isinstance(differs, Mapping | ConfigDict):
        raise UserError(f"{where}: expected a group of keys, got {differs!r}.")
    for key in differs:
        path = f"{where}.{key}" if where else key
        value = differs[key]
        if path == "students":
            continue
        expected = _reference(into, where, key)
        if where.endswith("objective"):
            if not value and not isinstance(value, Mapping | ConfigDict):
                if key in into:  # `term = 0` or None in a student drops a term of `config.student`
                    del into[key]
                continue
            term = ConfigDict(dict(into[key]) if key in into else expected, type_safe=False)
            weight = isinstance(value, int | float)
            _merge_values(term, {"weight": value} if weight else value, path, methods.options(key))
            into[key] = term
        elif isinstance(expected, Mapping | ConfigDict):
            _merge(into[key], value, path)
        else:
            _merge_values(into, {key: value}, where, {key: expected})


def _merge_values(into: ConfigDict, values: Any, where: str, reference: Mapping[str, Any]) -> None:
    if not isinstance(values, Mapping | ConfigDict):
        raise UserError(f"{where}: expected a weight or a group of keys, got {values!r}.")
    for key in values:
        path = f"{where}.{key}" if where else key
        if key not in reference:
            raise UserError(f"{path}: unknown key.{did_you_mean(key, reference)}")
        problem = _type_problem(path, values[key], reference[key])
        if problem:
            raise UserError(f"{path}: {problem}")
        with into.ignore_type():
            into[key] = _coerce(values[key], reference[key])


def _parse(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False}.get(text.lower(), text)


def _type_problem(path: str, value: Any, expected: Any) -> str:
    """Empty when `value` fits the type of the default, else what is wrong."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and not math.isfinite(value):
        return f"expected a finite number, got {value}."
    if any(path == key or path.endswith("." + key) for key in AUTO_NUMBERS):
        fits, wanted = number or value == AUTO, f"a number or '{AUTO}'"
    elif isinstance(expected, bool):
        fits, wanted = isinstance(value, bool), "True or False"
    elif isinstance(expected, int):
        fits, wanted = number and float(value).is_integer(), "a whole number"
    elif isinstance(expected, float):
        fits, wanted = number, "a number"
    elif isinstance(expected, tuple):
        wanted = f"a tuple like {expected!r}"
        number_items = all(isinstance(item, int | float) for item in expected)
        fits = isinstance(value, tuple | list) and all(
            isinstance(item, int | float) and not isinstance(item, bool) if number_items else isinstance(item, str)
            for item in value
        )
    else:
        fits, wanted = isinstance(value, str), "a text"
    return "" if fits else f"expected {wanted}, got {value!r} ({type(value).__name__})."


def _coerce(value: Any, expected: Any) -> Any:
    if isinstance(expected, tuple):
        return tuple(value)
    if isinstance(expected, float) and not isinstance(value, str):
        return float(value)
    if isinstance(expected, int) and not isinstance(expected, bool):
        return int(value)
    return float(value) if expected == AUTO and isinstance(value, int) else value


def _check(config: ConfigDict) -> None:
    for path, value in flatten(as_dict(config)).items():
        for key, choices in CHOICES.items():
            if (path == key or path.endswith("." + key)) and value not in choices:
                raise UserError(f"{path}: {value!r} is not one of them.{did_you_mean(str(value), choices)}")
        for key, (least, most) in RANGES.items():
            if (path == key or path.endswith("." + key)) and value != AUTO and not least <= value <= most:
                raise UserError(f"{path}: expected {least} to {most}, got {value}.")
        if path.endswith(".schedule") and ".objective." in path and value not in methods.SCHEDULES:
            raise UserError(f"{path}: {value!r} is not one of them.{did_you_mean(str(value), methods.SCHEDULES)}")
    if not config.students:
        raise UserError("students: there is none. Name at least one, as in config.students = {'kd': {...}}.")
    if not config.seeds or len(set(config.seeds)) < len(config.seeds):
        raise UserError(f"seeds: expected one or more different whole numbers, got {config.seeds}.")
    if any(not float(seed).is_integer() or not 0 <= seed < 2**31 for seed in config.seeds):
        raise UserError(f"seeds: expected whole numbers from 0 to 2**31 - 1, got {config.seeds}.")
    _check_data(config)
    _check_network(config.teacher, "teacher")
    for name, student in config.students.items():
        _check_network(student, f"students.{name}")
        _check_student(config, name, student)
    for key in ("cards_student", "reference"):
        name = config.report[key]
        if name != AUTO and name not in config.students:
            raise UserError(f"report.{key}: there is no student '{name}'.{did_you_mean(name, config.students)}")


def _check_data(config: ConfigDict) -> None:
    data, graph = config.data, config.graph
    source = data.source
    if source not in ("digits", "images", "npz") and not re.fullmatch(r"tfds:[\w./:-]+", source):
        raise UserError(f"data.source: {source!r} is not one of them.{did_you_mean(source, ['digits', 'images', 'npz', 'tfds:NAME'])}")
    if source in ("images", "npz") and not data.path:
        raise UserError(f"data.path: data.source = '{source}' needs one, as in --config.data.path=FOLDER.")
    if data.labels and data.pool and data.labels > data.pool:
        raise UserError(f"data.labels: {data.labels} labels do not fit in a pool of {data.pool}.")
    if (data.noise == "none") != (data.noise_rate == 0):
        raise UserError(f"data.noise_rate: {data.noise_rate} does not go with data.noise = '{data.noise}'.")
    if len(data.mean) != len(data.std) or not all(value > 0 for value in data.std):
        raise UserError(f"data.std: expected {len(data.mean)} positive numbers, one a channel, got {data.std}.")
    if graph.diagnosis == "folds" and (config.teacher.fn or config.teacher.weights):
        raise UserError("graph.diagnosis: 'folds' trains fold teachers, but the teacher is loaded. Use 'holdout' or 'none'.")
    if config.teacher.fn and config.teacher.weights:
        raise UserError("teacher: set fn or weights, not both.")
    if graph.diagnosis == "holdout" and not data.val:
        raise UserError("graph.diagnosis: 'holdout' needs a validation split; set data.val above 0, or use 'folds'.")
    if not graph.views or len(set(graph.views)) < len(graph.views):
        raise UserError(f"graph.views: expected one or more different views, got {graph.views}.")
    for view in graph.views:
        if view not in ("teacher", "input", *graph.files):
            known = ["teacher", "input", *graph.files]
            raise UserError(f"graph.views: unknown view '{view}'.{did_you_mean(view, known)} A file view is named in graph.files.")


def _check_network(network: ConfigDict, where: str) -> None:
    train = network.train
    if not train.steps and not train.epochs:
        raise UserError(f"{where}.train: set steps or epochs above 0.")
    if train.batch % train.accumulate:
        raise UserError(f"{where}.train.accumulate: {train.batch} samples cannot be cut into {train.accumulate} equal parts.")
    if train.augment.mixup and train.augment.cutmix:
        raise UserError(f"{where}.train.augment: set mixup or cutmix, not both.")
    bounds = train.optimizer.boundaries
    if list(bounds) != sorted(bounds) or not all(0 < bound < 1 for bound in bounds):
        raise UserError(f"{where}.train.optimizer.boundaries: expected rising shares between 0 and 1, got {bounds}.")


def _check_student(config: ConfigDict, name: str, student: ConfigDict) -> None:
    where = f"students.{name}"
    terms, graph = student.objective, student.graph
    if not any(term.weight for term in terms.values()):
        raise UserError(f"{where}.objective: no term has a weight. Name one, as in {{'kd': {{'weight': 1.0}}}}.")
    if graph.edges != "none" and "joined_beliefs" not in terms and student.sampling.by != "facility_location":
        if "projection" not in terms and "relation_matching" not in terms:
            raise UserError(f"{where}.graph.edges: '{graph.edges}', but no objective term uses edges. Add joined_beliefs.")
    if graph.edges == "none" and ("joined_beliefs" in terms or student.sampling.by == "facility_location"):
        raise UserError(f"{where}.graph.edges: 'none', but joined_beliefs or facility_location needs edges. Use 'real'.")
    if graph.view not in (AUTO, "mean", *config.graph.views):
        known = [AUTO, "mean", *config.graph.views]
        raise UserError(f"{where}.graph.view: the graph has no view '{graph.view}'.{did_you_mean(graph.view, known)}")
    smoothing = terms.get("label_smoothing", {}).get("smoothing", 0.0)
    chosen = "joined_beliefs" in terms and AUTO in (graph.view, graph.strength, graph.mix)
    if config.graph.diagnosis == "none" and (chosen or smoothing == AUTO):
        raise UserError(f"{where}: '{AUTO}' is picked by the diagnosis, but graph.diagnosis is 'none'. Give values.")
    if student.sampling.by == "facility_location" and graph.view == AUTO and config.graph.diagnosis == "none":
        raise UserError(f"{where}.graph.view: '{AUTO}' is picked by the diagnosis, but graph.diagnosis is 'none'.")
