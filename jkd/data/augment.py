"""Augmentation inside jit, one key per sample: a sample's picture does not depend on the batch it stands in.

Images are already normalised. Each operation draws from `fold_in(sample key, tag)` with the tags below, so
switching one on does not move another's draws. What is off compiles to nothing. No convolution, no loop.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int32, Key, UInt8

# Tags folded into a sample's key (PERMUTE: into the batch's). Numbers are fixed: changing one changes every
# result.
SHIFT, CROP, FLIP, CUTOUT, MIXUP, CUTMIX, WHICH = range(7)
PERMUTE = 2**32 - 1  # no sample has this id, whose key would be the permutation's

Images = Float[Array, "b h w c"]


def normalize(
    pixels: UInt8[Array, "*b c"], mean: Sequence[float], std: Sequence[float], dtype: Any = jnp.float32
) -> Float[Array, "*b c"]:
    """`(pixels / 255 - mean) / std` over the last axis, computed in float32.

    Args:
      pixels: uint8 `[..., C]`.
      mean, std: per channel, or one number for all, of pixels in 0..1.
      dtype: of the result.
    """
    centred = pixels.astype(jnp.float32) / 255 - _per_channel(pixels, mean)
    return (centred / _per_channel(pixels, std)).astype(dtype)


def augment(
    images: Images,
    keys: Key[Array, " b"],
    batch_key: Key[Array, ""],
    settings: Mapping[str, Any],
    pad_value: Sequence[float] = (0.0,),
) -> tuple[Images, Int32[Array, " b"], Float[Array, " b"]]:
    """Shift, pad and crop, flip, cutout, then mixup or CutMix, in this order.

    With both mixup and CutMix on, each sample flips a fair coin between them.

    Args:
      images: `[B, H, W, C]`, normalised, float32 or bfloat16.
      keys: one key per sample, a function of its id and the step (`jkd.random.sample_keys`).
      batch_key: the step's key; it only draws the partners.
      settings: `train.augment`: shift, pad_crop, flip, cutout, mixup, cutmix; all static.
      pad_value: what is shifted in, per channel or one for all: black is `normalize(0, mean, std)`.

    Returns:
      The images in their dtype; `partner` int32 `[B]`, the row that each was mixed with (itself when off);
      `share` float32 `[B]`, the part of a row that is its own. Whoever has labels or beliefs mixes them as
      `share * own + (1 - share) * own[partner]`.
    """
    for tag, reach in ((SHIFT, settings["shift"]), (CROP, settings["pad_crop"])):
        if reach:
            images = jax.vmap(_moved, in_axes=(0, 0, None))(
                _padded(images, reach, pad_value), _tagged(keys, tag), reach
            )
    if settings["flip"]:
        turned = jax.vmap(jax.random.bernoulli)(_tagged(keys, FLIP))
        images = jnp.where(turned[:, None, None, None], images[:, :, ::-1], images)
    if settings["cutout"]:
        hole = jax.vmap(lambda key: _square(key, images.shape[1:3], settings["cutout"]))(_tagged(keys, CUTOUT))
        images = jnp.where(hole[..., None], jnp.zeros((), images.dtype), images)
    return _mixed(images, keys, batch_key, settings["mixup"], settings["cutmix"])


def _padded(images: Images, reach: int, pad_value: Sequence[float]) -> Float[Array, "b hp wp c"]:
    batch, height, width, _ = images.shape
    fill = _per_channel(images, pad_value).astype(images.dtype)
    canvas_shape = (batch, height + 2 * reach, width + 2 * reach, images.shape[3])
    canvas = jnp.broadcast_to(fill, canvas_shape)
    return lax.dynamic_update_slice(canvas, images, (0, reach, reach, 0))


def _moved(padded: Float[Array, "hp wp c"], key: Key[Array, ""], reach: int) -> Float[Array, "h w c"]:
    height, width, channels = padded.shape
    top, left = jax.random.randint(key, (2,), 0, 2 * reach + 1)
    return lax.dynamic_slice(padded, (top, left, 0), (height - 2 * reach, width - 2 * reach, channels))


def _square(key: Key[Array, ""], size: tuple[int, ...], side: int) -> Bool[Array, "h w"]:
    """A square around a random pixel, cut off at the borders (DeVries and Taylor 2017, arXiv 1708.04552)."""
    draws = jax.random.uniform(key, (2,))
    return _inside(draws, size, jnp.full((2,), side, jnp.int32))


def _inside(draws: Float[Array, "2"], size: tuple[int, ...], sides: Int32[Array, "2"]) -> Bool[Array, "h w"]:
    rows, columns = (_within(draws[axis], length, sides[axis]) for axis, length in enumerate(size))
    return rows[:, None] & columns[None, :]


def _within(draw: Float[Array, ""], length: int, side: Int32[Array, ""]) -> Bool[Array, " l"]:
    start = (draw * length).astype(jnp.int32) - side // 2
    at = jnp.arange(length, dtype=jnp.int32)
    return (at >= start) & (at < start + side)


def _mixed(
    images: Images, keys: Key[Array, " b"], batch_key: Key[Array, ""], mixup: float, cutmix: float
) -> tuple[Images, Int32[Array, " b"], Float[Array, " b"]]:
    """Mixup (Zhang et al. 2018, arXiv 1710.09412) and CutMix (Yun et al. 2019, arXiv 1905.04899)."""
    batch = images.shape[0]
    if not mixup and not cutmix:
        return images, jnp.arange(batch, dtype=jnp.int32), jnp.ones((batch,), jnp.float32)
    partner = jax.random.permutation(jax.random.fold_in(batch_key, PERMUTE), jnp.arange(batch, dtype=jnp.int32))
    other = images[partner]
    if cutmix:
        pasted = jax.vmap(lambda key: _box(key, images.shape[1:3], cutmix))(_tagged(keys, CUTMIX))
        cut_images = jnp.where(pasted[..., None], other, images)
        # The share is what is left of the own image, counted in pixels, not the draw the box was made from.
        cut_share = 1 - pasted.mean((1, 2), dtype=jnp.float32)
    if mixup:
        blend_share = jax.vmap(lambda key: jax.random.beta(key, mixup, mixup, dtype=jnp.float32))(_tagged(keys, MIXUP))
        part = blend_share[:, None, None, None]
        blend = (part * images.astype(jnp.float32) + (1 - part) * other.astype(jnp.float32)).astype(images.dtype)
    if mixup and cutmix:
        cut = jax.vmap(jax.random.bernoulli)(_tagged(keys, WHICH))
        return (
            jnp.where(cut[:, None, None, None], cut_images, blend),
            partner,
            jnp.where(cut, cut_share, blend_share),
        )
    return (cut_images, partner, cut_share) if cutmix else (blend, partner, blend_share)


def _box(key: Key[Array, ""], size: tuple[int, ...], alpha: float) -> Bool[Array, "h w"]:
    ratio_key, place_key = jax.random.split(key)
    cut = jnp.sqrt(1 - jax.random.beta(ratio_key, alpha, alpha, dtype=jnp.float32))
    sides = jnp.stack([(cut * length).astype(jnp.int32) for length in size])
    return _inside(jax.random.uniform(place_key, (2,)), size, sides)


def _tagged(keys: Key[Array, " b"], tag: int) -> Key[Array, " b"]:
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, tag)


def _per_channel(like: Array, values: Sequence[float]) -> Float[Array, "*ones c"]:
    """One or C numbers, shaped to broadcast over the last axis of `like` with no rank promoted."""
    channels = like.shape[-1]
    if len(values) not in (1, channels):
        raise ValueError(f"expected 1 or {channels} numbers, one per channel, got {len(values)}")
    row = jnp.broadcast_to(jnp.asarray(tuple(values), jnp.float32), (channels,))
    return row.reshape((1,) * (like.ndim - 1) + (channels,))
