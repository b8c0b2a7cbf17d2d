"""A global batch cut into equal parts, put together again, and sums over parts in an order that is always the same."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any


def cut(tree: PyTree, parts: int, strided: bool = False) -> list[PyTree]:
    """`tree` of arrays `[B, ...]` as `parts` trees of arrays `[B / parts, ...]`; scalars go into every part.

    Args:
      tree: arrays with the samples along the first axis, and scalars.
      parts: a divisor of B.
      strided: part p takes samples p, p + parts, ...; otherwise a block of neighbouring samples.
    """

    def piece(leaf: Any, part: int) -> Any:
        if not leaf.ndim:
            return leaf
        size = leaf.shape[0] // parts
        return leaf[part::parts] if strided else leaf[part * size : (part + 1) * size]

    return [jax.tree.map(lambda leaf, part=part: piece(leaf, part), tree) for part in range(parts)]


def join(trees: Sequence[PyTree], strided: bool = False) -> PyTree:
    """The inverse of `cut`; of scalars, the first."""

    def together(*leaves: Any) -> Any:
        if not leaves[0].ndim:
            return leaves[0]
        size, *rest = leaves[0].shape
        return jnp.stack(leaves, 1 if strided else 0).reshape(size * len(leaves), *rest)  # -1 fails where 0 are held

    return jax.tree.map(together, *trees)


def tree_sum(trees: Sequence[PyTree]) -> PyTree:
    """The sum over trees, pair by pair as in a tournament: the order depends on their number alone."""
    trees = list(trees)
    while len(trees) > 1:
        pairs = [jax.tree.map(jnp.add, *trees[at : at + 2]) for at in range(0, len(trees) - 1, 2)]
        trees = pairs + trees[2 * len(pairs) :]
    return trees[0]
