"""Losses about which of the teacher's units fire, of maps from before their ReLU or after it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jkd.losses.features import check_channels, pool_alike


def activation_boundary(
    student_feature: Float[Array, "b *s c"], teacher_feature: Float[Array, "b *t d"], *, margin: float
) -> Float[Array, ""]:
    """Squared distance to the side of zero that the teacher's unit is on, by a margin; summed, averaged over samples.

    Where the teacher fires (t > 0), max(0, m - s)^2, elsewhere max(0, m + s)^2. How strongly it fires is not learned.
    The paper trains the student on this alone first, over several stages, each of half the weight of the next.

    Args:
      student_feature: mapped to the teacher's channels.
      teacher_feature: before its ReLU, or after it, which is the same unless it has to be pooled to the student's size.
      margin: m.

    Raises:
      ValueError: positions cannot be made alike, or channels differ.

    References: Heo et al. 2019, arXiv 1811.03233.
    """
    student, teacher = _alike("activation_boundary", student_feature, teacher_feature)
    apart = jnp.where(teacher > 0, margin - student, margin + student)
    return jnp.sum(jnp.maximum(apart, 0.0) ** 2) / len(student)


def overhaul(student_feature: Float[Array, "b *s c"], teacher_feature: Float[Array, "b *t d"]) -> Float[Array, ""]:
    """`partial_l2` to the teacher's map, with the mean of each channel's negative values in the batch as its margin.

    The paper computes the margins from the teacher's BatchNorm instead, maps the student by a layer with BatchNorm, and
    gives each stage half of the weight of the next. A map from after the ReLU has nothing below zero, so its margins
    are 0: take it from before.

    Raises:
      ValueError: positions cannot be made alike, or channels differ.

    References: Heo et al. 2019, arXiv 1904.01866.
    """
    negative = teacher_feature.astype(jnp.float32) < 0
    over = tuple(range(teacher_feature.ndim - 1))
    count = jnp.sum(negative, axis=over, keepdims=True).astype(jnp.float32)
    total = jnp.sum(jnp.where(negative, teacher_feature.astype(jnp.float32), 0.0), axis=over, keepdims=True)
    return partial_l2(student_feature, teacher_feature, total / jnp.maximum(count, 1.0))


def partial_l2(
    student_feature: Float[Array, "b *s c"], teacher_feature: Float[Array, "b *t d"], margin: Float[Array, "1 *u d"]
) -> Float[Array, ""]:
    """Squared error to max(t, margin), but none where that is not positive and s is below it; summed, over samples."""
    student, teacher = _alike("overhaul", student_feature, teacher_feature)
    target = jax.lax.stop_gradient(jnp.maximum(teacher, margin))
    counts = (target > 0) | (student > target)
    return jnp.sum(jnp.where(counts, student - target, 0.0) ** 2) / len(student)


def _alike(
    name: str, student: Float[Array, "b *s c"], teacher: Float[Array, "b *t d"]
) -> tuple[Float[Array, "b *p c"], Float[Array, "b *p d"]]:
    teacher = jax.lax.stop_gradient(teacher.astype(jnp.float32))
    student, teacher = pool_alike(name, student.astype(jnp.float32), teacher)
    check_channels(name, student, teacher)
    return student, teacher
