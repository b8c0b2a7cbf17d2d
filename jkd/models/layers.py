"""Layers that Linen lacks or that XLA runs badly as it stands."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int, Key

from jkd.models.convolution import convolve

# Normal with variance 2 / (9 * channels out), as both published VGG code bases draw their convolutions.
conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Conv(nn.Module):
    """Convolution with zero padding that keeps the size: `[B, H, W, I] -> [B, H2, W2, O]`, H2 = ceil(H / stride).

    Parameters `kernel` float32 `[size, size, I, O]` and, unless `bias` is False, `bias` float32 `[O]`; He-normal (fan
    out) and zero at the start. `size` is odd; an even side and a stride of 2 are padded on both sides alike, as torch
    does.
    """

    features: int
    size: int = 3
    stride: int = 1
    bias: bool = True
    dtype: jnp.dtype = jnp.dtype(jnp.float32)

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        kernel = self.param("kernel", conv_init, (self.size, self.size, x.shape[-1], self.features), jnp.float32)
        y = convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, self.size // 2)
        if not self.bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return y + bias.astype(self.dtype).reshape(1, 1, 1, -1)


def max_pool_2x2(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Largest of each 2x2 window, stride 2; an odd last row or column is dropped, as torch does.

    A reshape and two maxima rather than `reduce_window`: the gradient of that is select-and-scatter, which is
    slow on CPU and adds in no fixed order on GPU. Not one maximum over both axes either: XLA's CPU fuses that
    with nothing around it. Gradient rule: the two rows share it where equal, then the two columns (torch gives
    all of it to the first). After a ReLU nearly all ties are zeros, through which the ReLU passes no gradient
    anyway.
    """
    b, height, width, c = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2].reshape(b, height // 2, 2, width // 2, 2, c)
    x = jnp.maximum(x[:, :, 0], x[:, :, 1])
    return jnp.maximum(x[:, :, :, 0], x[:, :, :, 1])


def max_pool_3x3(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Largest of each 3x3 window, stride 2, one pixel of padding that is never the largest.

    A chain of maxima of shifted images rather than `reduce_window`, for the reasons of `max_pool_2x2`.
    """
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)

    def largest(x: Float[Array, "b h w c"], axis: int) -> Float[Array, "b h2 w2 c"]:
        out = (x.shape[axis] - 3) // 2 + 1
        shifted = [lax.slice_in_dim(x, start, start + 2 * out - 1, stride=2, axis=axis) for start in range(3)]
        return jnp.maximum(jnp.maximum(shifted[0], shifted[1]), shifted[2])

    return largest(largest(padded, 1), 2)


def adaptive_average_pool(x: Float[Array, "b h w c"], size: int) -> Float[Array, "b s s c"]:
    """Average pooling to `size` x `size` cells; cell i has rows floor(i H / size) to ceil((i + 1) H / size).

    As torch's `AdaptiveAvgPool2d`: a map smaller than `size` is repeated.
    """
    if x.shape[1:3] == (size, size):
        return x
    rows, columns = (jnp.asarray(_cells(length, size), x.dtype) for length in x.shape[1:3])
    return jnp.einsum("ih,bhwc,jw->bijc", rows, x, columns, precision=lax.Precision.HIGHEST)


def _cells(length: int, size: int) -> np.ndarray:
    weights = np.zeros((size, length))
    for cell in range(size):
        first, last = cell * length // size, -(-(cell + 1) * length // size)
        weights[cell, first:last] = 1 / (last - first)
    return weights


def dropout(
    x: Float[Array, "b *rest"], rate: float, keys: Key[Array, " b"] | None, layer: int
) -> Float[Array, "b *rest"]:
    """Zeroes a share `rate` of each sample's units and scales the rest by 1 / (1 - rate).

    Args:
      x: activations, one sample per row.
      rate: share dropped, in [0, 1); 0 returns `x`.
      keys: one key per sample, so that a sample's mask does not depend on the batch it stands in.
      layer: folded into the keys, so that two layers of one network draw different masks.
    """
    if rate == 0:
        return x
    if keys is None:
        raise ValueError(f"dropout {rate} in training needs one key per sample: pass keys=sample_keys(...)")
    keep = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, layer), 1 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / jnp.asarray(1 - rate, x.dtype), jnp.zeros((), x.dtype))


def batch_norm(x: Float[Array, "b *rest"], name: str, train: bool, axis: str | None = None) -> Float[Array, "b *rest"]:
    """Batch normalisation over all but the last axis, in float32; returns the type of `x`.

    To be called inside a module's compact method, which then owns `name`. Torch's constants: running share
    0.9, epsilon 1e-5. Running variances take the biased batch variance (torch: the unbiased one). Under `jit`
    the mean is over the global batch, however it is sharded; under `pmap`, over the devices of `axis`.
    """
    norm = nn.BatchNorm(
        use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=jnp.float32, axis_name=axis, name=name
    )
    return norm(x.astype(jnp.float32)).astype(x.dtype)


def token_mask(ids: Int[Array, "b l"], pad: int) -> Float[Array, "b l"]:
    """1 where there is a token, 0 where a text is filled up with `pad`, float32 `[B, L]`."""
    return (ids != pad).astype(jnp.float32)


def masked_mean(x: Float[Array, "b l d"], mask: Float[Array, "b l"]) -> Float[Array, "b d"]:
    """Mean over the real tokens of each text, in float32; zeros where there are none.

    Padded positions add nothing, not even where they hold NaN.
    """
    real = jnp.where(mask[..., None] > 0, x.astype(jnp.float32), 0.0)
    return real.sum(1) / jnp.maximum(mask.sum(1, keepdims=True), 1.0)
