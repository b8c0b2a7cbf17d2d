"""Losses that tell a sample's own pair from the pairs of the other samples."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from jkd.losses.features import Shapes, init_linear, linear
from jkd.losses.logits import mean_of
from jkd.losses.norms import flat_rows, inner, unit
from jkd.losses.soft_targets import class_of

EMBEDDED = 128  # numbers that CRD and HKD embed a tap in, as in the authors' code
MASKED = -1e9  # finite: such an entry has probability 0, and no NaN


def info_nce(
    student_projection: Float[Array, "b p"],
    teacher_projection: Float[Array, "b p"],
    anchor_mask: Float[Array, " b"] | None = None,
    *,
    temperature: float,
) -> Float[Array, ""]:
    """InfoNCE: which teacher projection belongs to this student projection, among those of the whole batch?

    -mean_i log softmax_j(s_i . t_j / temperature) at j = i; the rest of the global batch are the negatives. Both
    projections are trained by it, and with the teacher's the relation network behind it; the teacher is not.

    Args:
      student_projection: unit-norm rows.
      teacher_projection: unit-norm rows, in the same order.
      anchor_mask: 1 where a row counts, else 0, and then it is no negative either; default: all do.
      temperature: of the softmax over the batch; smaller looks harder at the nearest negatives.

    References: van den Oord et al. 2018, arXiv 1807.03748; Tian et al. 2020, arXiv 1910.10699.
    """
    student, teacher = student_projection.astype(jnp.float32), teacher_projection.astype(jnp.float32)
    scores = jnp.matmul(student, teacher.T, precision="highest") / temperature
    if anchor_mask is not None:  # a row that pads keeps itself, so that its own softmax is finite
        others = (anchor_mask[None, :] > 0) | jnp.eye(len(scores), dtype=bool)
        scores = jnp.where(others, scores, MASKED)
    return -mean_of(jnp.diagonal(jax.nn.log_softmax(scores)), anchor_mask)


def crd(
    student_feature: Float[Array, "b *s"],
    teacher_feature: Float[Array, "b *t"],
    teacher_logits: Float[Array, "b c"],
    label_target: Float[Array, "b c"],
    labelled: Float[Array, " b"],
    context: Mapping[str, Any],
    *,
    temperature: float,
) -> Float[Array, ""]:
    """Contrastive representation distillation: is this a sample's own pair (s_i, t_i), or one with another class's t_j?

    With r = exp(s_i . t_j / temperature) over its mean, a pair is told to be a sample's own with probability
    r / (r + N), N the number of negatives; the loss is the negative log-likelihood, summed over a sample's pairs,
    averaged over samples. The negatives are the samples of other classes in the global batch; the mean is over them and
    has no gradient. The paper draws 16,384 negatives from a memory of the whole training set, which is not kept here,
    has that mean from its first batch, and has one such loss for each network, where this one trains both.

    Args:
      student_feature: the student's tap; it is embedded in 128 numbers, of unit norm, as is the teacher's.
      teacher_feature: the teacher's tap.
      teacher_logits: say the class of a sample without a label.
      label_target: the class where it is known.
      labelled: whether it is.
      context: both embeddings, from `init_crd`.
      temperature: 0.07 in the paper.

    References: Tian et al. 2020, arXiv 1910.10699.
    """
    student, teacher = _embedded(context, student_feature, teacher_feature)
    negative = _of_other_classes(teacher_logits, label_target, labelled)
    count = jnp.maximum(jnp.sum(negative, axis=1, keepdims=True), 1).astype(jnp.float32)
    scores = inner(student, teacher) / temperature
    known = jnp.sum(negative).astype(jnp.float32)
    mean = jax.nn.logsumexp(jnp.where(negative, scores, MASKED)) - jnp.log(jnp.maximum(known, 1.0))
    logits = scores - jax.lax.stop_gradient(jnp.where(known > 0, mean, 0.0)) - jnp.log(count)
    own = jax.nn.softplus(-jnp.diagonal(logits))
    others = jnp.sum(jnp.where(negative, jax.nn.softplus(logits), 0.0), axis=1)
    return jnp.mean(own + others)


def init_crd(key: Key[Array, ""], student: Shapes, teacher: Shapes) -> dict[str, Any]:
    """Parameters of a linear embedding for each network's tap, float32."""
    sides = {"student": student, "teacher": teacher}
    return {
        side: init_linear(jax.random.fold_in(key, index), math.prod(shapes[0][1:]), EMBEDDED)
        for index, (side, shapes) in enumerate(sides.items())
    }


def hkd(
    student_feature: Float[Array, "b *s"],
    teacher_feature: Float[Array, "b *t"],
    student_logits: Float[Array, "b c"],
    teacher_logits: Float[Array, "b c"],
    label_target: Float[Array, "b c"],
    labelled: Float[Array, " b"],
    context: Mapping[str, Any],
    *,
    temperature: float,
    k: int,
    share: float,
) -> Float[Array, ""]:
    """Holistic distillation: InfoNCE of embedded samples, and of what a graph network makes of them and neighbours.

    Each network's samples are joined with the `k` nearest by the cosine of its own softmax, themselves among them; one
    graph convolution gives g = unit(W_0 z + W_1 mean of the neighbours' z + b). Each network's z_i has the other's z_i
    as its pair, its g_i has unit((1 - share) z_i + share g_i) of the other; negatives are the other network's z of the
    samples of other classes in the global batch. Pairs and negatives have no gradient: they stand for the memories of
    the whole training set that the paper keeps, and that are not kept here. (In the authors' code negatives come from
    the anchor's own memory, its pair from the other's.)

    Args:
      student_feature: the student's tap; it is embedded in 128 numbers, of unit norm, as is the teacher's.
      teacher_feature: the teacher's tap.
      student_logits: the student's graph is made of them.
      teacher_logits: the teacher's is, and they say the class of a sample without a label.
      label_target: the class where it is known.
      labelled: whether it is.
      context: embeddings and graph convolutions, from `init_hkd`.
      temperature: 0.07 in the paper.
      k: neighbours, at most as many as there are samples.
      share: of the graph in the positive; 0.25 in the authors' code.

    References: Zhou et al. 2021, arXiv 2108.05507.
    """
    rows = _embedded(context, student_feature, teacher_feature)
    graphs = [
        _convolved(context[name], z, logits, k)
        for name, z, logits in zip(
            ("student_graph", "teacher_graph"), rows, (student_logits, teacher_logits), strict=True
        )
    ]
    negative = _of_other_classes(teacher_logits, label_target, labelled)
    total = jnp.zeros((), jnp.float32)
    for one, other in ((0, 1), (1, 0)):
        z, g = jax.lax.stop_gradient((rows[other], graphs[other]))
        total += _info_nce_of(rows[one], z, z, negative, temperature)
        total += _info_nce_of(graphs[one], unit((1 - share) * z + share * g), z, negative, temperature)
    return total


def init_hkd(key: Key[Array, ""], student: Shapes, teacher: Shapes) -> dict[str, Any]:
    """Parameters of `init_crd`, and of a graph convolution for each network."""
    params = init_crd(key, student, teacher)
    for index, side in enumerate(("student", "teacher")):
        params[f"{side}_graph"] = init_linear(jax.random.fold_in(key, 2 + index), 2 * EMBEDDED, EMBEDDED)
    return params


def _embedded(
    context: Mapping[str, Any], student: Float[Array, "b *s"], teacher: Float[Array, "b *t"]
) -> tuple[Float[Array, "b p"], Float[Array, "b p"]]:
    rows = flat_rows(student), jax.lax.stop_gradient(flat_rows(teacher))
    return unit(linear(context["student"], rows[0])), unit(linear(context["teacher"], rows[1]))


def _of_other_classes(
    teacher_logits: Float[Array, "b c"], label_target: Float[Array, "b c"], labelled: Float[Array, " b"]
) -> Bool[Array, "b b"]:
    own = jnp.argmax(class_of(teacher_logits, label_target, labelled), axis=-1)
    return own[:, None] != own[None, :]


def _convolved(
    params: Mapping[str, Any], z: Float[Array, "b p"], logits: Float[Array, "b c"], k: int
) -> Float[Array, "b p"]:
    """A graph convolution over each sample's `k` nearest by the cosine of the softmax, itself the first."""
    beliefs = unit(jax.nn.softmax(jax.lax.stop_gradient(logits).astype(jnp.float32)))
    nearness = jnp.where(jnp.eye(len(z), dtype=bool), 2.0, inner(beliefs, beliefs))
    neighbours = jax.lax.top_k(nearness, min(k, len(z)))[1]
    return unit(linear(params, jnp.concatenate([z, jnp.mean(z[neighbours], axis=1)], axis=-1)))


def _info_nce_of(
    anchor: Float[Array, "b p"],
    positive: Float[Array, "b p"],
    others: Float[Array, "b p"],
    negative: Bool[Array, "b b"],
    temperature: float,
) -> Float[Array, ""]:
    own = jnp.sum(anchor * positive, axis=-1) / temperature
    scores = jnp.where(negative, inner(anchor, others) / temperature, MASKED)
    return jnp.mean(jax.nn.logsumexp(jnp.concatenate([own[:, None], scores], axis=1), axis=1) - own)
