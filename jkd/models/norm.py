"""Batch normalisation for networks with many small layers: few operations, and a gradient written out.

On CPU, XLA makes some 14 programs a layer of Linen's and what JAX derives from it in training, and 10 of this.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float


class BatchNorm(nn.Module):
    """Batch normalisation over all but the last axis, in float32: `[B, ..., C]` of the type of the input.

    Parameters `scale` and `bias`, statistics `mean` and `var`, float32 `[C]`, named as Linen's. The batch's variance is
    the biased one. Under `jit` means are over the global batch, under `pmap` over the devices of `axis`.

    Attributes:
      epsilon: added to the variance.
      momentum: share of the running statistics that stays.
      axis: of `pmap`.
    """

    epsilon: float = 1e-5
    momentum: float = 0.9
    axis: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b *rest"], train: bool) -> Float[Array, "b *rest"]:
        channels = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        if not train:
            factor = scale * lax.rsqrt(var.value + self.epsilon)
            return _affine(x, factor, bias - mean.value * factor)
        y, batch_mean, batch_var = normalised(x, scale, bias, self.epsilon, self.axis)
        if not self.is_initializing():
            for running, now in ((mean, batch_mean), (var, batch_var)):
                running.value = self.momentum * running.value + (1 - self.momentum) * now
        return y


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalised(
    x: Float[Array, "b *rest"], scale: Float[Array, " c"], bias: Float[Array, " c"], epsilon: float, axis: str | None
) -> tuple[Float[Array, "b *rest"], Float[Array, " c"], Float[Array, " c"]]:
    """Normalised by the batch's own statistics, which come along; no gradient flows through those."""
    return _forward(x, scale, bias, epsilon, axis)[0]


def _forward(
    x: Float[Array, "b *rest"], scale: Float[Array, " c"], bias: Float[Array, " c"], epsilon: float, axis: str | None
) -> tuple[tuple[Array, Array, Array], tuple[Array, ...]]:
    wide, over = x.astype(jnp.float32), tuple(range(x.ndim - 1))
    mean, square = _average(wide.mean(over), axis), _average((wide * wide).mean(over), axis)
    var = jnp.maximum(square - mean * mean, 0.0)
    inverse = lax.rsqrt(var + epsilon)
    y = _affine(x, scale * inverse, bias - mean * scale * inverse)
    return (y, mean, var), (x, mean, inverse, scale)


def _backward(
    epsilon: float, axis: str | None, saved: tuple[Array, ...], gradients: tuple[Array, Array, Array]
) -> tuple[Array, Array, Array]:
    """With h = (x - mean) / deviation: dx = scale / deviation * (g - mean(g) - h * mean(g h))."""
    x, mean, inverse, scale = saved
    over, g = tuple(range(x.ndim - 1)), gradients[0].astype(jnp.float32)
    centred = x.astype(jnp.float32) - _last(mean, x)
    for_bias, for_scale = g.sum(over), (g * centred).sum(over) * inverse
    n = x.size // x.shape[-1]
    mean_g, mean_gh = _average(for_bias / n, axis), _average(for_scale / n, axis)
    for_x = _last(scale * inverse, x) * (g - _last(mean_g, x) - centred * _last(inverse * mean_gh, x))
    return for_x.astype(x.dtype), for_scale, for_bias


normalised.defvjp(_forward, _backward)


def _average(value: Float[Array, " c"], axis: str | None) -> Float[Array, " c"]:
    return value if axis is None else lax.pmean(value, axis)


def _affine(x: Float[Array, "b *rest"], factor: Float[Array, " c"], shift: Float[Array, " c"]) -> Array:
    return (x.astype(jnp.float32) * _last(factor, x) + _last(shift, x)).astype(x.dtype)


def _last(vector: Float[Array, " c"], x: Float[Array, "b *rest"]) -> Array:
    return vector.reshape((1,) * (x.ndim - 1) + (-1,))
