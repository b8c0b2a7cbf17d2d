"""join: what a node's neighbours say, gathered over the edges, either of beliefs or of features.

Pure functions of arrays. `join_beliefs` runs once, when students are built; `feature_join` runs inside the
step, on the teacher's side alone: the student's joins nothing, so a lone input has the same projection as in
a batch.
"""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

Given = Array | np.ndarray  # arrays of either library
LEAST = 1e-12  # beliefs below this count as this when a logarithm or a power is taken


def row_softmax(
    weights: Float[Given, "*v N K"], ids: Int[Given, "*v N K"], temperature: Float[Array, ""] | float
) -> Float[Array, "*v N K"]:
    """Softmax of similarity / temperature over the neighbours present; all zero in a row that has none."""
    return _softmax(weights / jnp.asarray(temperature, weights.dtype), ids >= 0)


def _softmax(logits: Float[Given, "*n K"], present: Bool[Given, "*n K"]) -> Float[Array, "*n K"]:
    """Softmax over the entries present, zeros in a row that has none, finite gradients either way."""
    logits = jnp.where(present, logits, -jnp.inf)
    top = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    raised = jnp.exp(logits - jnp.where(jnp.isfinite(top), top, jnp.zeros_like(top)))
    total = jnp.sum(raised, axis=-1, keepdims=True)
    return raised / jnp.where(total > 0, total, jnp.ones_like(total))


def q0(
    beliefs: Float[Given, "N C"], labels: Int[Given, " N"], inject: bool | Bool[Array, ""] = True
) -> Float[Array, "N C"]:
    """Where the join starts: the label where one is known (and `inject`), the teacher's belief elsewhere."""
    known = (labels >= 0) & jnp.asarray(inject)
    hard = jax.nn.one_hot(labels, beliefs.shape[-1], dtype=beliefs.dtype)
    return jnp.where(known[:, None], hard, beliefs)


@partial(jax.jit, static_argnames="rounds")
def join_beliefs(
    q0: Float[Given, "N C"],
    ids: Int[Given, "V N K"],
    weights: Float[Given, "V N K"],
    temperature: Float[Array, ""] | float,
    strength: Float[Array, ""] | float,
    rounds: int,
) -> Float[Array, "N C"]:
    """Diffuses beliefs along the edges: `rounds` times q <- (1 - a) q0 + a W q, with a = `strength`.

    W is the row softmax of similarity / temperature; with several views the mean of theirs, over the views in
    which a node has neighbours. A node without any keeps q0. Rows that sum to 1 keep summing to 1.

    Args:
      q0: beliefs at the start, rows sum to 1.
      ids: neighbour tables of one or more views, -1 where there is none.
      weights: similarities.
      temperature: of the row softmax.
      strength: a, from 0 (nothing moves) to 1; traced, so trying another one compiles nothing.
      rounds: static.

    Reference: Zhou et al., Learning with Local and Global Consistency, NIPS 2003 (on a symmetric graph).
    """
    views, nodes, k = ids.shape
    attention = row_softmax(weights, ids, temperature).astype(q0.dtype)
    linked = jnp.any(ids >= 0, axis=-1)  # [V, N]
    count = jnp.sum(linked, axis=0).astype(q0.dtype)
    attention = attention / jnp.maximum(count, jnp.ones_like(count))[None, :, None]
    flat_ids = jnp.moveaxis(jnp.maximum(ids, 0), 0, 1).reshape(nodes, views * k)
    flat = jnp.moveaxis(attention, 0, 1).reshape(nodes, views * k)
    a = jnp.asarray(strength, q0.dtype) * (count > 0).astype(q0.dtype)[:, None]

    def diffuse(_: Array, q: Array) -> Array:
        # One neighbour at a time: [N, C] in memory, never [N, V K, C].
        gathered = sum(flat[:, j, None] * q[flat_ids[:, j]] for j in range(views * k))
        return (1 - a) * q0 + a * gathered

    return jax.lax.fori_loop(0, rounds, diffuse, q0)


def sharpen(q: Float[Given, "*b C"], power: Float[Array, ""] | float) -> Float[Array, "*b C"]:
    """q ** power, renormalised: above 1 it makes beliefs more decided. At 1 nothing changes."""
    power = jnp.asarray(power, q.dtype)
    raised = jax.nn.softmax(jnp.log(jnp.maximum(q, jnp.asarray(LEAST, q.dtype))) * power, axis=-1)
    return jnp.where(power == 1, q, raised)


def init_feature_join(key: Key[Array, ""], features: int, views: int, heads: int) -> dict[str, Array]:
    """Parameters of `feature_join`, float32: three maps `[D, heads, E]`, E = D / heads, and trust."""
    shape = (features, heads, max(1, features // heads))
    maps = {
        name: features**-0.5 * jax.random.normal(jax.random.fold_in(key, index), shape)
        for index, name in enumerate(("query", "key", "value"))
    }
    # A head first adds the edge's weight to its logit as it is, and trusts every view alike.
    return maps | {"weight": jnp.ones(heads), "view": jnp.zeros((views, heads))}


def feature_join(
    params: Mapping[str, Array],
    anchors: Float[Given, "B D"],
    neighbours: Float[Given, "B V K D"],
    weights: Float[Given, "B V K"],
    mask: Bool[Given, "B V K"],
) -> Float[Array, "B R"]:
    """r_i = for each head, the sum over neighbours j of a(i, j) V t_j; heads side by side, R = heads x E.

    a is a softmax over the neighbours present, of all V types of edges together (views of `similar_to`, relations), of
    the scaled product of query and key plus the edge's weight and its type, each times what the head has learned to
    give on it. An anchor without neighbours gets zeros.

    Args:
      params: from `init_feature_join`.
      anchors: the anchors' own teacher features.
      neighbours: the features of their neighbours by each type of edges.
      weights: the edges' weights.
      mask: which neighbours exist.

    Reference: Velickovic et al., Graph Attention Networks, ICLR 2018 (here with dot products and typed
    edges).
    """
    # A key meets one query and a value one sum, so the maps go to the query and the sum instead: B rows, not B V K.
    features = neighbours.reshape(neighbours.shape[0], -1, neighbours.shape[-1])  # [B, V K, D]
    query = jnp.einsum("bd,dhe->bhe", anchors, params["query"])
    logits = jnp.einsum("bhd,bnd->bhn", jnp.einsum("bhe,dhe->bhd", query, params["key"]), features)
    trust = params["weight"][None, :, None, None] * weights[:, None] + params["view"].T[None, :, :, None]
    logits = logits * query.shape[-1] ** -0.5 + trust.reshape(logits.shape)
    attention = _softmax(logits, jnp.broadcast_to(mask.reshape(mask.shape[0], 1, -1), logits.shape))
    gathered = jnp.einsum("bhn,bnd->bhd", attention, features)
    return jnp.einsum("bhd,dhe->bhe", gathered, params["value"]).reshape(query.shape[0], -1)
