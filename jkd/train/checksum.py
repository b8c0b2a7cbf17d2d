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
import numpy as np
from jaxtyping import Array, UInt32

from jkd import digest

OPTIMISER = "update/opt_state/"
LANES = 8  # columns that are summed side by side
SMALL = 1 << 16  # words; larger leaves are not worth a copy
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
        return _together([_words(leaf) for leaf in leaves])

    def leave(leaves: list[Array]) -> Array:
        return jnp.zeros(len(leaves), jnp.uint32)

    sums = jax.lax.cond(jnp.asarray(wanted), take, leave, list(leaves.values()))
    return dict(zip(leaves, sums, strict=True))


def checksum(leaf: Array) -> UInt32[Array, ""]:
    """The checksum of one array, whatever its shape: modular sums do not depend on the order of adding. Never 0."""
    return _sums(_words(leaf)[None])[0]


def _together(leaves: list[UInt32[Array, " _"]]) -> UInt32[Array, " leaves"]:
    """The checksum of every leaf's words, of those of one size together, since a network's leaves are many and alike.

    A detector has two thousand, most of them of a few dozen words; one by one they are half of what is compiled.
    """
    of_size: dict[int, list[int]] = {}
    for at, words in enumerate(leaves):
        of_size.setdefault(words.size, []).append(at)
    groups: list[list[int]] = []
    for size, ats in of_size.items():
        groups += [ats] if size <= SMALL else [[at] for at in ats]
    sums = jnp.concatenate([_sums(jnp.stack([leaves[at] for at in ats])) for ats in groups])
    return sums[np.argsort(np.concatenate(groups))]


def _sums(rows: UInt32[Array, "r n"]) -> UInt32[Array, " r"]:
    """The checksum of each row of words."""
    # Folding the high half into the low one: a float's sign and exponent would else be lost to an even difference of
    # weights, and rows of a one-hot array could change places unseen.
    if rows.shape[1] % LANES == 0:  # sums of columns run several times faster than one long sum
        rows = rows.reshape(len(rows), -1, LANES)
        rows = (rows ^ (rows >> jnp.uint32(16))) * _weights(rows.shape[1], 0x9E3779B1)[None, :, None]
        rows = jnp.sum(rows, axis=1, dtype=jnp.uint32)
    rows = (rows ^ (rows >> jnp.uint32(16))) * _weights(rows.shape[1], 0x85EBCA77)[None]
    # All zeros would else give 0.
    return never_zero(jnp.sum(rows, axis=1, dtype=jnp.uint32) + jnp.uint32(0x9E3779B9))


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
