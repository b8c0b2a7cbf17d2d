"""Rows, inner products and norms whose gradients are finite where rows are zero or coincide."""

import jax.numpy as jnp
from jaxtyping import Array, Float

# Squared lengths up to this one count as 0 (as in RKD's authors' code), and have gradient 0.
COINCIDENT = 1e-12


def flat_rows(feature: Float[Array, "b *s"]) -> Float[Array, "b d"]:
    """A float32 row per sample."""
    return feature.astype(jnp.float32).reshape(feature.shape[0], -1)


def inner(left: Float[Array, "*n b d"], right: Float[Array, "*n c d"]) -> Float[Array, "*n b c"]:
    """All inner products of two sets of rows."""
    # Elsewhere than on CPU the default precision is less than float32.
    return jnp.matmul(left, jnp.swapaxes(right, -1, -2), precision="highest")


def norm(rows: Float[Array, "*b d"]) -> Float[Array, "*b"]:
    """Euclidean norm; 0 with gradient 0 where it is all but 0."""
    squared = jnp.sum(rows**2, axis=-1)
    apart = squared > COINCIDENT
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0)


def unit(rows: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Rows scaled to unit norm; a row of zeros stays one."""
    length = norm(rows)[..., None]
    return jnp.where(length > 0, rows / jnp.where(length > 0, length, 1.0), 0.0)


def standard(rows: Float[Array, "*b d"], epsilon: float) -> Float[Array, "*b d"]:
    """Rows less their mean, over their standard deviation (of the sample, d - 1) and `epsilon`; constant ones are 0."""
    centred = rows - jnp.mean(rows, axis=-1, keepdims=True)
    deviation = norm(centred)[..., None] / jnp.sqrt(jnp.float32(max(rows.shape[-1] - 1, 1)))
    return jnp.where(deviation > 0, centred / (deviation + epsilon), 0.0)
