"""Texts as a network reads them: tokenised once, filled up to the length of a bucket, augmented inside jit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Integer, Key

from jkd.data.augment_tokens import Vocabulary, augment_tokens
from jkd.data.inputs import Batch, alone
from jkd.data.texts import TextSource
from jkd.data.tokens import Tokenizer, Tokens


@dataclass(eq=False)
class Texts:
    """Token ids `[B, L]`, int32; L is the smallest bucket that holds the longest text of a batch.

    Attributes:
      tokenizer: from texts to ids.
      max_length: tokens after which a text is cut; the last bucket.
      buckets: rising lengths.
      neighbours: for `augment.replace`: tokens near each token, int32 `[V, k]`; None where there is no such table.
      together: texts of one forward pass in evaluation.
    """

    tokenizer: Tokenizer
    max_length: int
    buckets: tuple[int, ...]
    neighbours: np.ndarray | None = None
    together: int = 128
    _tokens: dict[str, Tokens] = field(default_factory=dict, repr=False)  # by the fingerprint of their source

    @property
    def lengths(self) -> tuple[int, ...]:
        return (*(size for size in self.buckets if size < self.max_length), self.max_length)

    @property
    def made_of(self) -> list[Any]:
        return [self.tokenizer.fingerprint, self.max_length, list(self.buckets)]

    def example(self, count: int) -> np.ndarray:
        return np.full((count, self.max_length), self.tokenizer.unk_id, np.int32)

    def tokens(self, source: TextSource) -> Tokens:
        """All tokens of a source, made once."""
        if source.fingerprint not in self._tokens:
            self._tokens[source.fingerprint] = Tokens(source, self.tokenizer, self.max_length)
        return self._tokens[source.fingerprint]

    def sizes(self, source: TextSource, index: Integer[np.ndarray, " n"]) -> Int32[np.ndarray, " n"]:
        lengths = np.asarray(self.lengths, np.int32)
        return lengths[np.searchsorted(lengths, self.tokens(source).lengths[index])]

    def read(self, source: TextSource, index: Integer[np.ndarray, " n"], size: int) -> np.ndarray:
        return self.tokens(source).rows(index, size)

    def fed(self, raw: Array) -> Array:
        return raw

    def augmented(
        self, batch: Batch, keys: Key[Array, " b"], batch_key: Key[Array, ""], settings: Mapping[str, Any]
    ) -> tuple[Batch, Int32[Array, " b"], Float[Array, " b"]]:
        ids, of = batch["input"], self.tokenizer
        if settings["replace"] or settings["mask"] or settings["drop"]:
            special = Vocabulary(special=of.special, mask=of.mask_id, unknown=of.unk_id, padding=of.pad)
            rates = {key: settings[key] for key in ("replace", "mask", "drop")} | {"drop_by": "remove"}
            near = None if self.neighbours is None else jnp.asarray(self.neighbours)
            ids = augment_tokens(ids, (ids != of.pad).astype(jnp.float32), keys, rates, special, near).ids
        return {**batch, "input": ids}, *alone(len(ids))
