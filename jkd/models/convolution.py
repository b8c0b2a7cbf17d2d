"""Convolution, in the formulation that the backend runs well.

A convolution is a matrix product over patches of the image, or, with a kernel of 1x1, over its pixels. XLA's CPU has a
convolution of its own, which is faster than making the patches where there are many pixels of many channels. It is
slower for a few channels, since its weight gradient is; for a few pixels, as a shard of a batch has deep in a network,
where its input gradient takes twice as long; and by two orders of magnitude for a map smaller than the kernel.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jkd.models.depthwise import by_lax, depthwise

FEW_CHANNELS = 4
FEW_PIXELS = 256  # of all images of a batch together, after the stride
LARGEST_PATCH = 3  # pixels a side: patches of 7x7 take 49 times the memory of the image

Formulation = Literal["patches", "lax"]


def convolve(
    x: Float[Array, "b h w i"],
    kernel: Float[Array, "k k g o"],
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    formulation: Formulation | None = None,
) -> Float[Array, "b h2 w2 o"]:
    """The convolution of images with kernels, without bias, as `lax.conv_general_dilated`.

    Args:
      x: images.
      kernel: as Linen keeps it, I / groups channels by O, of the type of `x`.
      stride: in both directions.
      padding: pixels of zeros on every side.
      dilation: distance of a kernel's taps.
      groups: into which the channels are divided; as many as channels make it `depthwise`.
      formulation: if not given, `lax` unless on a CPU, where it follows the shapes; `lax` there, too, for a batch whose
        size is not known yet, as when a program is exported. With groups or dilation it is `lax` in any case.

    Returns:
      `[B, H2, W2, O]` of the type of `x`, H2 = (H + 2 padding - dilation (k - 1) - 1) // stride + 1.
    """
    inputs, size = x.shape[-1], kernel.shape[0]
    if groups == inputs > 1:
        return depthwise(x, kernel, stride, padding, dilation)
    if size == groups == 1 and not padding:
        return lax.dot_general(x[:, ::stride, ::stride], kernel[0, 0], (((3,), (0,)), ((), ())))
    formulation = formulation or _formulation(x, kernel, stride, padding)
    if formulation == "patches" and dilation == groups == 1:
        by = _by_columns if inputs <= FEW_CHANNELS else _by_rows
        return by(x, kernel, stride, padding)
    return by_lax(x, kernel, stride, padding, dilation, groups)


def _formulation(x: Float[Array, "b h w i"], kernel: Float[Array, "k k g o"], stride: int, padding: int) -> Formulation:
    batch, height, width, inputs = x.shape
    size = kernel.shape[0]
    if jax.default_backend() != "cpu" or size > LARGEST_PATCH or not isinstance(batch, int):
        return "lax"
    rows, columns = ((side + 2 * padding - size) // stride + 1 for side in (height, width))
    if min(rows, columns) < 1:  # nothing comes out
        return "lax"
    few = inputs <= FEW_CHANNELS or min(height, width) < size or batch * rows * columns <= FEW_PIXELS
    return "patches" if few else "lax"


def _by_columns(
    x: Float[Array, "b h w i"], kernel: Float[Array, "k k g o"], stride: int, padding: int
) -> Float[Array, "b h2 w2 o"]:
    """Patches are columns of `[k k I, B H2 W2]`, copied an image row at a time, since a pixel is but a few numbers."""
    padded = jnp.pad(x.transpose(3, 0, 1, 2), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    taps = _taps(padded, kernel.shape[0], stride, 2)
    columns = jnp.stack(taps).reshape(-1, taps[0][0].size)
    flat = lax.dot_general(columns, kernel.reshape(-1, kernel.shape[-1]), (((0,), (0,)), ((), ())))
    return flat.reshape(*taps[0].shape[1:], -1)


def _by_rows(
    x: Float[Array, "b h w i"], kernel: Float[Array, "k k i o"], stride: int, padding: int
) -> Float[Array, "b h2 w2 o"]:
    """Patches are rows of `[B H2 W2, k k I]`, copied a pixel at a time.

    All in float32: the gradient of a pixel is a sum over the patches that it is in, and not to be rounded on the way.
    """
    wide, flat = x.astype(jnp.float32), kernel.reshape(-1, kernel.shape[-1]).astype(jnp.float32)
    padded = jnp.pad(wide, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows = jnp.concatenate(_taps(padded, kernel.shape[0], stride, 1), axis=-1)
    return (rows.reshape(-1, rows.shape[-1]) @ flat).reshape(*rows.shape[:3], -1).astype(x.dtype)


def _taps(padded: Array, size: int, stride: int, axis: int) -> list[Array]:
    """What each of the kernel's pixels meets: `padded` from there on, in steps, along `axis` and the next."""
    steps = [(padded.shape[each] - size) // stride * stride + 1 for each in (axis, axis + 1)]
    return [
        lax.slice_in_dim(lax.slice_in_dim(padded, i, i + steps[0], stride, axis), j, j + steps[1], stride, axis + 1)
        for i in range(size)
        for j in range(size)
    ]
