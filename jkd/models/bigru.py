"""A bidirectional GRU (Cho et al. 2014, arXiv:1406.1078): a student of another kind than its transformer teacher."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int, Key

from jkd.errors import UserError, did_you_mean
from jkd.models.layers import dropout, masked_mean, token_mask

POOLINGS = ("max", "mean")


class BiGru(nn.Module):
    """Token ids `[B, L]`, filled up with `pad`, through `depth` bidirectional GRU layers and a pooling to logits.

    Each direction has `width` units; the backward one starts at a text's own last token. Padding leaves a state
    as it is, so that logits and `embedding` do not depend on it. Gates as cuDNN and torch have them, the reset
    gate applied after the recurrent product:
      r, z = sigmoid(x W + h U + b + c); n = tanh(x W + b + r (h U + c)); h' = (1 - z) n + z h.
    Tables start normal with deviation 0.1, input kernels Glorot-uniform, recurrent ones orthogonal, biases zero.
    The recurrence is float32 whatever `dtype`: its rounding would add up over L steps.
    Taps: `embeddings` `[B, L, E]`; `layerN/hidden` `[B, L, 2 width]`, forward then backward, zeros at padding,
      `layer0` the first; `embedding` float32 `[B, 2 width]`, the pooled last layer; `mask` float32 `[B, L]`.

    Attributes:
      classes: number of logits.
      vocab: rows of the word table.
      width: units of a direction.
      depth: layers.
      embedding_width: E, the width of the word table; 0 = `width`.
      pooling: `max` or `mean`, over real tokens; zeros where a text has none.
      dropout: of the word vectors, between layers, and of the pooled vector.
    """

    classes: int
    vocab: int
    width: int
    depth: int = 1
    embedding_width: int = 0
    pooling: str = "max"
    dropout: float = 0.0
    pad: int = 0
    dtype: jnp.dtype = jnp.dtype(jnp.float32)

    @nn.compact
    def __call__(
        self, ids: Int[Array, "b l"], train: bool = False, keys: Key[Array, " b"] | None = None
    ) -> tuple[Float[Array, "b k"], dict[str, Float[Array, "b ..."]]]:
        """Returns float32 logits `[B, classes]` and the taps."""
        if self.pooling not in POOLINGS:
            raise UserError(f"pooling: unknown '{self.pooling}'.{did_you_mean(self.pooling, POOLINGS)}")
        rate = self.dropout if train else 0.0
        mask = token_mask(ids, self.pad)
        columns = self.embedding_width or self.width
        x = nn.Embed(self.vocab, columns, dtype=self.dtype, embedding_init=_table_init, name="word")(ids)
        taps = {"mask": mask, "embeddings": x}
        for n in range(self.depth):
            x = taps[f"layer{n}/hidden"] = self._layer(n, dropout(x, rate, keys, n), mask)
        taps["embedding"] = masked_max(x, mask) if self.pooling == "max" else masked_mean(x, mask)
        x = dropout(taps["embedding"].astype(self.dtype), rate, keys, self.depth)
        return nn.Dense(self.classes, dtype=self.dtype, name="classifier")(x).astype(jnp.float32), taps

    def _layer(self, n: int, x: Float[Array, "b l e"], mask: Float[Array, "b l"]) -> Float[Array, "b l h"]:
        gates = nn.Dense(6 * self.width, dtype=self.dtype, kernel_init=_input_init, name=f"layer{n}_input")(x)
        shape = (2, self.width, 3 * self.width)
        kernel = self.param(f"layer{n}_recurrent_kernel", _recurrent_init, shape, jnp.float32)
        bias = self.param(f"layer{n}_recurrent_bias", nn.initializers.zeros, (2, 3 * self.width), jnp.float32)
        gates = gates.astype(jnp.float32).reshape(*gates.shape[:2], 2, 3 * self.width)
        hidden = bidirectional(gates, mask, kernel, bias)
        return (hidden * mask[..., None]).astype(self.dtype)


def bidirectional(
    gates: Float[Array, "b l 2 g"], mask: Float[Array, "b l"], kernel: Float[Array, "2 h g"], bias: Float[Array, "2 g"]
) -> Float[Array, "b l h2"]:
    """Both directions of a GRU in one scan, states `[B, L, 2 H]`; where `mask` is 0 a state stays as it is.

    Args:
      gates: what the inputs give the gates r, z and n of each direction, bias included; G = 3 H.
      mask: 1 where there is a token.
      kernel, bias: of the recurrent products, forward then backward.
    """
    ways = _both_ways(gates[:, :, 0], gates[:, :, 1])
    real = _both_ways(mask, mask)[..., None] > 0

    def step(state: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        given, here = now
        back = jnp.einsum("wbh,whg->wbg", state, kernel) + bias[:, None]
        (r_in, z_in, n_in), (r_back, z_back, n_back) = jnp.split(given, 3, -1), jnp.split(back, 3, -1)
        reset, update = jax.nn.sigmoid(r_in + r_back), jax.nn.sigmoid(z_in + z_back)
        new = (1 - update) * jnp.tanh(n_in + reset * n_back) + update * state
        state = jnp.where(here, new, state)
        return state, state

    start = jnp.zeros((2, gates.shape[0], kernel.shape[1]), gates.dtype)
    _, states = lax.scan(step, start, (ways, real))
    forward, backward = states[:, 0], states[::-1, 1]
    return jnp.concatenate([forward, backward], -1).swapaxes(0, 1)


def masked_max(x: Float[Array, "b l d"], mask: Float[Array, "b l"]) -> Float[Array, "b d"]:
    """Largest over the real tokens of each text, float32 `[B, D]`; zeros where there are none."""
    x = jnp.where(mask[..., None] > 0, x.astype(jnp.float32), -jnp.inf).max(1)
    return jnp.where(jnp.isfinite(x), x, 0.0)


def _both_ways(forward: Array, backward: Array) -> Array:
    """`[B, L, ...]` twice as `[L, 2, B, ...]`, the second from the end."""
    return jnp.stack([forward.swapaxes(0, 1), backward.swapaxes(0, 1)[::-1]], 1)


_table_init = nn.initializers.normal(0.1)
_input_init = nn.initializers.glorot_uniform()


def _recurrent_init(key: Key[Array, ""], shape: tuple[int, ...], dtype: Any) -> Float[Array, "2 h g"]:
    ways, width, gates = shape
    blocks = nn.initializers.orthogonal(column_axis=-1)
    keys = jax.random.split(key, ways * gates // width)
    square = jnp.stack([blocks(each, (width, width), dtype) for each in keys])
    return square.reshape(ways, -1, width, width).swapaxes(1, 2).reshape(shape)
