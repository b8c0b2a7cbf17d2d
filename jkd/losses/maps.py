"""Losses between two maps `[B, H, W, C]`, or token states `[B, L, C]`: where they are large, and how channels agree."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jkd.losses.features import check_channels, pool_alike
from jkd.losses.norms import inner, standard, unit

PKD_EPSILON = 1e-6  # as in the authors' code


def attention_transfer(
    student_feature: Float[Array, "b *s c"], teacher_feature: Float[Array, "b *t d"], *, power: int = 2
) -> Float[Array, ""]:
    """Mean squared error of where two maps attend: unit(mean_channels |F|^power), flattened over positions.

    The larger of two maps is average-pooled to the smaller; their channels may differ.

    Raises:
      ValueError: a tap has no positions, or they cannot be made alike.

    References: Zagoruyko, Komodakis 2017, arXiv 1612.03928.
    """
    student, teacher = _alike("attention_transfer", student_feature, teacher_feature)
    return jnp.mean((_attention(student, power) - _attention(teacher, power)) ** 2)


def factor_transfer(
    student_feature: Float[Array, "b *s c"], teacher_feature: Float[Array, "b *t d"], *, power: int = 2
) -> Float[Array, ""]:
    """`attention_transfer` with absolute errors: the loss of factor transfer, without the networks it is applied to.

    The paper first trains a paraphraser on the teacher's maps, and compares its output with that of a translator of the
    student's. Here the maps themselves are compared, in the form that shared code bases have the loss in.

    Raises:
      ValueError: a tap has no positions, or they cannot be made alike.

    References: Kim et al. 2018, arXiv 1802.04977.
    """
    student, teacher = _alike("factor_transfer", student_feature, teacher_feature)
    return jnp.mean(jnp.abs(_attention(student, power) - _attention(teacher, power)))


def nst(student_feature: Float[Array, "b *s c"], teacher_feature: Float[Array, "b *t d"]) -> Float[Array, ""]:
    """Neuron selectivity transfer: squared maximum mean discrepancy between the channels of two maps.

    Channels are unit-norm rows over positions; the kernel is (x . y)^2; averaged over samples. The larger of two maps
    is average-pooled to the smaller; their channels may differ.

    Raises:
      ValueError: a tap has no positions, or they cannot be made alike.

    References: Huang, Wang 2017, arXiv 1707.01219.
    """
    student, teacher = (unit(_channels(each)) for each in _alike("nst", student_feature, teacher_feature))
    own, other, cross = ((student, student), (teacher, teacher), (student, teacher))
    return _kernel_mean(*own) + _kernel_mean(*other) - 2 * _kernel_mean(*cross)


def cwd(
    student_feature: Float[Array, "b *s c"], teacher_feature: Float[Array, "b *t d"], *, temperature: float
) -> Float[Array, ""]:
    """Channel-wise distillation: T^2 KL(teacher || student) of each channel's softmax over positions.

    Averaged over channels and samples. The larger of two maps is average-pooled to the smaller.

    Args:
      student_feature: mapped to the teacher's channels.
      teacher_feature: the teacher's map.
      temperature: T, that the maps are divided by.

    Raises:
      ValueError: a tap has no positions, they cannot be made alike, or channels differ.

    References: Shu et al. 2021, arXiv 2011.13256.
    """
    student, teacher = _alike("cwd", student_feature, teacher_feature)
    check_channels("cwd", student, teacher)
    student, teacher = (jax.nn.log_softmax(_channels(each) / temperature) for each in (student, teacher))
    return temperature**2 * jnp.mean(jnp.sum(jnp.exp(teacher) * (teacher - student), axis=-1))


def ickd(student_feature: Float[Array, "b *s c"], teacher_feature: Float[Array, "b *t d"]) -> Float[Array, ""]:
    """Inter-channel correlation: squared Frobenius distance of two tables of inner products between channels.

    Each row of a sample's C x C table has unit norm; summed over the table, averaged over samples. Positions may
    differ, but there must be some: of a vector the table knows the channels' signs alone.

    Raises:
      ValueError: a tap has no positions, or channels differ.

    References: Liu et al. 2021, ICCV.
    """
    _check_positions("ickd", student_feature, teacher_feature)
    student, teacher = _float32(student_feature, teacher_feature)
    check_channels("ickd", student, teacher)
    tables = [unit(inner(_channels(each), _channels(each))) for each in (student, teacher)]
    return jnp.sum((tables[0] - tables[1]) ** 2) / student.shape[0]


def pkd(student_feature: Float[Array, "b *s c"], teacher_feature: Float[Array, "b *t d"]) -> Float[Array, ""]:
    """Half the mean squared error of two taps of which each channel has mean 0 and deviation 1 over the batch.

    That is 1 - the Pearson correlation of the channels. The larger of two maps is average-pooled to the smaller.

    Raises:
      ValueError: positions cannot be made alike, or channels differ.

    References: Cao et al. 2022, arXiv 2207.02039.
    """
    student, teacher = pool_alike("pkd", *_float32(student_feature, teacher_feature))
    check_channels("pkd", student, teacher)
    rows = [standard(jnp.moveaxis(each, -1, 0).reshape(each.shape[-1], -1), PKD_EPSILON) for each in (student, teacher)]
    return jnp.mean((rows[0] - rows[1]) ** 2) / 2


def _attention(feature: Float[Array, "b *p c"], power: int) -> Float[Array, "b n"]:
    """How large the map is at each position, a unit-norm row."""
    return unit(jnp.mean(jnp.abs(feature) ** power, axis=-1).reshape(feature.shape[0], -1))


def _channels(feature: Float[Array, "b *p c"]) -> Float[Array, "b c n"]:
    """Each channel as a row over positions."""
    return jnp.swapaxes(feature.reshape(feature.shape[0], -1, feature.shape[-1]), 1, 2)


def _kernel_mean(left: Float[Array, "b c n"], right: Float[Array, "b d n"]) -> Float[Array, ""]:
    return jnp.mean(inner(left, right) ** 2)


def _float32(
    student: Float[Array, "b *s c"], teacher: Float[Array, "b *t d"]
) -> tuple[Float[Array, "b *s c"], Float[Array, "b *t d"]]:
    return student.astype(jnp.float32), jax.lax.stop_gradient(teacher.astype(jnp.float32))


def _alike(
    name: str, student: Float[Array, "b *s c"], teacher: Float[Array, "b *t d"]
) -> tuple[Float[Array, "b *p c"], Float[Array, "b *p d"]]:
    _check_positions(name, student, teacher)
    return pool_alike(name, *_float32(student, teacher))


def _check_positions(name: str, student: Array, teacher: Array) -> None:
    if min(student.ndim, teacher.ndim) < 3:
        raise ValueError(
            f"{name}: expected taps with positions, [H, W, C] or [L, C], got {student.shape[1:]} (student) and"
            f" {teacher.shape[1:]} (teacher). Choose taps before they are pooled."
        )
