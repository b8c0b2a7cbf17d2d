"""Depthwise convolution, in the formulation that the backend runs well.

XLA's CPU runs `feature_group_count` as a loop over single numbers. A sum of k * k shifted products is the same sum and
is fused into one pass over the input; so is its gradient, which is written out here because the one that JAX would
derive takes k * k passes for the kernel's part.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Formulation = Literal["shifted", "lax"]

_ASKED: ContextVar[Formulation | None] = ContextVar("formulation", default=None)


@contextlib.contextmanager
def formulated(formulation: Formulation) -> Iterator[None]:
    """What is traced inside takes this formulation, whatever the backend."""
    token = _ASKED.set(formulation)
    try:
        yield
    finally:
        _ASKED.reset(token)


def depthwise(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k 1 o"],
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    formulation: Formulation | None = None,
) -> Float[Array, "b h2 w2 o"]:
    """Each input channel convolved with its own kernels, `m = o / c` of them: outputs c * m to c * m + m - 1.

    As `lax.conv_general_dilated` with `feature_group_count = c`. Gradients of first order only where shifted.

    Args:
      x: images.
      kernel: as Linen keeps it, of the type of `x`.
      stride: in both directions.
      padding: pixels of zeros on every side.
      dilation: distance of a kernel's taps.
      formulation: if not given, that of `formulated`, else `shifted` on CPU and `lax` elsewhere. Shifted sums are
        kept in float32.

    Returns:
      `[B, H2, W2, O]` of the type of `x`, H2 = (H + 2 padding - dilation (k - 1) - 1) // stride + 1.
    """
    channels, outputs = x.shape[-1], kernel.shape[-1]
    formulation = formulation or _ASKED.get()
    if formulation is None:
        formulation = "shifted" if jax.default_backend() == "cpu" else "lax"
    if formulation == "lax":
        return by_lax(x, kernel, stride, padding, dilation, channels)
    if outputs != channels:
        x = jnp.repeat(x, outputs // channels, axis=-1)
    return _shifted(x, kernel, stride, padding, dilation)


def by_lax(
    x: Float[Array, "b h w i"], kernel: Float[Array, "k k g o"], stride: int, padding: int, dilation: int, groups: int
) -> Float[Array, "b h2 w2 o"]:
    """The convolution as XLA has it, of images and kernels as Linen keeps them."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((padding, padding), (padding, padding)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _shifted(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k 1 c"], stride: int, padding: int, dilation: int
) -> Float[Array, "b h2 w2 c"]:
    padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    return _sum_of_products(padded, kernel, stride, dilation).astype(x.dtype)


def _forward(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k 1 c"], stride: int, padding: int, dilation: int
) -> tuple[Float[Array, "b h2 w2 c"], tuple[Array, Array]]:
    return _shifted(x, kernel, stride, padding, dilation), (x, kernel)


def _backward(
    stride: int, padding: int, dilation: int, saved: tuple[Array, Array], gradient: Float[Array, "b h2 w2 c"]
) -> tuple[Float[Array, "b h w c"], Float[Array, "k k 1 c"]]:
    x, kernel = saved
    for_x = _sum_of_products(_spread(gradient, x, kernel, stride, padding, dilation), kernel[::-1, ::-1], 1, dilation)
    padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    return for_x.astype(x.dtype), _for_kernel(padded, gradient, kernel, stride, dilation)


_shifted.defvjp(_forward, _backward)


def _sum_of_products(
    padded: Float[Array, "b h w c"], kernel: Float[Array, "k k 1 c"], stride: int, dilation: int
) -> Float[Array, "b h2 w2 c"]:
    """In float32: sum over taps of the map, shifted, times the tap."""
    size = kernel.shape[0]
    kernel = kernel.astype(jnp.float32)
    total: Array | None = None
    for (i, j), shifted in _shifts(padded, size, stride, dilation):
        product = shifted.astype(jnp.float32) * kernel[i, j].reshape(1, 1, 1, -1)
        total = product if total is None else total + product
    assert total is not None
    return total


def _shifts(
    padded: Float[Array, "b h w c"], size: int, stride: int, dilation: int
) -> list[tuple[tuple[int, int], Float[Array, "b h2 w2 c"]]]:
    """For each tap, the part of the map that it meets."""
    b, height, width, channels = padded.shape
    last = [(side - dilation * (size - 1) - 1) // stride * stride for side in (height, width)]
    return [
        ((i, j), lax.slice(padded, (0, top, left, 0), (b, top + last[0] + 1, left + last[1] + 1, channels), steps))
        for i in range(size)
        for j in range(size)
        for top, left, steps in [(i * dilation, j * dilation, (1, stride, stride, 1))]
    ]


def _spread(
    gradient: Float[Array, "b h2 w2 c"],
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k 1 c"],
    stride: int,
    padding: int,
    dilation: int,
) -> Float[Array, "b h3 w3 c"]:
    """The gradient with zeros between (stride) and around its rows, so that the flipped kernel meets it at stride 1."""
    reach = dilation * (kernel.shape[0] - 1)
    edges = []
    for side, steps in zip(x.shape[1:3], gradient.shape[1:3], strict=True):
        low = reach - padding
        edges.append((low, side + reach - low - ((steps - 1) * stride + 1), stride - 1))
    return lax.pad(gradient, jnp.zeros((), gradient.dtype), ((0, 0, 0), *edges, (0, 0, 0)))


def _for_kernel(
    padded: Float[Array, "b h w c"],
    gradient: Float[Array, "b h2 w2 c"],
    kernel: Float[Array, "k k 1 c"],
    stride: int,
    dilation: int,
) -> Float[Array, "k k 1 c"]:
    """All taps in one reduction, whose loop then reads the two maps once.

    First over columns alone: that has enough results to share among threads, and short sums round less.
    """
    size, gradient = kernel.shape[0], gradient.astype(jnp.float32)
    products = [part.astype(jnp.float32) * gradient for _, part in _shifts(padded, size, stride, dilation)]
    zeros = [jnp.zeros((), jnp.float32)] * len(products)
    rows = lax.reduce(products, zeros, lambda sums, values: [a + b for a, b in zip(sums, values, strict=True)], (2,))
    return jnp.stack(rows).sum((1, 2)).reshape(kernel.shape).astype(kernel.dtype)
