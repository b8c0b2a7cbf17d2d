"""Augmentation of tokenised texts inside jit, one key per sample: shapes stay, padding and special tokens too.

A token's draw is a function of its sample's key, the operation and the token's position alone. So it depends neither on
the batch nor on the length that a text was padded to, and switching one operation on does not move another's draws.
What is off compiles to nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Key

TEXT = 16  # folded into a sample's key; none of the tags of `jkd.data.augment`. Changing it changes every result
DRAWS = ("replace", "which", "mask", "drop")  # so does changing their order; a fifth changes every result too

Ids = Int32[Array, "b l"]


class Vocabulary(NamedTuple):
    """What augmentation knows of a tokenizer.

    Attributes:
      special: ids that stay as they are: start, separator, padding, mask.
      mask: id that a masked token becomes, or -1 where there is none.
      unknown: id that a dropped word may become, or -1.
      padding: id that fills up a text that has become shorter.
    """

    special: tuple[int, ...]
    mask: int = -1
    unknown: int = -1
    padding: int = 0


class Tokens(NamedTuple):
    """An augmented batch.

    Attributes:
      ids: int32 `[B, L]`.
      mask: 1 at a real token, float32 `[B, L]`.
      source: the position that each token had before, int32 `[B, L]`: whatever else a token has (its segment) moves
        with `jnp.take_along_axis(other, source, 1)`. Padding may come from anywhere.
    """

    ids: Ids
    mask: Float[Array, "b l"]
    source: Ids


def augment_tokens(
    ids: Ids,
    mask: Float[Array, "b l"],
    keys: Key[Array, " b"],
    settings: Mapping[str, Any],
    vocabulary: Vocabulary,
    neighbours: Int32[Array, "v k"] | None = None,
) -> Tokens:
    """Replacement by a near token, masking, then word dropout, each of a token with its own probability.

    Args:
      ids: token ids `[B, L]`.
      mask: 1 at a real token, 0 at padding.
      keys: one key per sample, a function of its id and the step (`jkd.random.sample_keys`).
      settings: rates in [0, 1), all static: `replace`, `mask`, `drop`; and `drop_by`, `remove` (the rest moves to the
        left; a text that would lose every token but special ones loses none) or `unknown`.
      vocabulary: the special ids.
      neighbours: for `replace`, the near tokens of each (`jkd.graph.token_neighbours`), -1 where there are fewer; a
        token that has none stays.

    Raises:
      ValueError: a setting that is not one, or an id or a table that it needs is not there.

    References: Jiao et al. 2020, arXiv 1909.10351 (replacement); Devlin et al. 2019, arXiv 1810.04805 (masking); Iyyer
    et al. 2015 (word dropout).
    """
    _check(settings, vocabulary, neighbours)
    eligible = (mask > 0) & ~_among(ids, vocabulary.special)
    draws = _draws(keys, ids.shape[1])
    if settings["replace"]:
        assert neighbours is not None
        chosen = eligible & (draws["replace"] < settings["replace"])
        ids = jnp.where(chosen, _near(ids, draws["which"], neighbours), ids)
    if settings["mask"]:
        masked = eligible & (draws["mask"] < settings["mask"])
        ids = jnp.where(masked, jnp.int32(vocabulary.mask), ids)
    mask, source = mask.astype(jnp.float32), jnp.broadcast_to(jnp.arange(ids.shape[1], dtype=jnp.int32), ids.shape)
    if settings["drop"]:
        dropped = eligible & (draws["drop"] < settings["drop"])
        if settings["drop_by"] == "unknown":
            ids = jnp.where(dropped, jnp.int32(vocabulary.unknown), ids)
        else:
            dropped &= jnp.any(eligible & ~dropped, axis=1, keepdims=True)
            return _removed(ids, mask, dropped, vocabulary.padding)
    return Tokens(ids, mask, source)


def _near(ids: Ids, draws: Float[Array, "b l"], neighbours: Int32[Array, "v k"]) -> Ids:
    """One of each token's neighbours, all equally likely; the token itself where it has none."""
    rows = neighbours[ids]
    count = jnp.sum(rows >= 0, axis=-1, dtype=jnp.int32)
    rank = jnp.floor(draws * count.astype(jnp.float32)).astype(jnp.int32)
    rank = jnp.clip(rank, 0, jnp.maximum(count - 1, 0))
    return jnp.where(count > 0, jnp.take_along_axis(rows, rank[..., None], axis=-1)[..., 0], ids)


def _removed(ids: Ids, mask: Float[Array, "b l"], dropped: Bool[Array, "b l"], padding: int) -> Tokens:
    """Moves what is left of a text to its front."""
    kept = (mask > 0) & ~dropped
    source = jnp.argsort(~kept, axis=1, stable=True).astype(jnp.int32)
    kept = jnp.take_along_axis(kept, source, axis=1)
    ids = jnp.where(kept, jnp.take_along_axis(ids, source, axis=1), jnp.int32(padding))
    return Tokens(ids, kept.astype(jnp.float32), source)


def _draws(keys: Key[Array, " b"], length: int) -> dict[str, Float[Array, "b l"]]:
    """Uniform in [0, 1), one per sample and position for each operation, whether it is on or not.

    Draws lie side by side in the last axis, so that a number's place in the stream does not depend on the length.
    """
    own = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, TEXT)
    draws = jax.vmap(lambda key: jax.random.uniform(key, (length, len(DRAWS)), jnp.float32))(own)
    return {name: draws[..., index] for index, name in enumerate(DRAWS)}


def _among(ids: Ids, special: Sequence[int]) -> Bool[Array, "b l"]:
    found = jnp.zeros(ids.shape, bool)
    for token in special:
        found |= ids == token
    return found


def _check(settings: Mapping[str, Any], vocabulary: Vocabulary, neighbours: Array | None) -> None:
    for name in ("replace", "mask", "drop"):
        if not 0 <= settings[name] < 1:
            raise ValueError(f"augment.{name}: expected a rate in [0, 1), got {settings[name]}")
    if settings["drop_by"] not in ("remove", "unknown"):
        raise ValueError(f"augment.drop_by: expected 'remove' or 'unknown', got {settings['drop_by']!r}")
    if settings["replace"] and neighbours is None:
        raise ValueError("augment.replace: needs a table of near tokens (jkd.graph.token_neighbours)")
    needed = {"mask": settings["mask"], "unknown": settings["drop"] and settings["drop_by"] == "unknown"}
    for name, used in needed.items():
        if used and getattr(vocabulary, name) < 0:
            raise ValueError(f"augment: the tokenizer has no {name} token, which a rate above 0 needs")
