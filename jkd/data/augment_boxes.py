"""Augmentation of images with boxes inside jit: pixels and boxes go through one map, one key per sample.

Images are float32 in 0..1, not yet normalised; boxes xyxy in pixels of them, where a coordinate counts from the left or
upper border (a pixel's centre is at its number + 0.5). A slot whose class is -1 is empty and stays so.

Order: mosaic and crop (together one resampling), flip, colour. Each draws from `fold_in(sample key, tag)`, so switching
one on does not move another's draws. But for mosaic, a sample's picture does not depend on the batch it stands in.
Nothing is meant to be differentiated.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32, Key

# Tags folded into a sample's key. Numbers are fixed (`jkd.data.augment` has 0 to 6): changing one changes every result.
FLIP, CROP, COLOUR, MOSAIC = range(16, 20)
CUT = 0.25  # a mosaic's centre keeps this share of the side away from the border

OFF: Mapping[str, Any] = dict(
    flip=False,  # mirror half of the images left to right
    jitter=0.0,  # each side of the crop window moves by up to this share of the image's side, in or out
    hue=0.0,  # turn of the hue, up to this share of the circle either way
    saturation=1.0,  # factor, up to this or its inverse
    exposure=1.0,  # the same, of the value
    mosaic=0.0,  # share of the samples that become mosaics of four images
    mosaic_scale=(0.5, 1.0),  # sides of a mosaic's images, as shares of the whole
    visible=0.3,  # share of a box's area that must still be there
    least=2.0,  # pixels that each of its sides must still have
    fill=114 / 255,  # what comes in from outside the image
)


class Boxed(NamedTuple):
    """A batch of images with boxes.

    Attributes:
      images: 0..1, `[B, H, W, 3]`.
      boxes: xyxy in pixels, `[B, M, 4]`, 0 in empty slots.
      classes: `[B, M]`, -1 in empty slots.
      object: the number of each object in the source, `[B, M]`, -1 in empty slots.
    """

    images: Float32[Array, "b h w 3"]
    boxes: Float32[Array, "b m 4"]
    classes: Int32[Array, "b m"]
    object: Int32[Array, "b m"]

    @property
    def mask(self) -> Bool[Any, "b m"]:
        """Which slots hold an object."""
        return self.classes >= 0


class _Tiles(NamedTuple):
    """How four images make one: quadrant q (upper left, upper right, lower left, lower right) shows image `row`.

    Attributes:
      row: of the batch, `[B, 4]`.
      scale: pixels made of one of the image's, x and y, `[B, 4, 2]`.
      offset: where the image's upper left corner comes to lie, x and y, `[B, 4, 2]`.
      centre: where the quadrants meet, whole pixels x and y, `[B, 2]`; at the lower right corner where there is
        only one image.
    """

    row: Int32[Array, "b 4"]
    scale: Float32[Array, "b 4 2"]
    offset: Float32[Array, "b 4 2"]
    centre: Float32[Array, "b 2"]


def augment_boxes(
    batch: Boxed,
    keys: Key[Array, " b"],
    settings: Mapping[str, Any],
    annotated: Bool[Array, " b"] | None = None,
) -> Boxed:
    """Mosaic, crop, flip and colour, with boxes that follow.

    A box that is cut by the border of its image, of its quadrant or of the canvas is clipped; it is dropped (an empty
    slot) if less than `visible` of its area or less than `least` pixels of a side are left. Where mosaic is on, the M
    boxes largest in what is left of their area are kept, in that order (ties: the sample's own first, then by slot).

    Args:
      batch: images 0..1 and boxes.
      keys: one per sample, a function of its id and the step.
      settings: what differs from `OFF`; all static.
      annotated: whether all objects of an image are in its boxes; default: of every image. A mosaic is made of images
        of one kind, since objects without boxes would be taught as background in an annotated one.

    Returns:
      The batch with the same shapes and dtypes.
    """
    set_to = dict(OFF) | dict(settings)
    if set_to["mosaic"] or set_to["jitter"]:
        batch = _resampled(batch, keys, set_to, annotated)
    if set_to["flip"]:
        batch = flip(batch, jax.vmap(jax.random.bernoulli)(_tagged(keys, FLIP)))
    if set_to["hue"] or set_to["saturation"] != 1 or set_to["exposure"] != 1:
        batch = batch._replace(images=_coloured(batch.images, keys, set_to))
    return batch


def flip(batch: Boxed, turned: Bool[Array, " b"]) -> Boxed:
    """Mirrors some images left to right, exactly, with their boxes."""
    width = jnp.float32(batch.images.shape[2])
    left, top, right, bottom = jnp.split(batch.boxes, 4, axis=-1)
    mirrored = jnp.concatenate([width - right, top, width - left, bottom], axis=-1)
    mirrored = jnp.where(batch.mask[..., None], mirrored, jnp.zeros_like(mirrored))
    boxes = jnp.where(turned[:, None, None], mirrored, batch.boxes)
    images = jnp.where(turned[:, None, None, None], batch.images[:, :, ::-1], batch.images)
    return batch._replace(images=images, boxes=boxes)


def _resampled(
    batch: Boxed, keys: Key[Array, " b"], set_to: Mapping[str, Any], annotated: Bool[Array, " b"] | None
) -> Boxed:
    count, height, width, _ = batch.images.shape
    size = jnp.asarray([[width, height]], jnp.float32)
    tiles = _window(keys, size, set_to["jitter"])
    if not set_to["mosaic"]:
        images = _sampled(batch.images, tiles, set_to["fill"], mosaic=False)
        boxes, kept, _ = _moved(batch, tiles, size, set_to)
        boxes, kept = boxes[:, : batch.boxes.shape[1]], kept[:, : batch.boxes.shape[1]]
        return Boxed(images, *_only(boxes, batch.classes, batch.object, kept))
    draws = _uniform(keys, MOSAIC, 10)
    made = _mosaic(draws[:, 4:], size, set_to["mosaic_scale"], _partners(draws[:, 1:4], annotated))
    chosen = draws[:, 0] < set_to["mosaic"]
    tiles = jax.tree.map(lambda one, two: jnp.where(_over(chosen, one), one, two), made, tiles)
    images = _sampled(batch.images, tiles, set_to["fill"], mosaic=True)
    boxes, kept, area = _moved(batch, tiles, size, set_to)
    _, best = jax.lax.top_k(jnp.where(kept, area, -jnp.ones_like(area)), batch.boxes.shape[1])
    classes, numbers = (array[tiles.row].reshape(count, -1) for array in (batch.classes, batch.object))
    kept, classes, numbers = (jnp.take_along_axis(array, best, 1) for array in (kept, classes, numbers))
    return Boxed(images, *_only(jnp.take_along_axis(boxes, best[..., None], 1), classes, numbers, kept))


def _only(boxes: Array, classes: Array, numbers: Array, kept: Array) -> tuple[Array, Array, Array]:
    none = -jnp.ones_like(classes)
    return (
        jnp.where(kept[..., None], boxes, jnp.zeros_like(boxes)),
        jnp.where(kept, classes, none),
        jnp.where(kept, numbers, none),
    )


def _window(keys: Key[Array, " b"], size: Float32[Array, "1 2"], jitter: float) -> _Tiles:
    """Tiles that show one image, a window of which fills the canvas: sides in or out by up to `jitter` (Darknet)."""
    count = keys.shape[0]
    moves = (2 * _uniform(keys, CROP, 4) - 1) * jitter if jitter else jnp.zeros((count, 4), jnp.float32)
    first, last = moves[:, :2] * size, size - moves[:, 2:] * size  # [B, 2]
    scale = size / (last - first)
    row = jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32)[:, None], (count, 4))
    spread = [jnp.broadcast_to(each[:, None], (count, 4, 2)) for each in (scale, -first * scale)]
    return _Tiles(row, spread[0], spread[1], jnp.broadcast_to(size, (count, 2)))


def _mosaic(
    draws: Float32[Array, "b 6"],
    size: Float32[Array, "1 2"],
    scales: tuple[float, float],
    partners: Int32[Array, "b 3"],
) -> _Tiles:
    """Four images, each scaled by its own factor, that meet at a centre with their inner corners.

    What of an image lies outside its quadrant is not seen; what of a quadrant its image does not reach is filled
    (Bochkovskiy et al. 2020, YOLOv4, arXiv 2004.10934).
    """
    count, (low, high) = draws.shape[0], scales
    centre = jnp.round((CUT + (1 - 2 * CUT) * draws[:, :2]) * size)
    sides = low + (high - low) * draws[:, 2:, None]
    scale = jnp.broadcast_to(sides, (count, 4, 2))
    before = jnp.asarray([[[1, 1], [0, 1], [1, 0], [0, 0]]], jnp.float32)  # quadrants that end at the centre, x and y
    offset = centre[:, None] - before * scale * size[:, None]
    own = jnp.arange(count, dtype=jnp.int32)[:, None]
    return _Tiles(jnp.concatenate([own, partners], axis=1), scale, offset, centre)


def _partners(draws: Float32[Array, "b 3"], annotated: Bool[Array, " b"] | None) -> Int32[Array, "b 3"]:
    """Three rows for each sample, drawn with replacement among those of its kind."""
    count = draws.shape[0]
    kind = jnp.ones((count,), bool) if annotated is None else annotated
    order = jnp.argsort(~kind, stable=True).astype(jnp.int32)  # annotated ones first
    known = jnp.sum(kind, dtype=jnp.int32)
    first, many = jnp.where(kind, 0, known), jnp.where(kind, known, count - known)
    rank = jnp.minimum((draws * many[:, None].astype(jnp.float32)).astype(jnp.int32), many[:, None] - 1)
    return order[first[:, None] + rank]


def _sampled(images: Float32[Array, "b h w 3"], tiles: _Tiles, fill: float, mosaic: bool) -> Float32[Array, "b h w 3"]:
    """Each pixel from the tile that it is in, bilinear; `fill` where that image does not reach."""
    count, height, width, channels = images.shape
    columns, rows = (jnp.arange(length, dtype=jnp.float32)[None] + 0.5 for length in (width, height))
    quadrants = 4 if mosaic else 1
    scale, offset = tiles.scale[:, :quadrants], tiles.offset[:, :quadrants]
    across = (columns[None] - offset[..., 0, None]) / scale[..., 0, None]  # [B, Q, W], in pixels of the image
    down = (rows[None] - offset[..., 1, None]) / scale[..., 1, None]
    if mosaic:
        right = (columns >= tiles.centre[:, :1])[:, None, :]
        lower = (rows >= tiles.centre[:, 1:])[:, :, None]
        x = _pick(across[:, :, None, :], right, lower)
        y = _pick(down[:, :, :, None], right, lower)
        source = _pick(tiles.row[:, :, None, None], right, lower)
    else:
        x, y = (jnp.broadcast_to(each, (count, height, width)) for each in (across, down.reshape(count, height, 1)))
        source = jnp.broadcast_to(tiles.row[:, :1, None], (count, height, width))
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    left, right_of, part_x = _two(x, width)
    above, below, part_y = _two(y, height)
    flat = images.reshape(-1, channels)

    def at(row: Array, column: Array) -> Array:
        return flat[(source * height + row) * width + column]

    part_x, part_y = part_x[..., None], part_y[..., None]
    upper = at(above, left) * (1 - part_x) + at(above, right_of) * part_x
    under = at(below, left) * (1 - part_x) + at(below, right_of) * part_x
    mixed = upper * (1 - part_y) + under * part_y
    return jnp.where(inside[..., None], mixed, jnp.full_like(mixed, fill))


def _pick(values: Array, right: Bool[Array, "b 1 w"], lower: Bool[Array, "b h 1"]) -> Array:
    """Of values of the four quadrants, `[B, 4, ...]`, each pixel's."""
    upper = jnp.where(right, values[:, 1], values[:, 0])
    return jnp.where(lower, jnp.where(right, values[:, 3], values[:, 2]), upper)


def _two(place: Float32[Array, "b h w"], length: int) -> tuple[Array, Array, Array]:
    """The two pixels around a place along an axis, and the second one's part."""
    centre = jnp.clip(place - 0.5, 0.0, length - 1.0)
    first = jnp.floor(centre)
    index = first.astype(jnp.int32)
    return index, jnp.minimum(index + 1, length - 1), centre - first


def _moved(
    batch: Boxed, tiles: _Tiles, size: Float32[Array, "1 2"], set_to: Mapping[str, Any]
) -> tuple[Float32[Array, "b n 4"], Bool[Array, "b n"], Float32[Array, "b n"]]:
    """Boxes of all four tiles (the first M are the first tile's), which of them stay, and the area left of each."""
    boxes, present = batch.boxes[tiles.row], batch.mask[tiles.row]  # [B, 4, M, ...]
    twice = [jnp.concatenate([each, each], axis=-1)[:, :, None] for each in (tiles.scale, tiles.offset)]
    placed = boxes * twice[0] + twice[1]
    low, high = _regions(tiles, size)
    low = jnp.maximum(low, tiles.offset)  # an image may end before its quadrant does
    high = jnp.minimum(high, tiles.offset + tiles.scale * size[:, None])
    low, high = (jnp.concatenate([each, each], axis=-1)[:, :, None] for each in (low, high))
    cut = jnp.clip(placed, jnp.minimum(low, high), high)
    sides, before = cut[..., 2:] - cut[..., :2], placed[..., 2:] - placed[..., :2]
    area = sides[..., 0] * sides[..., 1]
    kept = present & (area >= set_to["visible"] * before[..., 0] * before[..., 1])
    kept &= jnp.all(sides >= set_to["least"], axis=-1)
    count = boxes.shape[0]
    return cut.reshape(count, -1, 4), kept.reshape(count, -1), area.reshape(count, -1)


def _regions(tiles: _Tiles, size: Float32[Array, "1 2"]) -> tuple[Float32[Array, "b 4 2"], Float32[Array, "b 4 2"]]:
    """Upper left and lower right corner of each quadrant."""
    zero, middle, end = jnp.zeros_like(tiles.centre), tiles.centre, jnp.broadcast_to(size, tiles.centre.shape)
    low, high = jnp.stack([zero, middle], axis=1), jnp.stack([middle, end], axis=1)  # [B, 2 (before, after), 2]
    x, y = jnp.asarray([0, 1, 0, 1]), jnp.asarray([0, 0, 1, 1])
    return tuple(jnp.stack([each[:, x, 0], each[:, y, 1]], axis=-1) for each in (low, high))  # type: ignore[return-value]


def _coloured(
    images: Float32[Array, "b h w 3"], keys: Key[Array, " b"], set_to: Mapping[str, Any]
) -> Float32[Array, "b h w 3"]:
    """Hue turned, saturation and value scaled, as in Darknet; what is filled in is coloured, too."""
    draws = _uniform(keys, COLOUR, 5)
    turn = (2 * draws[:, 0] - 1) * set_to["hue"]
    factors = [_factor(draws[:, at : at + 2], set_to[name]) for at, name in ((1, "saturation"), (3, "exposure"))]
    return distort(images, turn, *factors)


def distort(
    images: Float32[Array, "b h w 3"],
    hue: Float[Array, " b"],
    saturation: Float[Array, " b"],
    exposure: Float[Array, " b"],
) -> Float32[Array, "b h w 3"]:
    """Adds to the hue (a share of the circle), multiplies saturation and value, both cut off at 1.

    In HSV with value = max and saturation = (max - min) / max. Each RGB channel is
    `v - v s max(0, min(k, 4 - k, 1))` with k = (n + 6 hue) mod 6 and n = 5, 3, 1.
    """
    value = jnp.max(images, axis=-1)
    spread = value - jnp.min(images, axis=-1)
    red, green, blue = (images[..., channel] for channel in range(3))
    safe = jnp.where(spread > 0, spread, jnp.ones_like(spread))
    sector = jnp.where(value == red, (green - blue) / safe, 2 + (blue - red) / safe)
    sector = jnp.where((value == blue) & (value != red) & (value != green), 4 + (red - green) / safe, sector)
    sector = jnp.where(spread > 0, sector, jnp.zeros_like(sector))
    share = spread / jnp.where(value > 0, value, jnp.ones_like(value))
    hue, saturation, exposure = (each.astype(jnp.float32)[:, None, None] for each in (hue, saturation, exposure))
    sector = sector + 6 * hue
    value, share = jnp.clip(value * exposure, 0.0, 1.0), jnp.clip(share * saturation, 0.0, 1.0)
    made = []
    for n in (5.0, 3.0, 1.0):
        k = jnp.mod(n + sector, 6.0)
        made.append(value - value * share * jnp.clip(jnp.minimum(k, 4 - k), 0.0, 1.0))
    return jnp.stack(made, axis=-1)


def _factor(draws: Float32[Array, "b 2"], most: float) -> Float32[Array, " b"]:
    """From 1 to `most`, or the inverse of that, by a fair coin."""
    factor = 1 + draws[:, 0] * (most - 1)
    return jnp.where(draws[:, 1] < 0.5, factor, 1 / factor)


def _uniform(keys: Key[Array, " b"], tag: int, count: int) -> Float32[Array, "b n"]:
    return jax.vmap(lambda key: jax.random.uniform(key, (count,)))(_tagged(keys, tag))


def _tagged(keys: Key[Array, " b"], tag: int) -> Key[Array, " b"]:
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, tag)


def _over(chosen: Bool[Array, " b"], like: Array) -> Array:
    return chosen.reshape((-1,) + (1,) * (like.ndim - 1))
