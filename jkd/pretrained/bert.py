"""Hugging Face BERT folders, `config.json` and safetensors, to `jkd.models.bert` and back.

    module = bert.module_of(folder, classes=6)
    loaded = bert.load(folder, module, random.key("init", 0))
    bert.save("out", loaded.variables, module, {0: "ABBR", 1: "DESC", ...})

`transformers` opens what `save` writes. Torch keeps dense kernels transposed, `[out, in]`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jkd import digest, files, places
from jkd.errors import UserError, did_you_mean, some
from jkd.models.bert import ACTIVATIONS, POOLINGS, Bert, kernel_init
from jkd.pretrained.shards import WEIGHTS, Shards, opened_folder, read_object, weight_files
from jkd.pretrained.tensors import FLOATS, nested

CONFIG = "config.json"
PREFIX = "bert."
OPTIONAL = ("pooler", "classifier")  # drawn anew where a file has none, or none that fits
# Left aside: heads of pretraining and question answering, 0, 1, 2, ... and zeros as some versions keep them.
ASIDE = ("cls.", "qa_outputs.", "pooler.dense.", "classifier.", "embeddings.position_ids", "embeddings.token_type_ids")
WANTED = {
    "model_type": "bert",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}
WORD, PROJECTION = "params/word/embedding", "params/projection/kernel"
OLD_NAMES = {".LayerNorm.gamma": ".LayerNorm.weight", ".LayerNorm.beta": ".LayerNorm.bias"}
SAME_ACTIVATION = {"gelu_pytorch_tanh": "gelu_new", "gelu_fast": "gelu_new"}
# config.json key -> field, and the largest that is believed: a lie must not take memory or an hour.
SIZES = {
    "vocab_size": ("vocab", 2**24),
    "hidden_size": ("width", 2**16),
    "num_hidden_layers": ("depth", 1024),
    "num_attention_heads": ("heads", 2**12),
    "intermediate_size": ("feed_forward", 2**18),
    "max_position_embeddings": ("positions", 2**17),
    "type_vocab_size": ("types", 2**10),
}


class Loaded(NamedTuple):
    """What a folder gave.

    Attributes:
      variables: `{"params": ...}`, float32, as `module.init` would give.
      fresh: leaves that the folder lacks, drawn from the key: of `pooler` or `classifier`.
      unused: tensors left aside: heads of other tasks, position ids, a classifier or pooler that does not fit.
      digest: SHA-256 over the files that were read.
    """

    variables: dict[str, Any]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]
    digest: str


class _Leaf(NamedTuple):
    name: str  # without the prefix
    shape: tuple[int, ...]  # in torch's order
    turned: bool  # whether torch has it transposed


def module_of(
    folder: str | places.Path,
    classes: int,
    pooling: str | None = None,
    dropout: float | None = None,
    dtype: Any = jnp.float32,
) -> Bert:
    """The module that a folder's `config.json` describes, with `classes` logits.

    Args:
      pooling: `cls` or `mean`; None takes what `save` wrote there, and `cls` for any other folder.
      dropout: None takes `hidden_dropout_prob`; attention dropout is the same here.

    Raises:
      UserError: naming the key that is missing, of a wrong kind or too large, or what is not supported.
    """
    path = places.path_of(folder) / CONFIG
    config = read_object(path)
    _check_kind(path, config)
    sizes: dict[str, Any] = {field: _whole(path, config, key, most) for key, (field, most) in SIZES.items()}
    activation = config.get("hidden_act", "gelu")
    activation = SAME_ACTIVATION.get(str(activation), str(activation))
    if activation not in ACTIVATIONS:
        raise UserError(f"{path}: hidden_act is '{activation}'.{did_you_mean(activation, ACTIVATIONS)}")
    if sizes["width"] % sizes["heads"]:
        raise UserError(
            f"{path}: hidden_size {sizes['width']} is not a multiple of num_attention_heads {sizes['heads']}."
        )
    rate = _real(path, config, "hidden_dropout_prob", 0.1) if dropout is None else dropout
    return Bert(
        classes=classes,
        **sizes,
        activation=activation,
        layer_norm_eps=_real(path, config, "layer_norm_eps", 1e-12),
        pooling=_saved_pooling(path, config) if pooling is None else pooling,
        dropout=rate,
        pad=_pad(path, config, sizes["vocab"]),
        dtype=jnp.dtype(dtype),
    )


def labels_of(folder: str | places.Path) -> tuple[str, ...]:
    """The names of a folder's classes by `id2label`, in the order of its logits; empty where it gives none.

    Raises:
      UserError: it gives something else than names by number.
    """
    path = places.path_of(folder) / CONFIG
    given = read_object(path).get("id2label") or {}
    numbers = {str(number) for number in range(len(given))}
    if not isinstance(given, dict) or set(given) != numbers or not all(isinstance(n, str) for n in given.values()):
        raise UserError(f"{path}: id2label is {str(given)[:200]}; expected a name for each of '0', '1', and so on.")
    return tuple(given[str(number)] for number in range(len(given)))


def load(folder: str | places.Path, module: Bert, key: Key[Array, ""]) -> Loaded:
    """Reads the variables of `module` from a folder.

    Names may have the prefix `bert.` or not, LayerNorms may be called as TensorFlow does (`gamma`, `beta`), and
    weights may be float32, float16 or bfloat16. `classifier.*` is taken where its shape and the folder's pooling
    are the module's.

    Args:
      module: of `module_of`, or one of the same sizes. Its word table is not factorised.
      key: draws the pooler and the classifier where the folder has none.

    Raises:
      UserError: listing every tensor that is missing, not known, there twice, or of a shape or type that does not
        fit; or naming the one that holds NaN or infinity; or saying why the files cannot be read.
    """
    if module.embedding_width:
        raise UserError(
            f"{folder}: a Hugging Face folder has no factorised word table. Load it with embedding_width = 0, then "
            "factorise it (jkd.pretrained.shrink.factorise)."
        )
    folder = places.path_of(folder)
    config = read_object(folder / CONFIG)
    same_pooling = _saved_pooling(folder / CONFIG, config) == module.pooling
    with opened_folder(folder) as tensors:
        names, problems = _plain_names(tensors)
        expected = dict(leaves_of(module))
        taken = {
            path: leaf for path, leaf in expected.items() if _is_given(tensors, names, path, expected, same_pooling)
        }
        problems += _mismatches(tensors, names, taken)
        if problems:
            raise UserError(
                f"{tensors.path} does not fit this bert, of which {len(expected)} tensors are expected. Check that it "
                f"belongs to {folder / CONFIG}. It has\n  " + "\n  ".join(problems)
            )
        flat = {path: _turned(tensors.read(names[leaf.name]), leaf) for path, leaf in taken.items()}
    fresh = {path: _drawn(path, leaf, key) for path, leaf in expected.items() if path not in taken}
    used = {leaf.name for leaf in taken.values()}
    unused = tuple(sorted(full for name, full in names.items() if name not in used))
    made = digest.of_json({name: digest.of_file(folder / name) for name in (CONFIG, *weight_files(folder))})
    variables = nested({path: jnp.asarray(array) for path, array in (flat | fresh).items()}, str(folder))
    return Loaded(variables, tuple(sorted(fresh)), unused, made)


def save(
    folder: str | places.Path, variables: dict[str, Any], module: Bert, id2label: Mapping[int, str] | None = None
) -> None:
    """Writes `config.json` and `model.safetensors`, float32, as `transformers` reads them.

    With `pooling="cls"` they open as `BertForSequenceClassification` and `BertModel`; with "mean" as `BertModel`,
    whose pooler is then nobody's: the classifier is in the file, but `transformers` has no such head. `load` gives
    equal variables back. A factorised word table is written multiplied out, which is the same function.

    Args:
      id2label: class index to name; None numbers them.

    Raises:
      UserError: variables of another module, or names for other classes.
    """
    leaves, flat = dict(leaves_of(module)), digest.flatten(variables)
    written = {path: np.asarray(array, np.float32) for path, array in flat.items()}
    if module.embedding_width and PROJECTION in flat:
        written[WORD] = written[WORD] @ written.pop(PROJECTION)
    odd = sorted(set(leaves) ^ set(written)) or [
        path for path, leaf in leaves.items() if _turned(written[path], leaf).shape != leaf.shape
    ]
    names = dict(id2label) if id2label else {index: f"LABEL_{index}" for index in range(module.classes)}
    if odd:
        raise UserError(
            f"cannot write {folder}: variables and module differ in {some(odd)}. Pass the module they are from."
        )
    if sorted(names) != list(range(module.classes)):
        raise UserError(f"cannot write {folder}: id2label has {len(names)} names; expected 0 to {module.classes - 1}.")
    folder = places.path_of(folder)
    arrays = {_full_name(leaf): _turned(written[path], leaf) for path, leaf in leaves.items()}
    files.write_arrays(folder / WEIGHTS, arrays, {"format": "pt"})  # transformers opens no file without
    files.write_json(folder / CONFIG, config_of(module, names))


def _full_name(leaf: _Leaf) -> str:
    return leaf.name if leaf.name.startswith("classifier.") else PREFIX + leaf.name


def config_of(module: Bert, id2label: Mapping[int, str]) -> dict[str, Any]:
    """What `config.json` says of a module."""
    kind = "BertForSequenceClassification" if module.pooling == "cls" else "BertModel"
    return {
        "architectures": [kind],
        "model_type": "bert",
        **{key: getattr(module, field) for key, (field, _) in SIZES.items()},
        "hidden_act": module.activation,
        "hidden_dropout_prob": module.dropout,
        "attention_probs_dropout_prob": module.dropout,
        "layer_norm_eps": module.layer_norm_eps,
        "pad_token_id": module.pad,
        "position_embedding_type": "absolute",
        "id2label": {str(index): id2label[index] for index in sorted(id2label)},
        "label2id": {id2label[index]: index for index in sorted(id2label)},
        "jkd": {"pooling": module.pooling},
    }


def leaves_of(module: Bert) -> Iterator[tuple[str, _Leaf]]:
    """Leaf path -> torch's name, shape and order, for every leaf; a factorised word table as if multiplied out."""
    width, wide = module.width, module.feed_forward
    for path, name, rows in (
        ("word", "word_embeddings", module.vocab),
        ("position", "position_embeddings", module.positions),
        ("type", "token_type_embeddings", module.types),
    ):
        yield f"params/{path}/embedding", _Leaf(f"embeddings.{name}.weight", (rows, width), False)
    yield from _norm("embedding_norm", "embeddings.LayerNorm", width)
    for n in range(module.depth):
        ours, theirs = f"layer{n}", f"encoder.layer.{n}"
        for part in ("query", "key", "value"):
            yield from _dense(f"{ours}_{part}", f"{theirs}.attention.self.{part}", width, width)
        yield from _dense(f"{ours}_attention_output", f"{theirs}.attention.output.dense", width, width)
        yield from _norm(f"{ours}_attention_norm", f"{theirs}.attention.output.LayerNorm", width)
        yield from _dense(f"{ours}_intermediate", f"{theirs}.intermediate.dense", width, wide)
        yield from _dense(f"{ours}_output", f"{theirs}.output.dense", wide, width)
        yield from _norm(f"{ours}_output_norm", f"{theirs}.output.LayerNorm", width)
    if module.pooling == "cls":
        yield from _dense("pooler", "pooler.dense", width, width)
    yield from _dense("classifier", "classifier", width, module.classes)


def _dense(path: str, name: str, inputs: int, outputs: int) -> Iterator[tuple[str, _Leaf]]:
    yield f"params/{path}/kernel", _Leaf(f"{name}.weight", (outputs, inputs), True)
    yield f"params/{path}/bias", _Leaf(f"{name}.bias", (outputs,), False)


def _norm(path: str, name: str, width: int) -> Iterator[tuple[str, _Leaf]]:
    yield f"params/{path}/scale", _Leaf(f"{name}.weight", (width,), False)
    yield f"params/{path}/bias", _Leaf(f"{name}.bias", (width,), False)


def _plain_names(tensors: Shards) -> tuple[dict[str, str], list[str]]:
    """Name as this module spells it -> name in the file; and those that a file has twice, under two spellings."""
    names: dict[str, str] = {}
    twice = []
    for full in sorted(tensors.shapes):
        name = full.removeprefix(PREFIX)
        for old, new in OLD_NAMES.items():
            name = name.removesuffix(old) + new if name.endswith(old) else name
        if name in names:
            twice.append(f"there twice: {names[name]!r} and {full!r}")
        names.setdefault(name, full)
    return names, twice


def _is_given(
    tensors: Shards, names: dict[str, str], path: str, expected: dict[str, _Leaf], same_pooling: bool
) -> bool:
    """Whether a leaf comes from the file: all but a pooler that is not there and a classifier that does not fit."""
    head = path.split("/")[1]
    if head not in OPTIONAL:
        return True
    leaves = [leaf for other, leaf in expected.items() if other.split("/")[1] == head]
    if head == "pooler":
        return any(leaf.name in names for leaf in leaves)
    fits = all(leaf.name in names and tensors.shapes[names[leaf.name]] == leaf.shape for leaf in leaves)
    return fits and same_pooling


def _mismatches(tensors: Shards, names: dict[str, str], taken: dict[str, _Leaf]) -> list[str]:
    problems = []
    for leaf in taken.values():
        full = names.get(leaf.name)
        if full is None:
            problems.append(f"missing: {leaf.name} {list(leaf.shape)}")
            continue
        if tensors.shapes[full] != leaf.shape:
            problems.append(f"wrong shape: {full} is {list(tensors.shapes[full])}, expected {list(leaf.shape)}")
        if tensors.dtypes[full] not in FLOATS:
            problems.append(f"wrong type: {full} is {tensors.dtypes[full]}, expected one of {', '.join(FLOATS)}")
    known = {leaf.name for leaf in taken.values()}
    for name, full in sorted(names.items()):
        if name not in known and not name.startswith(ASIDE):
            problems.append(f"not known: {full!r} {list(tensors.shapes[full])}")
    return problems


def _turned(array: np.ndarray, leaf: _Leaf) -> np.ndarray:
    return array.T if leaf.turned else array


def _drawn(path: str, leaf: _Leaf, key: Key[Array, ""]) -> Array:
    """A leaf as `module.init` draws one, from a key of its own."""
    if not leaf.turned:
        return jnp.zeros(leaf.shape, jnp.float32)
    own = jax.random.fold_in(key, OPTIONAL.index(path.split("/")[1]))
    return kernel_init(own, leaf.shape[::-1], jnp.float32)


def _check_kind(path: places.Path, config: dict[str, Any]) -> None:
    for key, wanted in WANTED.items():
        if config.get(key, wanted) != wanted:
            raise UserError(f"{path}: {key} is {config[key]!r}; expected {wanted!r}, which is what jkd has.")


def _whole(path: places.Path, config: dict[str, Any], key: str, most: int) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise UserError(f"{path}: {key} is {value!r}; expected a whole number from 1 to {most}.")
    return value


def _real(path: places.Path, config: dict[str, Any], key: str, default: float) -> float:
    value = config.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        raise UserError(f"{path}: {key} is {value!r}; expected a number from 0 to below 1.")
    return float(value)


def _pad(path: places.Path, config: dict[str, Any], vocab: int) -> int:
    value = config.get("pad_token_id", 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < vocab:
        raise UserError(f"{path}: pad_token_id is {value!r}; expected a whole number from 0 to {vocab - 1}.")
    return value


def _saved_pooling(path: places.Path, config: dict[str, Any]) -> str:
    own = config.get("jkd", {})
    pooling = own.get("pooling", "cls") if isinstance(own, dict) else None
    if pooling not in POOLINGS:
        raise UserError(f"{path}: jkd is {own!r}; expected {{'pooling': one of {', '.join(POOLINGS)}}}.")
    return pooling
