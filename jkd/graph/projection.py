"""project: both sides mapped into one small space of unit length, where a student meets the graph's nodes."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jkd.graph.relation import Given

TINY = 1e-12  # added to a squared length: the gradient at a zero vector stays finite


def init_projection(key: Key[Array, ""], features: int, width: int) -> dict[str, Array]:
    """A linear map `features -> width` with bias, float32, weights of variance 1 / features."""
    return {"kernel": features**-0.5 * jax.random.normal(key, (features, width)), "bias": jnp.zeros(width)}


def project(params: Mapping[str, Array], *parts: Float[Given, "B _"]) -> Float[Array, "B d"]:
    """normalise(P [part; part; ...]): the parts side by side through one linear map, rows of length 1.

    The teacher's side joins what its neighbours said, `project(params, t, r)`; the student's side joins
    nothing, `project(params, s)`.
    """
    return normalise(jnp.concatenate(parts, axis=-1) @ params["kernel"] + params["bias"][None, :])


def normalise(x: Float[Given, "B d"]) -> Float[Array, "B d"]:
    """Rows scaled to length 1; a zero row stays zero, with a finite gradient."""
    x = jnp.asarray(x)
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + jnp.asarray(TINY, x.dtype))
