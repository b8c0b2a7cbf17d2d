"""Losses between two taps, sample by sample."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

Shapes = tuple[tuple[int, ...], ...]
VARIANCE = 5.0  # of VID's distribution at the start, and the least it can have, as in the authors' code
LEAST_VARIANCE = 1e-5


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


def vid(
    student_feature: Float[Array, "b *s"], teacher_feature: Float[Array, "b *t"], context: Mapping[str, Any]
) -> Float[Array, ""]:
    """Variational information distillation: (t - mu)^2 / (2 v) + log(v) / 2, averaged, of a Gaussian for the teacher.

    mu is the student's tap through three layers, position by position; v one variance per channel. The larger of two
    maps is average-pooled to the smaller. It falls below 0 where the variance is small.

    Args:
      student_feature: the student's tap.
      teacher_feature: the teacher's, of the same rank.
      context: the layers and the variances, from `init_vid`.

    Raises:
      ValueError: positions cannot be made alike.

    References: Ahn et al. 2019, arXiv 1904.05835.
    """
    student, teacher = student_feature.astype(jnp.float32), teacher_feature.astype(jnp.float32)
    student, teacher = pool_alike("vid", student, jax.lax.stop_gradient(teacher))
    for layer in ("layer0", "layer1"):
        student = jax.nn.relu(linear(context[layer], student))
    variance = jax.nn.softplus(context["variance"]).reshape((1,) * (teacher.ndim - 1) + (-1,)) + LEAST_VARIANCE
    return jnp.mean((teacher - linear(context["layer2"], student)) ** 2 / variance + jnp.log(variance)) / 2


def init_vid(key: Key[Array, ""], student: Shapes, teacher: Shapes) -> dict[str, Any]:
    """Parameters of `vid`, float32: three layers of the teacher's width, LeCun-normal, and variances of 5."""
    wide, out = student[0][-1], teacher[0][-1]
    start = jnp.log(jnp.expm1(VARIANCE - LEAST_VARIANCE))  # softplus of it is the variance
    layers = {
        f"layer{layer}": init_linear(jax.random.fold_in(key, layer), width, out)
        for layer, width in enumerate((wide, out, out))
    }
    return layers | {"variance": jnp.full(out, start, jnp.float32)}


def linear(params: Mapping[str, Any], x: Float[Array, "*b c"]) -> Float[Array, "*b d"]:
    """x W + b in full float32 precision, b left out where there is none."""
    mapped = jnp.matmul(x, params["kernel"], precision="highest")
    return mapped + params["bias"].reshape((1,) * (x.ndim - 1) + (-1,)) if "bias" in params else mapped


def init_linear(key: Key[Array, ""], features: int, width: int) -> dict[str, Array]:
    """Parameters of `linear`, float32: LeCun-normal, and zero."""
    lecun = jax.nn.initializers.lecun_normal()
    return {"kernel": lecun(key, (features, width), jnp.float32), "bias": jnp.zeros(width)}


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


def check_channels(name: str, student: Array, teacher: Array) -> None:
    """Raises a `ValueError` where two taps differ in width."""
    if student.shape[-1] != teacher.shape[-1]:
        raise ValueError(
            f"{name}: expected taps of the same width, got {student.shape[-1]} channels (student) and"
            f" {teacher.shape[-1]} (teacher). Choose another tap, or map the student's to the teacher's width."
        )


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
