"""Where networks come from: tokenizers and Hugging Face folders, Darknet files, and where training starts."""

import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jkd import digest, random
from jkd.data import Source, tokens
from jkd.data.text_inputs import Texts
from jkd.errors import Notice, UserError, some
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
    if place:
        tokenizer = tokens.load(hub.resolve(place))
    else:
        tokenizer = tokens.train(train.texts(np.arange(len(train))), data.vocabulary)  # type: ignore[attr-defined]
    near = _near(teacher, tokenizer) if teacher else None
    return Texts(tokenizer, data.max_length, tuple(data.buckets), near)


def _near(teacher: ConfigDict, tokenizer: tokens.Tokenizer) -> np.ndarray:
    from jkd.graph.token_neighbours import token_neighbours

    folder = folder_of(teacher)
    if not folder:
        raise UserError("train.augment.replace: needs a word table that is there before training; set teacher.init.")
    module = of_folder(folder, teacher, 2)
    loaded = bert.load(hub.resolve(folder), module, random.key("init", 0))
    table = np.asarray(loaded.variables["params"]["word"]["embedding"])
    if len(table) < tokenizer.size:
        raise UserError(
            f"train.augment.replace: {tokenizer.size} tokens, but the teacher's word table has {len(table)} rows."
        )
    return token_neighbours(table[: tokenizer.size], NEAR, tokenizer.reserved)


def start_of(
    network: ConfigDict, module: Any, teacher: tuple[Any, PyTree] | None, kept: Sequence[int] | None = None
) -> Start | None:
    """Where training starts, if not where the key stream says.

    Args:
      network: the config of a teacher or a student.
      module: its module.
      teacher: the teacher's module and variables, for a student.
      kept: the teacher's id of each of the student's words (`kept_words`); None where both have the same.
    """
    if not network.init:
        return None
    if network.init == TEACHER:
        if teacher is None or not isinstance(teacher[0], Bert) or not isinstance(module, Bert):
            raise UserError("init: 'teacher' is for a bert that is cut out of a bert teacher.")
        old, variables = teacher
        return lambda fresh, run: shrink.start(old, variables, module, fresh(), _layers(network.init_layers), kept)
    if isinstance(module, Yolo):
        return _from_darknet(network, module)
    if not isinstance(module, Bert):
        raise UserError(f"init: '{network.init}' holds a bert, but the model is '{network.model}'.")
    folder = hub.resolve(network.init)

    def loaded(fresh: Drawn, run: Any) -> PyTree:
        key = random.subkey(random.key("init", run.seed, run.replicate), 2)
        return jax.tree.map(np.asarray, bert.load(folder, module, key).variables)

    return loaded


def kept_words(own: tokens.Tokenizer, theirs: tokens.Tokenizer) -> list[int]:
    """The teacher's id of each of a student's words: of all of them, or of those that a smaller vocabulary holds.

    Raises:
      UserError: the student has words that the teacher has not.
    """
    if own.fingerprint == theirs.fingerprint:
        return list(range(own.size))
    ids = {word: number for number, word in enumerate(theirs.strings(range(theirs.size)))}
    words = own.strings(range(own.size))
    if new := [word for word in words if word not in ids]:
        raise UserError(
            f"init: {len(new)} of the student's {len(words)} words are none of the teacher's, out of which it is cut: "
            f"{some(new)}. Take them out of the student's tokenizer, or set init to ''."
        )
    return [ids[word] for word in words]


def in_order(variables: PyTree, names: Sequence[str], classes: Sequence[str], where: str) -> PyTree:
    """A classifier's variables with its classes in the order of the data's, told apart by name.

    Where they have other names altogether, such as `LABEL_0`, they are taken to be in the data's order; a notice says
    so where they look like names.

    Args:
      variables: with a dense layer `classifier`.
      names: of the classifier's classes in its order; empty where nobody gave any.
      classes: of the data.
      where: names the weights in messages.

    Raises:
      UserError: some of the names are of the data's classes, and others are not.
    """
    plain, wanted = ([name.strip().casefold() for name in each] for each in (names, classes))
    if not plain or plain == wanted:
        return variables
    if sorted(plain) == sorted(wanted) and len(set(plain)) == len(plain):
        order = np.array([plain.index(name) for name in wanted])
        head = {part: value[..., order] for part, value in variables["params"]["classifier"].items()}
        return variables | {"params": variables["params"] | {"classifier": head}}
    if set(plain) & set(wanted):
        raise UserError(
            f"{where} tells {some(names)} apart, in this order, and the data {some(classes)}. Give the data's classes "
            "in that order by data.classes, or name them alike."
        )
    if not all(re.fullmatch(r"label_\d+", name) for name in plain):
        told = f"{where} calls its classes {some(names)}: taken to be {some(classes)}, in this order."
        warnings.warn(told, Notice, stacklevel=2)
    return variables


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
