"""project: both sides mapped into one small space of unit length, where student and graph nodes can be compared."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

TINY = 1e-12  # added to a squared length: the gradient at a zero vector stays finite


def init_linear(key: Key[Array, ""], features: int, width: int) -> dict[str, Array]:
    """A linear map `features -> width` with bias, float32, weights of variance 1 / features."""
    return {"kernel": features**-0.5 * jax.random.normal(key, (features, width)), "bias": jnp.zeros(width)}


def linear(params: Mapping[str, Array], feature: Float[Array, "*b D"]) -> Float[Array, "*b d"]:
    """feature W + b."""
    return feature @ params["kernel"] + jnp.broadcast_to(
        params["bias"], (*feature.shape[:-1], len(params["bias"]))
    )


def project(params: Mapping[str, Array], feature: Float[Array, "B D"]) -> Float[Array, "B d"]:
    """normalise(P feature), each row of length 1.

    The teacher's feature has joined what its neighbours said (`relation.join_features`), the student's nothing.
    """
    return normalise(linear(params, feature))


def normalise(x: Float[Array, "B d"]) -> Float[Array, "B d"]:
    """Rows scaled to length 1; a zero row stays zero, with a finite gradient."""
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + jnp.asarray(TINY, x.dtype))
