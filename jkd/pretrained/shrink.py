"""A smaller BERT out of a larger one: where a student starts.

Pure functions from variables to variables; none changes what it is given. Each is one cut: `take_layers` (depth),
`narrow` (width, heads, feed-forward units), `factorise` (the word table into two), `keep_words` and `keep_positions`
(rows of tables). `start` makes all of them, for two modules. Only `take_layers` by itself, `keep_words` for kept
words, `keep_positions`, and `factorise` at full rank leave what a network computes as it was.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jkd import digest
from jkd.errors import UserError, some
from jkd.layer_map import layer_map
from jkd.models.bert import Bert

Variables = dict[str, Any]
GRID = 2.0**16  # projections are rounded to multiples of 1 / GRID: see `principal_directions`


def start(
    old: Bert,
    variables: Variables,
    new: Bert,
    fresh: Variables,
    layers: str | Sequence[int] = "uniform",
    kept: Sequence[int] | None = None,
) -> Variables:
    """Variables of `new` cut out of those of `old`: depth, words, positions, width, and the word table's rank.

    The classifier is taken where classes and pooling are the same, and otherwise stays as in `fresh`; likewise a
    pooler that `variables` lack.

    Args:
      old, variables: the teacher's.
      new, fresh: the student's, as `new.init` draws them.
      layers: as for `layers_of`.
      kept: the teacher's id of each of the student's words; None where both have the same words.

    Raises:
      UserError: something is to grow, or the students' words are others and `kept` is missing.
    """
    if old.activation != new.activation:
        raise UserError(f"activation: '{new.activation}' for a student of a teacher with '{old.activation}'. Set that.")
    cut = take_layers(variables, layers_of(old.depth, new.depth, layers))
    pad = old.pad
    if kept is not None:
        cut, pad = keep_words(cut, kept, old.pad)
    words = cut["params"]["word"]["embedding"].shape[0]
    if (words, pad) != (new.vocab, new.pad):
        raise UserError(
            f"vocabulary: {words} words with padding {pad} for a student of {new.vocab} with {new.pad}. Give the ids "
            "to keep, or the student a tokenizer of the teacher's words."
        )
    cut = keep_positions(cut, new.positions)
    if (new.width, new.heads, new.feed_forward) != (old.width, old.heads, old.feed_forward):
        cut = narrow(cut, old, new.width, new.heads, new.feed_forward)
    if new.embedding_width and not old.embedding_width:
        cut = factorise(cut, new.embedding_width)
    given = dict(cut["params"])
    given["type"] = {"embedding": given["type"]["embedding"][: new.types]}
    if (old.classes, old.pooling) != (new.classes, new.pooling):
        given.pop("classifier", None)
    return _fitted(given, fresh)


def _fitted(given: Variables, fresh: Variables) -> Variables:
    """`fresh` with all that is given; a shape that does not fit is a `UserError`."""
    params = {name: given.get(name, leaf) for name, leaf in fresh["params"].items()}
    wanted, made = (
        {name: list(np.shape(leaf)) for name, leaf in digest.flatten(tree).items()}
        for tree in (fresh["params"], params)
    )
    wrong = [
        f"{name} {made.get(name)} for {wanted.get(name)}"
        for name in sorted(wanted | made)
        if made.get(name) != wanted.get(name)
    ]
    if wrong:
        raise UserError(f"a student that does not fit in its teacher: {some(wrong)}.")
    return fresh | {"params": params}


def layers_of(teacher: int, student: int, choice: str | Sequence[int]) -> tuple[int, ...]:
    """Which of `teacher` layers the `student` ones are taken from, from 0, by choice.

    `uniform`: as `jkd.layer_map` has it (TinyBERT's, Jiao et al. 2020, arXiv:1909.10351), so that a student's layers
    learn from those that they come from; `first`; `last`; or the numbers themselves, rising.

    Raises:
      UserError: more layers than there are, or numbers that are not rising, or not of layers.
    """
    if student > teacher:
        raise UserError(f"layers: a student of {student} layers cannot be taken from {teacher}.")
    if choice == "uniform":
        return tuple(layer for _, layer in layer_map("uniform", student, teacher))
    if choice == "first":
        return tuple(range(student))
    if choice == "last":
        return tuple(range(teacher - student, teacher))
    layers = () if isinstance(choice, str) else tuple(choice)
    rising = all(a < b for a, b in itertools.pairwise(layers))
    if len(layers) != student or not rising or layers[0] < 0 or layers[-1] >= teacher:
        raise UserError(
            f"layers: {choice!r}; expected 'uniform', 'first', 'last', or {student} rising numbers from 0 to "
            f"{teacher - 1}."
        )
    return layers


def take_layers(variables: Variables, layers: Sequence[int]) -> Variables:
    """Blocks `layers`, renumbered from 0, and everything that is no block."""
    params = variables["params"]
    missing = sorted({str(layer) for layer in layers if f"layer{layer}_query" not in params})
    if missing:
        raise UserError(f"layers: there is no layer {some(missing)} to take.")
    kept = {name: value for name, value in params.items() if not _layer(name)[0]}
    for new, old in enumerate(layers):
        kept |= {
            f"layer{new}_{_layer(name)[1]}": value for name, value in params.items() if _layer(name)[0] == str(old)
        }
    return variables | {"params": kept}


def factorise(variables: Variables, rank: int) -> Variables:
    """The word table `[V, D]` as `[V, rank]` times `[rank, D]`: its truncated singular value decomposition.

    By Eckart and Young (1936) no two matrices of these shapes come nearer. Rows of the projection are orthonormal,
    so that word vectors keep their lengths up to what is cut off.
    """
    table = _table(variables, "word")
    directions = principal_directions(table, rank)
    changed = {"word": {"embedding": _f32(table @ directions)}, "projection": {"kernel": _f32(directions.T)}}
    return variables | {"params": variables["params"] | changed}


def narrow_table(variables: Variables, width: int) -> Float[jnp.ndarray, "v w"]:
    """The word table in its `width` principal directions, `[V, width]`: inner products of words as near as can be.

    For students whose other layers do not come from the teacher, such as a `bigru`.
    """
    table = _table(variables, "word")
    return _f32(table @ principal_directions(table, width))


def principal_directions(table: np.ndarray, rank: int) -> np.ndarray:
    """The first `rank` right singular vectors of `[V, D]`, float64 `[D, rank]`; of each, the largest entry is positive.

    They are rounded to multiples of 2^-16: the last bits depend on how many threads linear algebra ran on, and
    rounding hides that from all but a few in a million entries, so that a student starts alike anywhere.
    """
    most = min(table.shape)
    if not 1 <= rank <= most:
        raise UserError(
            f"embedding_width: {rank} directions of a word table {list(table.shape)}; expected 1 to {most}."
        )
    _, vectors = np.linalg.eigh(table.T @ table)
    chosen = vectors[:, ::-1][:, :rank]
    largest = np.take_along_axis(chosen, np.abs(chosen).argmax(0)[None], 0)
    return np.round(chosen * np.where(largest < 0, -1.0, 1.0) * GRID) / GRID


def keep_words(variables: Variables, kept: Sequence[int], pad: int = 0) -> tuple[Variables, int]:
    """The word table's rows `kept`: id i of the result is id kept[i] of before. Also returns where `pad` went.

    Raises:
      UserError: ids that are not there or come twice, or without `pad`.
    """
    table, rows = variables["params"]["word"]["embedding"], np.asarray(kept, np.int64)
    wrong = [str(row) for row in rows if not 0 <= row < table.shape[0]]
    if wrong or len(set(rows.tolist())) < len(rows) or pad not in rows:
        raise UserError(
            f"vocabulary: {len(rows)} ids to keep; expected each once, from 0 to {table.shape[0] - 1}, and the padding "
            f"{pad} among them. Out of range: [{some(wrong)}]."
        )
    params = variables["params"] | {"word": {"embedding": table[rows]}}
    return variables | {"params": params}, int(np.flatnonzero(rows == pad)[0])


def keep_positions(variables: Variables, positions: int) -> Variables:
    """The first `positions` rows of the position table."""
    table = variables["params"]["position"]["embedding"]
    if not 1 <= positions <= table.shape[0]:
        raise UserError(f"positions: {positions} of a table of {table.shape[0]}; expected 1 to {table.shape[0]}.")
    return variables | {"params": variables["params"] | {"position": {"embedding": table[:positions]}}}


def narrow(variables: Variables, old: Bert, width: int, heads: int, feed_forward: int) -> Variables:
    """Fewer coordinates, heads and feed-forward units, by what the weights say of their size.

    The rule, magnitudes being Euclidean norms, ties going to the lower index, and order being kept:
      coordinates of the residual stream: those with the largest product of their deviation over the word table and
        the scale of the LayerNorm after it. A coordinate stays itself throughout the network, since a LayerNorm does
        not survive a rotation;
      heads of a block: those with the largest product of the norms of their value and output kernels;
      units of a head: query and key those with the largest product of both norms, value those with the largest
        product with the output. Queries are scaled by sqrt(d_new / d_old), so that each product that stays counts in
        the scores as much as before;
      feed-forward units: those with the largest product of the norms of what they read and what they write.
    Factorised tables keep the rank of their projection.

    Args:
      variables: of `old`, or of that with fewer layers, words or positions.
      width, heads, feed_forward: of the new module.

    Raises:
      UserError: something is to grow, or `heads` do not divide `width`.
    """
    for name, value in (("width", width), ("heads", heads), ("feed_forward", feed_forward)):
        if not 1 <= value <= getattr(old, name):
            raise UserError(f"{name}: {value} cannot be cut out of {getattr(old, name)}.")
    if width % heads or width // heads > old.width // old.heads:
        raise UserError(
            f"heads: {heads} of {width} / {heads} units cannot be cut out of {old.heads} of {old.width // old.heads}."
        )
    params = variables["params"]
    stream = _largest(_word_spread(params), width)
    made: Variables = {}
    for name in params:
        if name == "word" and "projection" in params:
            made[name] = params[name]  # its columns are no coordinates of the stream
        elif not _layer(name)[0]:
            made[name] = _narrow_outer(name, params[name], stream)
    for layer in sorted({_layer(name)[0] for name in params} - {""}, key=int):
        parts = {_layer(name)[1]: value for name, value in params.items() if _layer(name)[0] == layer}
        cut = _narrow_block(parts, old, stream, width, heads, feed_forward)
        made |= {f"layer{layer}_{part}": value for part, value in cut.items()}
    return variables | {"params": made}


def _narrow_outer(name: str, leaf: dict[str, Any], stream: np.ndarray) -> dict[str, Any]:
    """What is outside the blocks; there stay as many logits."""
    if name == "classifier":
        return {"kernel": leaf["kernel"][stream], "bias": leaf["bias"]}
    if name == "pooler":
        return {"kernel": leaf["kernel"][np.ix_(stream, stream)], "bias": leaf["bias"][stream]}
    return {part: value[..., stream] for part, value in leaf.items()}


def _narrow_block(
    parts: dict[str, Any], old: Bert, stream: np.ndarray, width: int, heads: int, feed_forward: int
) -> dict[str, Any]:
    match, carry = _head_units(parts, old, width, heads)
    units = _largest(_norms(parts["intermediate"]["kernel"], 0) * _norms(parts["output"]["kernel"], 1), feed_forward)
    rows = {"attention_output": carry, "output": units}
    columns = {"query": match, "key": match, "value": carry, "intermediate": units}
    scale = np.float32(np.sqrt((width // heads) / (old.width // old.heads)))
    made: Variables = {}
    for name, leaf in parts.items():
        if "scale" in leaf:
            made[name] = {part: value[stream] for part, value in leaf.items()}
            continue
        reads, writes = rows.get(name, stream), columns.get(name, stream)
        times = scale if name == "query" else np.float32(1)
        made[name] = {"kernel": leaf["kernel"][np.ix_(reads, writes)] * times, "bias": leaf["bias"][writes] * times}
    return made


def _head_units(parts: dict[str, Any], old: Bert, width: int, heads: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of the old units queries and keys keep, and which values keep."""
    each = old.width // old.heads
    norms = {name: _norms(parts[name]["kernel"], 0).reshape(old.heads, each) for name in ("query", "key", "value")}
    out = _norms(parts["attention_output"]["kernel"], 1).reshape(old.heads, each)
    chosen = _largest(np.sqrt((norms["value"] ** 2).sum(1)) * np.sqrt((out**2).sum(1)), heads)
    match, carry = norms["query"] * norms["key"], norms["value"] * out
    kept = [
        np.concatenate([head * each + _largest(scores[head], width // heads) for head in chosen])
        for scores in (match, carry)
    ]
    return kept[0], kept[1]


def _word_spread(params: dict[str, Any]) -> np.ndarray:
    table = _table({"params": params}, "word")
    if "projection" in params:
        table = table @ np.asarray(params["projection"]["kernel"], np.float64)
    return table.std(0) * np.abs(np.asarray(params["embedding_norm"]["scale"], np.float64))


def _largest(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` largest, rising."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def _norms(kernel: Any, axis: int) -> np.ndarray:
    return np.sqrt((np.asarray(kernel, np.float64) ** 2).sum(axis))


def _layer(name: str) -> tuple[str, str]:
    """`layer3_query` as ("3", "query"); ("", name) for what is in no block."""
    head, _, part = name.partition("_")
    number = head.removeprefix("layer")
    return (number, part) if head.startswith("layer") and number.isdigit() else ("", name)


def _table(variables: Variables, name: str) -> np.ndarray:
    return np.asarray(variables["params"][name]["embedding"], np.float64)


def _f32(array: np.ndarray) -> Float[jnp.ndarray, "a b"]:
    return jnp.asarray(array.astype(np.float32))
