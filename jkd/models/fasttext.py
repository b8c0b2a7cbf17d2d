"""Hashed n-grams, averaged (Joulin et al. 2017, arXiv:1607.01759): the smallest text student, and the fastest."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key, UInt32

from jkd.models.layers import dropout, token_mask


class FastText(nn.Module):
    """Token ids `[B, L]`, filled up with `pad`: the mean of the vectors of their n-grams, and a small MLP.

    An n-gram is `n` tokens in a row, all real, for n = 1 ... `ngrams`; it has the row of a table that a hash of its
    tokens names, so that the table's size does not depend on the vocabulary, and two n-grams may share a row. Where
    there are only single tokens and a row for each, each has its own. With
    its defaults, 2 classes and float32 it takes 0.93 MB. The table starts normal with deviation 0.1, dense layers
    LeCun-normal, biases at zero. The mean is float32 whatever `dtype`.
    Taps: `embedding` float32 `[B, width]`, the mean (zeros where there is no token); `hidden` `[B, hidden]`,
      after the ReLU (not there where `hidden` is 0); `mask` float32 `[B, L]`.

    Attributes:
      classes: number of logits.
      width: width of the table.
      buckets: rows of the table.
      ngrams: longest n-gram.
      hidden: units of the hidden layer; 0 = none.
      dropout: of the mean and of the hidden layer.
      vocab: tokens there are; 0 = any number.
    """

    classes: int
    width: int = 28
    buckets: int = 8192
    ngrams: int = 3
    hidden: int = 64
    dropout: float = 0.0
    pad: int = 0
    dtype: jnp.dtype = jnp.dtype(jnp.float32)
    vocab: int = 0

    @nn.compact
    def __call__(
        self, ids: Int[Array, "b l"], train: bool = False, keys: Key[Array, " b"] | None = None
    ) -> tuple[Float[Array, "b k"], dict[str, Float[Array, "b ..."]]]:
        """Returns float32 logits `[B, classes]` and the taps."""
        rate = self.dropout if train else 0.0
        mask = token_mask(ids, self.pad)
        if self.ngrams == 1 and 0 < self.vocab <= self.buckets:
            rows, real = ids, mask
        else:
            rows, real = hashed_ngrams(ids, mask, self.ngrams, self.buckets)
        vectors = nn.Embed(self.buckets, self.width, embedding_init=nn.initializers.normal(0.1), name="ngram")(rows)
        mean = (vectors * real[..., None]).sum(1) / jnp.maximum(real.sum(1, keepdims=True), 1.0)
        taps = {"mask": mask, "embedding": mean}
        x = dropout(mean.astype(self.dtype), rate, keys, 0)
        if self.hidden:
            x = taps["hidden"] = nn.relu(nn.Dense(self.hidden, dtype=self.dtype, name="hidden")(x))
            x = dropout(x, rate, keys, 1)
        return nn.Dense(self.classes, dtype=self.dtype, name="classifier")(x).astype(jnp.float32), taps


def hashed_ngrams(
    ids: Int[Array, "b l"], mask: Float[Array, "b l"], longest: int, buckets: int
) -> tuple[Int[Array, "b g"], Float[Array, "b g"]]:
    """Bucket of every n-gram, int32, and whether all its tokens are real, float32; n = 1 ... `longest`, in turn.

    G is the number of windows of a text of L tokens: L for n = 1, L - 1 for n = 2, and so on.
    """
    rows, real = [], []
    for n in range(1, min(longest, ids.shape[1]) + 1):
        windows = ids.shape[1] - n + 1
        word = jnp.full((ids.shape[0], windows), n, jnp.uint32)  # or "a" and "a a" might start alike
        whole = jnp.ones((ids.shape[0], windows), jnp.float32)
        for at in range(n):
            word = _mixed(word ^ ids[:, at : at + windows].astype(jnp.uint32))
            whole = whole * mask[:, at : at + windows]
        rows.append((word % jnp.uint32(buckets)).astype(jnp.int32))
        real.append(whole)
    return jnp.concatenate(rows, 1), jnp.concatenate(real, 1)


def _mixed(word: UInt32[Array, "b g"]) -> UInt32[Array, "b g"]:
    """A bijection of 32-bit words, modulo 2^32, every input bit of which reaches every output bit.

    Shifts and factors are those of "lowbias32" (Wellons 2018), which leaves 0 at 0: hence the golden ratio, added
    first.
    """
    word = word + jnp.uint32(0x9E3779B9)
    word = (word ^ (word >> 16)) * jnp.uint32(0x7FEB352D)
    word = (word ^ (word >> 15)) * jnp.uint32(0x846CA68B)
    return word ^ (word >> 16)
