"""Features of regions: what a map says of each box."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

POINTS = 14  # per axis: 7 bins of 2 samples, as detectors commonly pool


def roi_pool(
    feature: Float[Array, "b h w c"],
    boxes: Float[Array, "b m 4"],
    mask: Bool[Array, "b m"] | Float[Array, "b m"],
    size: tuple[int, int],
    points: int = POINTS,
) -> Float[Array, "b m c"]:
    """RoIAlign, averaged over the region: the mean of bilinear samples on a regular grid within each box.

    The grid has `points` x `points`, in the middle of as many equal bins. The centre of cell (i, j) lies at
    ((j + 1/2) stride, (i + 1/2) stride); beyond the outermost centres the map goes on unchanged. A box without area is
    sampled at its place. As the mean of a product of tents, it is one matrix product: no gather, and a gradient that
    adds up in a fixed order.

    Args:
      feature: the map, of any float type; computed in float32.
      boxes: `x1, y1, x2, y2` in pixels of the network's input.
      mask: where 0, the result is 0.
      size: height and width of the network's input, in pixels.
      points: samples along each axis.

    Returns:
      float32 `[B, M, C]`.

    References: He et al. 2017, arXiv 1703.06870 (RoIAlign).
    """
    batch, height, width, channels = feature.shape
    rows = _weights(boxes[..., 1], boxes[..., 3], height, size[0], points)
    columns = _weights(boxes[..., 0], boxes[..., 2], width, size[1], points)
    weights = (rows[..., :, None] * columns[..., None, :]).reshape(batch, -1, height * width)
    weights = jnp.where(mask.astype(bool)[..., None], weights, 0.0)
    cells = feature.astype(jnp.float32).reshape(batch, height * width, channels)
    return jnp.einsum("bmn,bnc->bmc", weights, cells, precision=lax.Precision.HIGHEST)


def _weights(
    low: Float[Array, "b m"], high: Float[Array, "b m"], cells: int, pixels: int, points: int
) -> Float[Array, "b m l"]:
    """How much each cell of an axis counts in the mean over the points between `low` and `high`; sums to 1."""
    share = jnp.asarray((np.arange(points) + 0.5) / points, jnp.float32).reshape(1, 1, points)
    place = low[..., None] + (high - low)[..., None] * share
    place = jnp.clip(place * (cells / pixels) - 0.5, 0.0, cells - 1.0)
    centres = jnp.arange(cells, dtype=jnp.float32).reshape(1, 1, 1, cells)
    return jnp.mean(jnp.maximum(1 - jnp.abs(place[..., None] - centres), 0.0), axis=2)
