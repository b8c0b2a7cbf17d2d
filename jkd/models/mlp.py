"""A plain multi-layer perceptron: the model of the quickstart."""

import math

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from jkd.models.layers import batch_norm, dropout


class Mlp(nn.Module):
    """Flattened input, `depth` hidden layers of `width` with ReLU, one dense layer to the logits.

    Dense kernels start LeCun-normal (fan in), biases at zero: Linen's default.
    Taps: `hidden0`, `hidden1`, ... `[B, width]` after the ReLU, and `embedding`, the last of them in float32
      (the flattened input where depth is 0). Taps are taken before dropout.
    """

    classes: int
    width: int
    depth: int
    batch_norm: bool = False
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.dtype(jnp.float32)
    axis: str | None = None

    @nn.compact
    def __call__(
        self, images: Float[Array, "b *input"], train: bool = False, keys: Key[Array, " b"] | None = None
    ) -> tuple[Float[Array, "b k"], dict[str, Float[Array, "b ..."]]]:
        """Returns float32 logits `[B, classes]` and the taps."""
        x = images.reshape(images.shape[0], math.prod(images.shape[1:])).astype(self.dtype)
        taps, hidden = {}, x
        for layer in range(self.depth):
            x = nn.Dense(self.width, dtype=self.dtype, name=f"hidden{layer}")(x)
            if self.batch_norm:
                x = batch_norm(x, f"norm{layer}", train, self.axis)
            hidden = taps[f"hidden{layer}"] = nn.relu(x)
            x = dropout(hidden, self.dropout if train else 0.0, keys, layer)
        taps["embedding"] = hidden.astype(jnp.float32)
        return nn.Dense(self.classes, dtype=self.dtype, name="classifier")(x).astype(jnp.float32), taps
