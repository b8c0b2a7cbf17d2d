"""A cheap checksum of every array that a step passes through, so that two runs can be compared step by step.

Inside the jitted step each leaf of each stage is reduced to one uint32: the sum, modulo 2^32, of its folded bit
patterns times odd weights that depend on the position. Any change of one element changes it; other changes go unseen
about as often as 32 bits of chance allow. It is no SHA-256 and does not stand against an attacker: it says *where* two
honest runs parted, cheaply enough for every step.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt32

from jkd import digest

OPTIMISER = "update/opt_state/"
LANES = 8  # columns that are summed side by side
# In the order in which a step passes through them. `update` is the state it starts from: what the step before made.
STAGES = ("update", "batch", "teacher", "graph", "student", "gradients")


def leaves_of(stages: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """`stage/path` and `dtype[shape]` of every leaf, in the order of `checksums`. `stages` may hold shapes alone."""
    return tuple(
        (f"{stage}/{path}", f"{leaf.dtype.name}{list(leaf.shape)}")
        for stage in STAGES
        for path, leaf in digest.flatten(stages.get(stage)).items()
    )


def checksums(
    stages: Mapping[str, Any], record: Array | bool = True, first: Array | bool = True
) -> UInt32[Array, " leaves"]:
    """One uint32 a leaf, as listed by `leaves_of`.

    Args:
      stages: a tree of arrays (not keys) for each name of `STAGES`; those missing are left out.
      record: whether to take them at all, bool `[]`, may be traced; zeros otherwise.
      first: whether to take those of the optimiser's state, too: twice the parameters, so not in every step of a loop.
    """
    leaves = {f"{stage}/{path}": leaf for stage in STAGES for path, leaf in digest.flatten(stages.get(stage)).items()}
    rare = {name: leaf for name, leaf in leaves.items() if name.startswith(OPTIMISER)}
    found = _where(record, {name: leaf for name, leaf in leaves.items() if name not in rare})
    found |= _where(jnp.logical_and(record, first), rare)
    return jnp.stack([found[name] for name in leaves]) if leaves else jnp.zeros(0, jnp.uint32)


def _where(wanted: Array | bool, leaves: dict[str, Array]) -> dict[str, Array]:
    """The checksums of leaves where `wanted`, zeros otherwise."""
    if not leaves:
        return {}

    def take(leaves: list[Array]) -> Array:
        return jnp.stack([checksum(leaf) for leaf in leaves])

    def leave(leaves: list[Array]) -> Array:
        return jnp.zeros(len(leaves), jnp.uint32)

    sums = jax.lax.cond(jnp.asarray(wanted), take, leave, list(leaves.values()))
    return dict(zip(leaves, sums, strict=True))


def checksum(leaf: Array) -> UInt32[Array, ""]:
    """The checksum of one array, whatever its shape: modular sums do not depend on the order of adding. Never 0."""
    # Folding the high half into the low one: a float's sign and exponent would else be lost to an even difference of
    # weights, and rows of a one-hot array could change places unseen.
    words = _words(leaf)
    if words.size % LANES == 0:  # sums of columns run several times faster than one long sum
        words = words.reshape(-1, LANES)
        words = (words ^ (words >> jnp.uint32(16))) * _weights(words.shape[0], 0x9E3779B1)[:, None]
        words = jnp.sum(words, axis=0, dtype=jnp.uint32)
    words = (words ^ (words >> jnp.uint32(16))) * _weights(words.size, 0x85EBCA77)
    return never_zero(jnp.sum(words, dtype=jnp.uint32) + jnp.uint32(0x9E3779B9))  # all zeros would else give 0


def never_zero(sums: UInt32[Array, "*n"]) -> UInt32[Array, "*n"]:
    """0 stands for a checksum that was not taken."""
    return jnp.where(sums == 0, jnp.uint32(1), sums)


def _weights(size: int, factor: int) -> UInt32[Array, " n"]:
    return (jax.lax.iota(jnp.uint32, size) * jnp.uint32(factor)) | jnp.uint32(1)


def _words(leaf: Array) -> UInt32[Array, " n"]:
    """The bit pattern of every element, widened to uint32; 64-bit elements give two words."""
    flat = jnp.ravel(leaf)
    if flat.dtype == jnp.bool_:
        return flat.astype(jnp.uint32)
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[flat.dtype.itemsize]
    return jnp.ravel(jax.lax.bitcast_convert_type(flat, unsigned)).astype(jnp.uint32)
