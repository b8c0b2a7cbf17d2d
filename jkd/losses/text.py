"""Losses between the taps of two encoders of one tokenised text, token by token.

All take `mask` `[B, L]`, 1 at a real token and 0 at padding. What stands at padding, NaN included, changes nothing, and
every real token (every pair of real tokens) of the batch counts the same. Both networks must see the same tokens; where
a network has another width, its tap is first mapped by a learned linear map (`regress` of a method).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jkd.losses.logits import kl_divergence

MASKED = -1e9  # finite, so that a masked key has probability 0 and no NaN
FLOOR = 1e-12  # probabilities below have the logarithm of this one, and no gradient


def hidden_mse(
    student_feature: Float[Array, "b ls ds"], teacher_feature: Float[Array, "b lt dt"], mask: Float[Array, "b l"]
) -> Float[Array, ""]:
    """TinyBERT's loss on hidden states, and on the embedding layer: mean squared error over the real tokens.

    Args:
      student_feature: hidden states after a layer (or the output of the embedding layer), of the teacher's width.
      teacher_feature: those after the layer that the layer map pairs it with.
      mask: 1 at a real token, else 0.

    Raises:
      ValueError: shapes differ.

    References: Jiao et al. 2020, arXiv 1909.10351, equations 8 and 9.
    """
    _check_same("hidden_mse", student_feature, teacher_feature)
    real = (mask > 0)[..., None]
    student, teacher = _clean(student_feature, real), jax.lax.stop_gradient(_clean(teacher_feature, real))
    return _mean(jnp.mean((student - teacher) ** 2, axis=-1), mask > 0)


def attention_mse(
    student_feature: Float[Array, "b hs ls ls"],
    teacher_feature: Float[Array, "b ht lt lt"],
    mask: Float[Array, "b l"],
    *,
    softmax: bool = False,
) -> Float[Array, ""]:
    """TinyBERT's loss on attention: mean squared error over heads and pairs of real tokens.

    The taps are compared as they are, scores before the softmax (as TinyBERT does) or probabilities after it.
    Where the numbers of heads differ, the mean over the heads of each is.

    Args:
      student_feature: `[B, H, queries, keys]`.
      teacher_feature: the same of the paired layer; its number of heads may differ.
      mask: 1 at a real token; padded keys and padded queries are left out.
      softmax: whether the taps are scores to be compared after a softmax over the real keys.

    Raises:
      ValueError: lengths differ.

    References: Jiao et al. 2020, arXiv 1909.10351, equation 7.
    """
    _check_length("attention_mse", student_feature, teacher_feature)
    pairs = _pairs(mask)
    student, teacher = _clean(student_feature, pairs), jax.lax.stop_gradient(_clean(teacher_feature, pairs))
    if softmax:
        student, teacher = jnp.exp(_log_softmax(student, pairs)), jnp.exp(_log_softmax(teacher, pairs))
    if student.shape[1] != teacher.shape[1]:
        student, teacher = (jnp.mean(each, axis=1, keepdims=True) for each in (student, teacher))
    return _mean((student - teacher) ** 2, pairs)


def attention_kl(
    student_feature: Float[Array, "b hs ls ls"],
    teacher_feature: Float[Array, "b ht lt lt"],
    mask: Float[Array, "b l"],
    *,
    scores: bool = False,
) -> Float[Array, ""]:
    """MiniLM's loss on the last layer's attention: KL(teacher || student) over the real keys.

    Averaged over heads and real queries. Where the numbers of heads differ, the mean attention of each is compared.

    Args:
      student_feature: attention `[B, H, queries, keys]`.
      teacher_feature: the same of the teacher; its number of heads may differ.
      mask: 1 at a real token; padded keys get no probability, padded queries are left out.
      scores: whether the taps are scores before the softmax; else they are probabilities, of which those below 1e-12
        have no gradient.

    Raises:
      ValueError: lengths differ.

    References: Wang et al. 2020, arXiv 2002.10957, equation 6.
    """
    _check_length("attention_kl", student_feature, teacher_feature)
    pairs = _pairs(mask)

    def log_attention(feature: Float[Array, "b h l l"]) -> Float[Array, "b h l l"]:
        entries = _clean(feature, pairs)
        return _log_softmax(entries if scores else jnp.log(jnp.maximum(entries, FLOOR)), pairs)

    student, teacher = log_attention(student_feature), jax.lax.stop_gradient(log_attention(teacher_feature))
    if student.shape[1] != teacher.shape[1]:
        student, teacher = _head_mean(student), _head_mean(teacher)
    return _mean(kl_divergence(jnp.exp(teacher), student), (mask > 0)[:, None])


def relation_kl(
    student_feature: Float[Array, "b *hs ls ds"],
    teacher_feature: Float[Array, "b *ht lt dt"],
    mask: Float[Array, "b l"],
    *,
    heads: int = 0,
) -> Float[Array, ""]:
    """MiniLM's value relation, MiniLMv2's query, key and value relations: KL of the tokens' relations to each other.

    The relation of a head is softmax(X X' / sqrt(d)) over the real keys, X `[L, d]` being the head's queries, keys or
    values. KL(teacher || student), averaged over heads and real tokens. No map of widths is needed, d may differ.

    With `heads`, the heads of each network are laid side by side (`[B, L, H d]`) and cut anew into so many *relation
    heads*, so that networks of any two numbers of heads can be compared: MiniLMv2, which adds this loss over
    queries, keys and values of one layer. With 0, heads are taken as they are: MiniLM, on the last layer's values.

    Args:
      student_feature: `[B, H, L, d]`, or `[B, L, H d]` with the heads already side by side.
      teacher_feature: the same of the teacher.
      mask: 1 at a real token.
      heads: number of relation heads; 0 for the networks' own.

    Raises:
      ValueError: lengths, or with `heads=0` numbers of heads, differ; or `heads` does not divide a width.

    References: Wang et al. 2020, arXiv 2002.10957, equation 8; Wang et al. 2021, arXiv 2012.15828, equations 5 to 7.
    """
    _check_length("relation_kl", student_feature, teacher_feature)
    real = (mask > 0)[:, None, :, None]
    student, teacher = (_split(each, heads) for each in (student_feature, teacher_feature))
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(
            f"relation_kl: {student.shape[1]} heads (student) against {teacher.shape[1]} (teacher). Set `heads`, the"
            " number of relation heads that both are cut into anew."
        )
    pairs = _pairs(mask)

    def log_relation(rows: Float[Array, "b h l d"]) -> Float[Array, "b h l l"]:
        rows = _clean(rows, real)
        products = jnp.einsum("bhqd,bhkd->bhqk", rows, rows, precision="highest")
        return _log_softmax(products / jnp.sqrt(jnp.float32(rows.shape[-1])), pairs)

    target = jnp.exp(jax.lax.stop_gradient(log_relation(teacher)))
    return _mean(kl_divergence(target, log_relation(student)), (mask > 0)[:, None])


def _split(feature: Float[Array, "b *h l d"], heads: int) -> Float[Array, "b r l e"]:
    """Lays the heads side by side and cuts them into `heads`; 0 leaves them as they are."""
    if not heads:
        return feature if feature.ndim == 4 else feature[:, None]
    batch, length = feature.shape[0], feature.shape[-2]
    flat = feature if feature.ndim == 3 else jnp.moveaxis(feature, 1, 2).reshape(batch, length, -1)
    if flat.shape[-1] % heads:
        raise ValueError(f"relation_kl: a width of {flat.shape[-1]} cannot be cut into {heads} relation heads.")
    return jnp.moveaxis(flat.reshape(batch, length, heads, -1), 2, 1)


def _pairs(mask: Float[Array, "b l"]) -> Bool[Array, "b 1 l l"]:
    real = mask > 0
    return (real[:, :, None] & real[:, None, :])[:, None]


def _clean(feature: Float[Array, "..."], real: Bool[Array, "..."]) -> Float[Array, "..."]:
    """Float32, and 0 where not `real`: before anything is computed, so that a NaN there has no gradient either."""
    return jnp.where(real, feature.astype(jnp.float32), 0.0)


def _log_softmax(scores: Float[Array, "b h l l"], pairs: Bool[Array, "b 1 l l"]) -> Float[Array, "b h l l"]:
    return jax.nn.log_softmax(jnp.where(pairs, scores, MASKED))


def _head_mean(log_probs: Float[Array, "b h l l"]) -> Float[Array, "b 1 l l"]:
    """Logarithm of the mean over heads of the probabilities."""
    heads = jnp.float32(log_probs.shape[1])
    return jax.nn.logsumexp(log_probs, axis=1, keepdims=True) - jnp.log(heads)


def _mean(values: Float[Array, "..."], real: Bool[Array, "..."]) -> Float[Array, ""]:
    """Mean where `real`, which is broadcast to the values' shape; 0 where nothing is."""
    weights = jnp.broadcast_to(real, values.shape).astype(jnp.float32)
    return jnp.sum(values * weights) / jnp.maximum(jnp.sum(weights), 1.0)


def _check_same(name: str, student: Array, teacher: Array) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            f"{name}: expected taps of one shape, got {student.shape[1:]} (student) and {teacher.shape[1:]} (teacher)."
            " Both networks must see the same tokens; a learned linear map makes the widths agree."
        )


def _check_length(name: str, student: Array, teacher: Array) -> None:
    if student.shape[-2] != teacher.shape[-2]:
        raise ValueError(
            f"{name}: texts of {student.shape[-2]} (student) and {teacher.shape[-2]} tokens (teacher). Token losses"
            " need one tokenizer for both networks."
        )
