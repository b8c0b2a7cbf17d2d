"""How samples become what a network is fed: read on the host, finished inside jit.

A source gives pictures or texts by index; an `Inputs` says how they reach a network: at which size or length, in which
type, normalised and augmented how. Everything that follows sees arrays with a leading batch axis and asks no more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Integer, Key

from jkd.data.augment import augment, normalize

Batch = dict[str, Any]


@runtime_checkable
class Inputs(Protocol):
    """From samples of a source to a network's input."""

    @property
    def together(self) -> int:
        """Samples of one forward pass in evaluation."""
        ...

    @property
    def lengths(self) -> tuple[int, ...]:
        """Lengths that texts are filled up to, rising; `()` of images."""
        ...

    @property
    def made_of(self) -> list[Any]:
        """What decides the arrays besides the source, JSON-ready."""
        ...

    def example(self, count: int) -> np.ndarray:
        """Samples of the shape and type that a network is fed for `count` samples (of the longest, for texts)."""
        ...

    def sizes(self, source: Any, index: Integer[np.ndarray, " n"]) -> Int32[np.ndarray, " n"]:
        """Which of its static shapes each sample needs, int32 `[N]`: 0 for images, the bucket's length for texts."""
        ...

    def read(self, source: Any, index: Integer[np.ndarray, " n"], size: int) -> np.ndarray:
        """The samples at `index` as one array `[N, ...]` of the static shape `size`, which has room for them all."""
        ...

    def fed(self, raw: Array) -> Array:
        """What a network is fed in evaluation, of what `read` gave; inside jit."""
        ...

    def augmented(
        self, batch: Batch, keys: Key[Array, " b"], batch_key: Key[Array, ""], settings: Mapping[str, Any]
    ) -> tuple[Batch, Int32[Array, " b"], Float[Array, " b"]]:
        """The batch with its `input` as a network is fed it in training; inside jit.

        Args:
          batch: `input` as `read` gave it, `id`, and whatever else belongs to the samples and moves with it.
          keys: one key per sample.
          batch_key: the step's key.
          settings: `train.augment`.

        Returns:
          The batch; `partner` and `share` as `jkd.data.augment.augment` gives them.
        """
        ...


def alone(count: int) -> tuple[Int32[Array, " b"], Float[Array, " b"]]:
    """`partner` and `share` of samples that are not mixed with others."""
    return jnp.arange(count, dtype=jnp.int32), jnp.ones((count,), jnp.float32)


@dataclass(frozen=True)
class Images:
    """Pictures of one size, normalised per channel.

    Attributes:
      shape: height, width, channels.
      mean, std: per channel, or one number for all, of pixels in 0..1.
    """

    shape: tuple[int, ...]
    mean: Sequence[float]
    std: Sequence[float]
    together: int = 512

    @property
    def lengths(self) -> tuple[int, ...]:
        return ()

    @property
    def made_of(self) -> list[Any]:
        return [list(self.mean), list(self.std)]

    def example(self, count: int) -> np.ndarray:
        return np.zeros((count, *self.shape), np.float32)

    def sizes(self, source: Any, index: Integer[np.ndarray, " n"]) -> Int32[np.ndarray, " n"]:
        return np.zeros(len(index), np.int32)

    def read(self, source: Any, index: Integer[np.ndarray, " n"], size: int) -> np.ndarray:
        made: np.ndarray = source.images(index)
        return made

    def fed(self, raw: Array) -> Array:
        return normalize(raw, self.mean, self.std)

    def augmented(
        self, batch: Batch, keys: Key[Array, " b"], batch_key: Key[Array, ""], settings: Mapping[str, Any]
    ) -> tuple[Batch, Int32[Array, " b"], Float[Array, " b"]]:
        black = tuple(-mean / std for mean, std in zip(self.mean, self.std, strict=True))
        images, partner, share = augment(self.fed(batch["input"]), keys, batch_key, settings, pad_value=black)
        return {**batch, "input": images}, partner, share


def shape_of(example: np.ndarray) -> jax.ShapeDtypeStruct:
    """An example's shape and type, to trace with."""
    return jax.ShapeDtypeStruct(example.shape, example.dtype)
