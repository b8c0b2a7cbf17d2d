"""Losses between a student's logits and a target: labels, the teacher's beliefs, joined beliefs."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num


def kl_divergence(target: Float[Array, "*b c"], log_probs: Float[Array, "*b c"]) -> Float[Array, "*b"]:
    """KL(target || probs) of each row, in nats.

    Args:
      target: probabilities; a zero contributes nothing, as 0 log 0 = 0.
      log_probs: log-probabilities of the approximating distribution.
    """
    positive = target > 0
    entropy = jnp.where(positive, target * jnp.log(jnp.where(positive, target, 1.0)), 0.0)
    return jnp.sum(entropy - target * log_probs, axis=-1)


def cross_entropy(
    student_logits: Float[Array, "b c"],
    label_target: Float[Array, "b c"],
    labelled: Float[Array, " b"],
    *,
    smoothing: float = 0.0,
) -> Float[Array, ""]:
    """Cross-entropy with the labels, averaged over the samples that have one; 0 where none has.

    Args:
      student_logits: unnormalised log-probabilities.
      label_target: one-hot label, or a mixture of two; a row of zeros where the label is unknown.
      labelled: 1 where the label is known, else 0; for a mixture, the share of it that is known.
      smoothing: share of each target that is spread evenly over the classes.

    References: Szegedy et al. 2016, arXiv 1512.00567 (smoothing).
    """
    target, labelled = label_target.astype(jnp.float32), labelled.astype(jnp.float32)
    mass = jnp.sum(target, axis=-1, keepdims=True)
    target = (1 - smoothing) * target + smoothing * mass / target.shape[-1]
    losses = -jnp.sum(target * _log_softmax(student_logits), axis=-1)
    return jnp.sum(losses) / jnp.maximum(jnp.sum(labelled), 1.0)  # unknown rows have no mass, so no loss


def kd(
    student_logits: Float[Array, "b c"],
    teacher_logits: Float[Array, "b c"],
    anchor_mask: Float[Array, " b"] | None = None,
    *,
    temperature: float,
) -> Float[Array, ""]:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), averaged over the batch, or the rows that the mask keeps.

    The factor T^2 keeps the size of the gradient about the same at any temperature.

    References: Hinton, Vinyals, Dean 2015, arXiv 1503.02531.
    """
    target = _beliefs(teacher_logits, temperature)
    return temperature**2 * mean_of(kl_divergence(target, _log_softmax(student_logits, temperature)), anchor_mask)


def smoothed_kd(
    student_logits: Float[Array, "b c"],
    teacher_logits: Float[Array, "b c"],
    anchor_mask: Float[Array, " b"] | None = None,
    *,
    smoothing: Num[Array, ""] | float,
) -> Float[Array, ""]:
    """KL((1 - s) softmax(teacher) + s / C || softmax(student)): the teacher's target, smoothed, at T = 1.

    The control for any method that softens the teacher's target: what does softening alone give?

    Args:
      student_logits: unnormalised log-probabilities.
      teacher_logits: the same of the teacher.
      anchor_mask: 1 where a row counts, else 0; default: all do.
      smoothing: s in [0, 1]; may be traced, so that a value picked per replicate does not compile again.
    """
    smoothing = jnp.asarray(smoothing, jnp.float32)
    target = (1 - smoothing) * _beliefs(teacher_logits) + smoothing / teacher_logits.shape[-1]
    return mean_of(kl_divergence(target, _log_softmax(student_logits)), anchor_mask)


def joined_beliefs(
    student_logits: Float[Array, "b c"],
    teacher_logits: Float[Array, "b c"],
    joined: Float[Array, "b c"],
    mix: Num[Array, ""] | float,
    anchor_mask: Float[Array, " b"] | None = None,
) -> Float[Array, ""]:
    """KL((1 - m) softmax(teacher) + m q || softmax(student)): teacher and knowledge graph as one target.

    Args:
      student_logits: unnormalised log-probabilities.
      teacher_logits: the same of the teacher, for the same (augmented) inputs.
      joined: q, the beliefs of these samples after they were diffused along the graph's edges; rows sum to 1.
      mix: m in [0, 1]; may be traced.
      anchor_mask: 1 where a row counts, else 0; default: all do.
    """
    mix = jnp.asarray(mix, jnp.float32)
    joined = jax.lax.stop_gradient(joined.astype(jnp.float32))
    target = (1 - mix) * _beliefs(teacher_logits) + mix * joined
    return mean_of(kl_divergence(target, _log_softmax(student_logits)), anchor_mask)


def mean_of(values: Float[Array, " b"], mask: Float[Array, " b"] | None) -> Float[Array, ""]:
    """The mean of all values, or of those whose mask is 1: 0 where there is none."""
    if mask is None:
        return jnp.mean(values)
    return jnp.sum(jnp.where(mask > 0, values, 0.0)) / jnp.maximum(jnp.sum(mask), 1.0)


def _log_softmax(logits: Float[Array, "b c"], temperature: float = 1.0) -> Float[Array, "b c"]:
    return jax.nn.log_softmax(logits.astype(jnp.float32) / temperature)


def _beliefs(teacher_logits: Float[Array, "b c"], temperature: float = 1.0) -> Float[Array, "b c"]:
    return jax.lax.stop_gradient(jnp.exp(_log_softmax(teacher_logits, temperature)))
