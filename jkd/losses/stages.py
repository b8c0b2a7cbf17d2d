"""Losses over several taps of each network at once: how a network's maps follow from one another."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Key

from jkd.losses.features import Shapes, linear, pool_alike

Features = Sequence[Float[Array, "b ..."]]  # each of its own positions and channels
LEVELS = (4, 2, 1)  # cells a side of ReviewKD's pyramid, below the map itself
FUSED = 512  # channels that ReviewKD's features are fused in, as in the authors' code, or fewer
EPSILON = 1e-5  # of its BatchNorm


def fsp(student_features: Features, teacher_features: Features) -> Float[Array, ""]:
    """Flow of solution procedure: mean squared error of G = F_i' F_{i+1} / (H W), summed over successive taps.

    G is the table of inner products between the channels of one map and those of the next; the larger of the two is
    average-pooled to the smaller. A student's tap must be as wide as the teacher's.

    Raises:
      ValueError: fewer than two taps, another number of the teacher's, or taps that do not go together.

    References: Yim et al. 2017, CVPR.
    """
    student, teacher = _both("fsp", student_features, teacher_features, least=2)

    def flows(taps: list[Array]) -> list[Float[Array, "b c d"]]:
        tables = []
        for pair in itertools.pairwise(taps):
            maps = [each.reshape(len(each), -1, each.shape[-1]) for each in pool_alike("fsp", *pair)]
            tables.append(jnp.einsum("bnc,bnd->bcd", *maps, precision="highest") / maps[0].shape[1])
        return tables

    total = jnp.zeros((), jnp.float32)
    for own, theirs in zip(flows(student), flows(teacher), strict=True):
        if own.shape != theirs.shape:
            raise ValueError(
                f"fsp: expected successive taps of the teacher's widths, {theirs.shape[1]} and {theirs.shape[2]}, got "
                f"{own.shape[1]} and {own.shape[2]}. Choose taps of the same widths."
            )
        total += jnp.mean((own - theirs) ** 2)
    return total


def irg_transformation(student_features: Features, teacher_features: Features) -> Float[Array, ""]:
    """Instance relationship graph, its transformations: how far each sample moves from one tap to the next.

    A move is the squared distance of the two globally averaged taps, over the largest of the batch, which has no
    gradient; the loss is half of the squared difference, summed over the batch (as in the authors' code) and over
    successive taps. Widths of two successive taps must be the same in each network, but not in both.

    Raises:
      ValueError: fewer than two taps, another number of the teacher's, or successive taps of two widths.

    References: Liu et al. 2019, CVPR.
    """

    def moves(side: str, taps: list[Array]) -> list[Float[Array, " b"]]:
        pooled = [each.reshape(len(each), -1, each.shape[-1]).mean(axis=1) for each in taps]
        found = []
        for one, other in itertools.pairwise(pooled):
            if one.shape != other.shape:
                raise ValueError(
                    f"irg_transformation: expected successive taps of one width, got {one.shape[1]} and "
                    f"{other.shape[1]} ({side}). Choose taps of the same width."
                )
            squared = jnp.sum((one - other) ** 2, axis=-1)
            largest = jax.lax.stop_gradient(jnp.max(squared))
            found.append(squared / jnp.where(largest > 0, largest, 1.0))
        return found

    student, teacher = _both("irg_transformation", student_features, teacher_features, least=2)
    pairs = zip(moves("student", student), moves("teacher", teacher), strict=True)
    return sum((jnp.sum((own - theirs) ** 2) for own, theirs in pairs), jnp.zeros(())) / 2


def review(student_features: Features, teacher_features: Features, context: Mapping[str, Any]) -> Float[Array, ""]:
    """Knowledge review: each of the teacher's taps, from the student's tap of that stage and of all that follow.

    From the last tap to the first, the student's map is reduced, fused with what came from the stage behind by an
    attention over the two, and mapped to the teacher's channels (the paper's ABF); what results is compared by
    `hierarchical_context`, summed over the taps.

    Args:
      student_features: maps `[B, H, W, C]`, first to last, or vectors `[B, C]`, which are maps of one position.
      teacher_features: as many; a map of another size than the student's is compared in the smaller of the two.
      context: the fusions' parameters, from `init_review`. Their BatchNorm takes the statistics of the batch: there is
        no other time that it is used.

    Raises:
      ValueError: another number of the teacher's taps, or a tap that is neither.

    References: Chen et al. 2021, arXiv 2104.09044.
    """
    student, teacher = _both("review", student_features, teacher_features)
    student, teacher = ([_as_map(tap) for tap in taps] for taps in (student, teacher))
    behind: Array | None = None
    total = jnp.zeros((), jnp.float32)
    for index in reversed(range(len(student))):
        params = context[str(index)]
        fused = _batch_norm(params["reduce"]["norm"], linear(params["reduce"], student[index]))
        if behind is not None:
            behind = jax.image.resize(behind, fused.shape, "nearest")
            share = jax.nn.sigmoid(linear(params["attend"], jnp.concatenate([fused, behind], axis=-1)))
            fused = fused * share[..., :1] + behind * share[..., 1:]
        behind = fused
        made = _batch_norm(params["expand"]["norm"], _conv3x3(params["expand"]["kernel"], fused))
        total += hierarchical_context(made, teacher[index])
    return total


def init_review(key: Key[Array, ""], student: Shapes, teacher: Shapes) -> dict[str, Any]:
    """Parameters of a fusion for each pair of taps, float32; kernels are drawn as in the authors' code."""
    inner = min(FUSED, max(shape[-1] for shape in student))
    lecun = jax.nn.initializers.lecun_uniform()
    small = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    params: dict[str, Any] = {}
    for index, (own, theirs) in enumerate(zip(student, teacher, strict=False)):  # `review` refuses another number
        keys = [jax.random.fold_in(key, 3 * index + part) for part in range(3)]
        params[str(index)] = {
            "reduce": {"kernel": lecun(keys[0], (own[-1], inner), jnp.float32), "norm": _norm(inner)},
            "expand": {"kernel": lecun(keys[1], (3, 3, inner, theirs[-1]), jnp.float32), "norm": _norm(theirs[-1])},
        }
        if index + 1 < len(student):
            attend = {"kernel": small(keys[2], (2 * inner, 2), jnp.float32), "bias": jnp.zeros(2)}
            params[str(index)]["attend"] = attend
    return params


def hierarchical_context(
    student_feature: Float[Array, "b h w c"], teacher_feature: Float[Array, "b th tw c"]
) -> Float[Array, ""]:
    """Mean squared error of two maps, and of both averaged over a grid of 4, 2 and 1 cells a side.

    Grids as fine as the map, or finer, are left out; each weighs half of the one before, the map itself 1, and the sum
    is divided by the weights used.
    """
    student, teacher = pool_alike("review", student_feature.astype(jnp.float32), teacher_feature.astype(jnp.float32))
    teacher = jax.lax.stop_gradient(teacher)
    sides = [side for side in LEVELS if side < student.shape[1]]
    weights = [0.5**level for level in range(len(sides) + 1)]
    errors = [student - teacher] + [_cells(student, side) - _cells(teacher, side) for side in sides]
    total = sum((weight * jnp.mean(error**2) for weight, error in zip(weights, errors, strict=True)), jnp.zeros(()))
    return total / sum(weights)


def _as_map(tap: Float[Array, "b ..."]) -> Float[Array, "b h w c"]:
    if tap.ndim not in (2, 4):
        raise ValueError(f"review: expected maps [H, W, C] or vectors [C], got {tap.shape[1:]}. Choose other taps.")
    return tap if tap.ndim == 4 else tap[:, None, None]


def _cells(feature: Float[Array, "b h w c"], side: int) -> Float[Array, "b n n c"]:
    """Means over `side` x `side` cells; cell i has rows floor(i H / side) to ceil((i + 1) H / side)."""

    def shares(length: int) -> np.ndarray:
        table = np.zeros((side, length), np.float32)
        for cell in range(side):
            first, last = cell * length // side, -(-(cell + 1) * length // side)
            table[cell, first:last] = 1 / (last - first)
        return table

    rows, columns = (shares(length) for length in feature.shape[1:3])
    return jnp.einsum("ih,bhwc,jw->bijc", rows, feature, columns, precision="highest")


def _conv3x3(kernel: Float[Array, "3 3 i o"], feature: Float[Array, "b h w i"]) -> Float[Array, "b h w o"]:
    return lax.conv_general_dilated(
        feature, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )


def _norm(channels: int) -> dict[str, Array]:
    return {"scale": jnp.ones(channels), "bias": jnp.zeros(channels)}


def _batch_norm(params: Mapping[str, Array], feature: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    centred = feature - jnp.mean(feature, axis=(0, 1, 2), keepdims=True)
    variance = jnp.mean(centred**2, axis=(0, 1, 2), keepdims=True)
    scale, bias = (params[name].reshape(1, 1, 1, -1) for name in ("scale", "bias"))
    return scale * centred * lax.rsqrt(variance + EPSILON) + bias


def _both(name: str, student: Features, teacher: Features, least: int = 1) -> tuple[list[Array], list[Array]]:
    """Both sides' taps in float32, the teacher's without gradient."""
    if len(student) != len(teacher) or len(student) < least:
        raise ValueError(
            f"{name}: expected the same number of taps, at least {least}, got {len(student)} (student) and "
            f"{len(teacher)} (teacher). Name them as in 'stage1,stage2'."
        )
    ours = [tap.astype(jnp.float32) for tap in student]
    return ours, [jax.lax.stop_gradient(tap.astype(jnp.float32)) for tap in teacher]
