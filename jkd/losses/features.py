"""Losses between two taps, sample by sample."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def fitnet(student_feature: Float[Array, "b *s"], teacher_feature: Float[Array, "b *t"]) -> Float[Array, ""]:
    """Mean squared error between two taps; the larger of two maps is average-pooled to the smaller.

    Args:
      student_feature: `[B, D]`, or a map `[B, H, W, C]`.
      teacher_feature: of the same rank and width; a map's height and width may be a multiple or a divisor.

    Raises:
      ValueError: rank or width differ, or one map's size does not divide the other's.

    References: Romero et al. 2015, arXiv 1412.6550.
    """
    student = student_feature.astype(jnp.float32)
    teacher = jax.lax.stop_gradient(teacher_feature.astype(jnp.float32))
    if student.ndim != teacher.ndim or student.shape[-1] != teacher.shape[-1]:
        raise ValueError(
            f"fitnet: expected taps of the same rank and width, got {student.shape[1:]} (student) and "
            f"{teacher.shape[1:]} (teacher). Choose another tap, or map the student's to the teacher's width."
        )
    if student.ndim == 4:
        height, width = (min(pair) for pair in zip(student.shape[1:3], teacher.shape[1:3], strict=True))
        student, teacher = _pool(student, height, width), _pool(teacher, height, width)
    return jnp.mean((student - teacher) ** 2)


def _pool(feature: Float[Array, "b H W c"], height: int, width: int) -> Float[Array, "b h w c"]:
    """Average pooling to `height` x `width`."""
    batch, rows, columns, channels = feature.shape
    if rows % height or columns % width:
        raise ValueError(
            f"fitnet: cannot pool a map of {rows} x {columns} to {height} x {width}: the sizes do not divide."
            " Choose taps of which one's height and width are multiples of the other's."
        )
    blocks = feature.reshape(batch, height, rows // height, width, columns // width, channels)
    return jnp.mean(blocks, axis=(2, 4))
