"""Named key streams: the only place in jkd that makes randomness.

A key is a pure function of (seed, replicate, stream, step, sample id). Nothing is split and carried, so a resumed run
needs no saved key, and a sample's augmentation does not depend on how the batch was cut. A stream's name never holds a
student's name: students of one seed see the same order and the same augmentation, which keeps them paired.
"""

import hashlib
from contextlib import AbstractContextManager

import jax
import numpy as np
from jaxtyping import Array, Integer, Key

from jkd import ledger as books
from jkd.ledger import KeyReused, Ledger

__all__ = [
    "STREAMS",
    "KeyReused",
    "Ledger",
    "bits",
    "key",
    "ledger",
    "permutation",
    "sample_keys",
    "subkey",
    "uniform",
]

STREAMS = (
    "augment",  # per step and sample: crops, flips, mixup partners
    "bootstrap",  # which test samples a resampled test set holds
    "dropout",  # per step and sample
    "edges",  # random-edge controls
    "folds",  # which fold a labelled sample falls into
    "groups",  # in which order the batches of a group come, whose samples are sorted by length
    "init",  # network and objective parameters
    "labelled",  # per epoch: the order of the samples with a label, where batches have a share of them
    "labels",  # which samples are labelled
    "noise",  # label noise
    "order",  # per epoch: the order of the training set
    "pool",  # which samples form the pool
    "runs",  # which runs a resampled set of runs holds
    "sampling",  # a transfer set under a budget
    "shapes",  # the generated set of rendered shapes: what an image shows
)


def _tag(stream: str) -> int:
    if stream not in STREAMS:
        raise ValueError(f"unknown key stream {stream!r}; add it to jkd.random.STREAMS")
    return int.from_bytes(hashlib.sha256(stream.encode()).digest()[:4], "little")


def key(stream: str, seed: int | Array, replicate: int | Array = 0, step: int | Array | None = None) -> Key[Array, ""]:
    """The typed key of a stream; with `step`, that step's key. The numbers may be traced: no program holds a seed."""
    made = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _tag(stream)), replicate)
    return made if step is None else jax.random.fold_in(made, step)


def sample_keys(key: Key[Array, ""], ids: Integer[Array, " b"]) -> Key[Array, " b"]:
    """One key per sample id: the same id gets the same key whatever batch it stands in."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, ids)


def bits(stream: str, *numbers: int, size: int) -> np.ndarray:
    """`size` uint64 words for host-side choices, `[size]`: SplitMix64 from a SHA-256 of the stream and the numbers.

    Written out rather than taken from `numpy.random`, whose streams may change between releases.
    """
    _tag(stream)
    if books.current:
        books.current.host(stream, numbers)
    text = ",".join([stream, *(str(int(number)) for number in numbers)])
    start = np.uint64(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little"))
    with np.errstate(over="ignore"):
        word = start + np.arange(1, size + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


def permutation(stream: str, *numbers: int, size: int) -> np.ndarray:
    """A permutation of `range(size)`, int64 `[size]`, a pure function of its arguments."""
    return np.argsort(bits(stream, *numbers, size=size), kind="stable")


def uniform(stream: str, *numbers: int, size: int) -> np.ndarray:
    """Uniform float64 in [0, 1), `[size]`."""
    return (bits(stream, *numbers, size=size) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def subkey(key: Key[Array, ""], index: int) -> Key[Array, ""]:
    """The `index`-th key of one draw that needs several."""
    return jax.random.fold_in(key, index)


def ledger() -> AbstractContextManager[Ledger]:
    """`with random.ledger() as book:` writes every key into a book and refuses to draw from one twice (`jkd.ledger`).

    Raises:
      KeyReused: in the body, when the same key material is used twice; here, when two streams have one tag.
    """
    return books.opened(_tags())


def _tags() -> dict[str, int]:
    return {stream: _tag(stream) for stream in STREAMS}


books.check_tags(_tags())
