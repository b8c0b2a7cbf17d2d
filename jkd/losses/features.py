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
    student, teacher = pool_alike("fitnet", student, teacher)
    return jnp.mean((student - teacher) ** 2)


def pool_alike(
    name: str, student: Float[Array, "b *s c"], teacher: Float[Array, "b *t d"]
) -> tuple[Float[Array, "b *p c"], Float[Array, "b *p d"]]:
    """Average-pools the larger of two maps `[B, H, W, C]` to the smaller; taps of other ranks stay as they are.

    Raises:
      ValueError: their positions cannot be made alike; `name` is the loss's, for the message.
    """
    if student.ndim == teacher.ndim == 4:
        height, width = (min(pair) for pair in zip(student.shape[1:3], teacher.shape[1:3], strict=True))
        return _pool(name, student, height, width), _pool(name, teacher, height, width)
    if student.shape[1:-1] != teacher.shape[1:-1]:
        raise ValueError(
            f"{name}: expected taps of the same positions, got {student.shape[1:]} (student) and {teacher.shape[1:]}"
            " (teacher). Choose another tap."
        )
    return student, teacher


def _pool(name: str, feature: Float[Array, "b H W c"], height: int, width: int) -> Float[Array, "b h w c"]:
    """Average pooling to `height` x `width`."""
    batch, rows, columns, channels = feature.shape
    if rows % height or columns % width:
        raise ValueError(
            f"{name}: cannot pool a map of {rows} x {columns} to {height} x {width}: the sizes do not divide."
            " Choose taps of which one's height and width are multiples of the other's."
        )
    blocks = feature.reshape(batch, height, rows // height, width, columns // width, channels)
    return jnp.mean(blocks, axis=(2, 4))
