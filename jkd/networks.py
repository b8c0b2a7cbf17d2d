"""Where networks come from: tokenizers and Hugging Face folders, Darknet files, and where training starts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jkd import digest, random
from jkd.data import Source
from jkd.data.text_inputs import Texts
from jkd.errors import UserError
from jkd.models import Bert
from jkd.models.darknet import Cfg
from jkd.models.scaling import adapted, scaled, with_classes
from jkd.models.yolo import Yolo
from jkd.pretrained import bert, darknet, darknet_weights, hub, shrink
from jkd.train.state import PyTree

SMALL = "small"  # `cfg` of the small detector that jkd brings
TEACHER = "teacher"  # `init` of a student that is cut out of its teacher
NEAR = 8  # tokens that one may be replaced by
Drawn = Callable[[], PyTree]  # the variables as the key stream gives them, drawn when asked for: that takes compiling
Start = Callable[[Drawn, Any], PyTree]  # `(drawn, run) -> variables`


def folder_of(network: ConfigDict) -> str:
    """The folder or address that a bert's sizes, words and weights come from; empty where there is none."""
    if network.model != "bert":
        return ""
    there: str = network.get("weights", "") or network.init
    return "" if there == TEACHER else there


def of_folder(folder: str, network: ConfigDict, classes: int) -> Bert:
    """The module that a folder describes; the config's pooling and dropout."""
    pooling = None if network.pooling == "auto" else network.pooling
    return bert.module_of(hub.resolve(folder), classes, pooling, network.dropout, network.dtype)


def tokenizer_of(network: ConfigDict, teacher: ConfigDict) -> str:
    """Where a network's tokenizer is: its own, its folder's, its teacher's; "" for one made of the training texts."""
    own: str = network.tokenizer or folder_of(network)
    return own or teacher.tokenizer or folder_of(teacher)


def texts(place: str, data: ConfigDict, train: Source, teacher: ConfigDict | None) -> Texts:
    """The inputs of networks that share a tokenizer.

    Args:
      place: of the tokenizer; empty for one made of the texts of `train`.
      data: the config's `data`.
      train: the training source.
      teacher: whose word table says which tokens are near each other; None where nobody asks.
    """
    from jkd.data import tokens

    if place:
        tokenizer = tokens.load(hub.resolve(place))
    else:
        tokenizer = tokens.train(train.texts(np.arange(len(train))), data.vocabulary)  # type: ignore[attr-defined]
    near = _near(teacher, tokenizer.size) if teacher else None
    return Texts(tokenizer, data.max_length, tuple(data.buckets), near)


def _near(teacher: ConfigDict, words: int) -> np.ndarray:
    from jkd.graph.token_neighbours import token_neighbours

    folder = folder_of(teacher)
    if not folder:
        raise UserError("train.augment.replace: needs a word table that is there before training; set teacher.init.")
    module = of_folder(folder, teacher, 2)
    loaded = bert.load(hub.resolve(folder), module, random.key("init", 0))
    table = np.asarray(loaded.variables["params"]["word"]["embedding"])
    if len(table) != words:
        raise UserError(f"train.augment.replace: {words} tokens, but the teacher's word table has {len(table)} rows.")
    return token_neighbours(table, NEAR)


def start_of(network: ConfigDict, module: Any, teacher: tuple[Any, PyTree] | None) -> Start | None:
    """Where training starts, if not where the key stream says.

    Args:
      network: the config of a teacher or a student.
      module: its module.
      teacher: the teacher's module and variables, for a student.
    """
    if not network.init:
        return None
    if network.init == TEACHER:
        if teacher is None or not isinstance(teacher[0], Bert) or not isinstance(module, Bert):
            raise UserError("init: 'teacher' is for a bert that is cut out of a bert teacher.")
        old, variables = teacher
        return lambda fresh, run: shrink.start(old, variables, module, fresh(), _layers(network.init_layers))
    if isinstance(module, Yolo):
        return _from_darknet(network, module)
    if not isinstance(module, Bert):
        raise UserError(f"init: '{network.init}' holds a bert, but the model is '{network.model}'.")
    folder = hub.resolve(network.init)

    def loaded(fresh: Drawn, run: Any) -> PyTree:
        key = random.subkey(random.key("init", run.seed, run.replicate), 2)
        return jax.tree.map(np.asarray, bert.load(folder, module, key).variables)

    return loaded


def yolo_of(network: ConfigDict, classes: int, axis: str | None = None) -> Yolo:
    """The detector that a network's Darknet cfg describes, scaled and for the data's classes."""
    given = network.init or network.get("weights", "")
    for key in ("cfg_width", "cfg_depth"):
        if given and network[key] != 1:
            raise UserError(
                f"{key} = {network[key]:g}: {given} has the weights of the cfg as it is, not of a scaled one. Set init "
                f"to '' or {key} to 1."
            )
    cfg = scaled(_cfg(network), network.cfg_width, network.cfg_depth)
    return Yolo(with_classes(cfg, classes), network.dropout > 0, jnp.dtype(network.dtype), axis)


def yolo_variables(network: ConfigDict, classes: int) -> PyTree:
    """A detector's variables as its `weights` are, for as many classes as the data has."""
    cfg = _cfg(network)
    if {head.classes for head in cfg.heads} != {classes}:
        raise UserError(
            f"teacher.weights: {network.weights} knows {cfg.heads[0].classes} classes, the data {classes}. Fine-tune "
            "it: set teacher.init to it instead."
        )
    return jax.tree.map(np.asarray, darknet_weights.load(network.weights, cfg)[0])


def _cfg(network: ConfigDict) -> Cfg:
    return darknet.small() if network.cfg == SMALL else darknet.load(network.cfg)


def _from_darknet(network: ConfigDict, module: Yolo) -> Start:
    """Weights of the network's cfg; what gives class logits starts anew where the data has other classes."""
    cfg = _cfg(network)
    variables, _ = darknet_weights.load(network.init, cfg)
    classes = module.cfg.heads[0].classes

    def loaded(fresh: Drawn, run: Any) -> PyTree:
        made = variables
        if cfg.heads[0].classes != classes:
            made = adapted(variables, cfg, classes, random.subkey(random.key("init", run.seed, run.replicate), 2))
        return jax.tree.map(np.asarray, made)

    return loaded


def _layers(text: str) -> str | tuple[int, ...]:
    return tuple(int(part) for part in text.split(",")) if text.replace(",", "").isdigit() else text


def made_of(network: ConfigDict) -> dict[str, Any]:
    """Digests of the files that a network comes from, JSON-ready; empty for most."""
    if network.model == "yolo":
        there = [path for path in (network.cfg, network.get("weights", ""), network.init) if path not in ("", SMALL)]
        return {"files": {path: digest.of_file(path) for path in there}} if there else {}
    folder = folder_of(network)
    return {"folder": digest.of_json(hub.digests(hub.resolve(folder)))} if folder else {}
