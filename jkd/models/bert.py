"""BERT (Devlin et al. 2019, arXiv:1810.04805): an encoder of token ids with a head for classes.

A Hugging Face folder fills it (`jkd.pretrained.bert`); a smaller one can be cut out of a larger one
(`jkd.pretrained.shrink`). The word table may be factorised as ALBERT's is (Lan et al. 2020,
arXiv:1909.11942), except that positions, types and the first LayerNorm keep the full width, so that a table of
full width and its truncated singular value decomposition are the same network up to that truncation.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key

from jkd.errors import UserError, did_you_mean
from jkd.models.layers import dropout, masked_mean, token_mask

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_new": lambda x: nn.gelu(x, approximate=True),  # the tanh formula of the first GPT and BERT code
    "relu": nn.relu,
}
POOLINGS = ("cls", "mean")
HIDDEN = -1e30  # score of a padded key: its probability is 0, and a row of nothing but padding stays finite

kernel_init = nn.initializers.normal(0.02)


class Bert(nn.Module):
    """Token ids `[B, L]`, filled up with `pad`, through `depth` post-norm transformer blocks to logits.

    What a padded position holds reaches no other position, no logits and no `embedding`. Token types are all 0.
    Softmax and LayerNorm are float32 whatever `dtype`. Kernels and tables start normal with deviation 0.02,
    biases at zero. Ids must lie in `[0, vocab)`; others give NaN.

    Taps, N from 0: `layer0` is the **first block**, `layer{depth - 1}` the last.
      `embeddings` `[B, L, D]`: what the first block sees; Hugging Face's `hidden_states[0]`.
      `layerN/hidden` `[B, L, D]`: what block N returns; Hugging Face's `hidden_states[N + 1]`.
      `layerN/scores` float32 `[B, H, L, L]` (query, key): q k / sqrt(d), padded keys included as they are.
      `layerN/attention` float32 `[B, H, L, L]`: softmax of the scores over real keys, before dropout.
      `layerN/query`, `layerN/key`, `layerN/value` `[B, H, L, d]`.
      `pooled` float32 `[B, D]`: what the classifier sees before dropout, by `pooling`.
      `embedding` float32 `[B, D]`: mean of the last hidden states over real tokens, whatever `pooling`.
      `mask` float32 `[B, L]`: 1 where there is a token.

    Attributes:
      classes: number of logits.
      vocab: rows of the word table.
      width: D, a multiple of `heads`.
      feed_forward: units between the two dense layers of a block.
      positions: longest L.
      types: rows of the token type table, of which the first is used.
      embedding_width: width of the word table, then followed by a projection to D; 0 = D, no projection.
      activation: `gelu`, `gelu_new` or `relu`.
      pooling: `cls` (first token through a tanh layer) or `mean` (`embedding` itself; no parameters).
      dropout: of embeddings, attention, both outputs of a block, and the classifier's input.
    """

    classes: int
    vocab: int
    width: int
    depth: int
    heads: int
    feed_forward: int
    positions: int = 512
    types: int = 2
    embedding_width: int = 0
    activation: str = "gelu"
    layer_norm_eps: float = 1e-12
    pooling: str = "cls"
    dropout: float = 0.0
    pad: int = 0
    dtype: jnp.dtype = jnp.dtype(jnp.float32)

    @nn.compact
    def __call__(
        self, ids: Int[Array, "b l"], train: bool = False, keys: Key[Array, " b"] | None = None
    ) -> tuple[Float[Array, "b k"], dict[str, Float[Array, "b ..."]]]:
        """Returns float32 logits `[B, classes]` and the taps.

        Raises:
          UserError: texts longer than `positions`, or fields that do not fit together.
        """
        self._check(ids.shape[1])
        rate = self.dropout if train else 0.0
        mask = token_mask(ids, self.pad)
        taps = {"mask": mask}
        x = taps["embeddings"] = _embeddings(self, ids)
        x = dropout(x, rate, keys, 0)
        for n in range(self.depth):
            x, seen = _block(self, n, x, mask, rate, keys)
            taps |= seen
        taps["embedding"] = masked_mean(x, mask)
        taps["pooled"] = self._pooled(x, taps["embedding"])
        x = dropout(taps["pooled"].astype(self.dtype), rate, keys, 3 * self.depth + 1)
        return _dense(self, self.classes, "classifier")(x).astype(jnp.float32), taps

    def _pooled(self, x: Float[Array, "b l d"], mean: Float[Array, "b d"]) -> Float[Array, "b d"]:
        if self.pooling == "mean":
            return mean
        return jnp.tanh(_dense(self, self.width, "pooler")(x[:, 0]).astype(jnp.float32))

    def _check(self, length: int) -> None:
        if self.pooling not in POOLINGS:
            raise UserError(f"pooling: unknown '{self.pooling}'.{did_you_mean(self.pooling, POOLINGS)}")
        if self.activation not in ACTIVATIONS:
            raise UserError(f"activation: unknown '{self.activation}'.{did_you_mean(self.activation, ACTIVATIONS)}")
        if self.width % self.heads:
            raise UserError(f"heads: {self.heads} heads cannot share a width of {self.width} equally.")
        if length > self.positions:
            raise UserError(
                f"model: this bert has {self.positions} positions, but the texts have {length} tokens. Cut them "
                "shorter or raise positions."
            )


def _embeddings(of: Bert, ids: Int[Array, "b l"]) -> Float[Array, "b l d"]:
    """Word, position and type vectors, added and normalised."""
    words = _table(of, of.vocab, of.embedding_width or of.width, "word")(ids)
    if of.embedding_width:
        words = _dense(of, of.width, "projection", use_bias=False)(words)
    places = _table(of, of.positions, of.width, "position")(jnp.arange(ids.shape[1])[None])
    kind = _table(of, of.types, of.width, "type")(jnp.zeros((1, 1), jnp.int32))
    return _norm(of, "embedding_norm", words + places + kind)


def _block(
    of: Bert, n: int, x: Float[Array, "b l d"], mask: Float[Array, "b l"], rate: float, keys: Key[Array, " b"] | None
) -> tuple[Float[Array, "b l d"], dict[str, Float[Array, "b ..."]]]:
    """Block `n`: self-attention and a feed-forward network, each added to its input and normalised after."""
    name, layer = f"layer{n}", 3 * n + 1  # three dropouts a block
    taps = {part: _split(_dense(of, of.width, f"{name}_{part}")(x), of.heads) for part in ("query", "key", "value")}
    context, weights = attend(taps["query"], taps["key"], taps["value"], mask, rate, keys, layer)
    y = _dense(of, of.width, f"{name}_attention_output")(context.reshape(x.shape))
    x = _norm(of, f"{name}_attention_norm", x + dropout(y, rate, keys, layer + 1))
    y = ACTIVATIONS[of.activation](_dense(of, of.feed_forward, f"{name}_intermediate")(x))
    y = _dense(of, of.width, f"{name}_output")(y)
    x = _norm(of, f"{name}_output_norm", x + dropout(y, rate, keys, layer + 2))
    return x, {f"{name}/{part}": tap for part, tap in (taps | weights | {"hidden": x}).items()}


def attend(
    query: Float[Array, "b h l d"],
    key: Float[Array, "b h l d"],
    value: Float[Array, "b h l d"],
    mask: Float[Array, "b l"],
    rate: float = 0.0,
    keys: Key[Array, " b"] | None = None,
    layer: int = 0,
) -> tuple[Float[Array, "b l h d"], dict[str, Float[Array, "b h l l"]]]:
    """Scaled dot-product attention of real keys (Vaswani et al. 2017, arXiv:1706.03762), softmax in float32.

    Returns what each query reads, and `scores` (before the mask) and `attention` (before dropout), float32. Where
    there is no real key at all, every key weighs the same.
    """
    scores = jnp.einsum("bhqd,bhkd->bhqk", query, key, preferred_element_type=jnp.float32)
    scores = scores / math.sqrt(query.shape[-1])
    attention = jax.nn.softmax(jnp.where(mask[:, None, None] > 0, scores, HIDDEN), axis=-1)
    read = dropout(attention, rate, keys, layer).astype(value.dtype)
    return jnp.einsum("bhqk,bhkd->bqhd", read, value), {"scores": scores, "attention": attention}


def _split(x: Float[Array, "b l d"], heads: int) -> Float[Array, "b h l e"]:
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


def _dense(of: Bert, features: int, name: str, use_bias: bool = True) -> nn.Dense:
    return nn.Dense(features, use_bias, dtype=of.dtype, kernel_init=kernel_init, name=name)


def _table(of: Bert, rows: int, width: int, name: str) -> nn.Embed:
    return nn.Embed(rows, width, dtype=of.dtype, embedding_init=kernel_init, name=name)


def _norm(of: Bert, name: str, x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
    """LayerNorm in float32, the variance from deviations: the difference of two means would lose it to rounding."""
    norm = nn.LayerNorm(of.layer_norm_eps, dtype=jnp.float32, use_fast_variance=False, name=name)
    return norm(x.astype(jnp.float32)).astype(of.dtype)
