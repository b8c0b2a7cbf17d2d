"""Losses that tell a sample's own pair from the pairs of the other samples."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jkd.losses.logits import mean_of

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
