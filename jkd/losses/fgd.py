"""Focal and global distillation (FGD) of a detector's neck maps.

References: Yang et al. 2022, arXiv 2111.11837.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from jkd.losses.features import Shapes, linear
from jkd.losses.yolo_heads import Heads

Map = Float[Array, "b h w c"]
TeacherMap = Float[Array, "b th tw tc"]  # of the same shape, which is checked with a message
SQUEEZE = 2  # a GcBlock's inner channels are so many times fewer
EPSILON = 1e-5  # of its layer normalisation


def fgd(
    student_feature: Map,
    teacher_feature: TeacherMap,
    boxes: Float[Array, "b m 4"],
    box_mask: Float[Array, "b m"],
    context: Mapping[str, Any],
    *,
    image_size: tuple[int, int],
    foreground: float = 1e-3,
    background: float = 5e-4,
    attention: float = 1e-3,
    relation: float = 5e-6,
    temperature: float = 0.5,
) -> Float[Array, ""]:
    """`fgd_focal` plus `relation` times `fgd_global`. The defaults are the authors' for one-stage detectors.

    They add up the levels of a neck; here a term over several taps is their mean: with two necks, give the term a
    weight of 2 for theirs.

    Args:
      student_feature: neck map, mapped to the teacher's channels.
      teacher_feature: the teacher's, of the same grid.
      boxes: true boxes, corners x1, y1, x2, y2 in pixels of the network's input.
      box_mask: 1 at a real box, 0 at padding, where anything may stand.
      context: trained parameters, from `init_fgd`.
      image_size: height and width of the network's input, in pixels.
      foreground: alpha.
      background: beta.
      attention: gamma.
      relation: lambda.
      temperature: of the attention masks.
    """
    focal = fgd_focal(
        student_feature,
        teacher_feature,
        boxes,
        box_mask,
        image_size=image_size,
        foreground=foreground,
        background=background,
        attention=attention,
        temperature=temperature,
    )
    return focal + relation * fgd_global(student_feature, teacher_feature, context)


def focal_global(
    student_feature: Map,
    teacher_feature: TeacherMap,
    boxes: Float[Array, "b m 4"],
    box_mask: Float[Array, "b m"],
    teacher_heads: Sequence[Float[Array, "b _ _ _ _"]],
    teacher_description: Heads,
    context: Mapping[str, Any],
    **settings: float,
) -> Float[Array, ""]:
    """`fgd` of images whose size the teacher's heads tell."""
    size = teacher_description.size(teacher_heads)
    return fgd(student_feature, teacher_feature, boxes, box_mask, context, image_size=size, **settings)


def fgd_focal(
    student_feature: Map,
    teacher_feature: TeacherMap,
    boxes: Float[Array, "b m 4"],
    box_mask: Float[Array, "b m"],
    *,
    image_size: tuple[int, int],
    foreground: float,
    background: float,
    attention: float,
    temperature: float,
) -> Float[Array, ""]:
    """Squared error of two maps, objects and background apart, where and in which channels the teacher attends.

    mean over images of  sum (alpha S_f + beta S_b) A_s A_c (t - s)^2 + gamma (sum |A_s - A_s'| + sum |A_c - A_c'|),
    A_s (over cells) and A_c (over channels) being the teacher's attention, A' the student's. S_f is 1 / (cells of the
    box) in a box, the smallest that a cell is in, S_b 1 / (cells of the background) elsewhere.

    A box covers the cells that it overlaps, one at least. (The authors' code adds a row and a column to each.)
    """
    _check("fgd", student_feature, teacher_feature)
    student, teacher = _cast(student_feature, teacher_feature)
    inside, outside = box_weights(boxes, box_mask, student.shape[1:3], image_size)
    spatial, channel = _attention(teacher, temperature)
    weight = (foreground * inside + background * outside) * spatial
    error = jnp.einsum("bhw,bc,bhwc->", weight, channel, (teacher - student) ** 2, precision="highest")
    own_spatial, own_channel = _attention(student, temperature)
    masks = jnp.sum(jnp.abs(spatial - own_spatial)) + jnp.sum(jnp.abs(channel - own_channel))
    return (error + attention * masks) / student.shape[0]


def fgd_global(student_feature: Map, teacher_feature: TeacherMap, context: Mapping[str, Any]) -> Float[Array, ""]:
    """Squared error, summed over a map, averaged over images, after each map has been given its own global context.

    Args:
      student_feature: neck map, mapped to the teacher's channels.
      teacher_feature: the teacher's; it gets no gradient, its context block does.
      context: `student` and `teacher`, the parameters of a GcBlock each, from `init_fgd`.
    """
    _check("fgd", student_feature, teacher_feature)
    student, teacher = _cast(student_feature, teacher_feature)
    error = add_context(context["student"], student) - add_context(context["teacher"], teacher)
    return jnp.sum(error**2) / student.shape[0]


def init_fgd(key: Key[Array, ""], student: Shapes, teacher: Shapes) -> dict[str, Any]:
    """Parameters of the student's and the teacher's GcBlock; at the start both add nothing."""
    channels = teacher[0][-1]  # the student's map is mapped to as many
    return {
        "student": init_context(jax.random.fold_in(key, 0), channels),
        "teacher": init_context(jax.random.fold_in(key, 1), channels),
    }


def init_context(key: Key[Array, ""], channels: int) -> dict[str, Any]:
    """Parameters of one GcBlock, float32; the last layer starts at zero."""
    inner = max(1, channels // SQUEEZE)
    mask, squeeze = (jax.random.fold_in(key, index) for index in range(2))
    he, lecun = jax.nn.initializers.he_normal(), jax.nn.initializers.lecun_normal()
    return {
        "mask": {"kernel": he(mask, (channels, 1), jnp.float32), "bias": jnp.zeros(1)},
        "squeeze": {"kernel": lecun(squeeze, (channels, inner), jnp.float32), "bias": jnp.zeros(inner)},
        "norm": {"scale": jnp.ones(inner), "bias": jnp.zeros(inner)},
        "expand": {"kernel": jnp.zeros((inner, channels)), "bias": jnp.zeros(channels)},
    }


def add_context(params: Mapping[str, Any], feature: Map) -> Map:
    """F + W_2 relu(LN(W_1 sum_j softmax_j(w_k F_j) F_j)), the sum over all cells j (Cao et al. 2019, GCNet)."""
    cells = feature.reshape(feature.shape[0], -1, feature.shape[-1])
    share = jax.nn.softmax(linear(params["mask"], cells), axis=1)
    pooled = linear(params["squeeze"], jnp.einsum("bnk,bnc->bc", share, cells, precision="highest"))
    centred = pooled - jnp.mean(pooled, axis=-1, keepdims=True)
    normed = centred * lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + EPSILON)
    normed = normed * _row(params["norm"]["scale"]) + _row(params["norm"]["bias"])
    return feature + linear(params["expand"], jax.nn.relu(normed))[:, None, None]


def box_weights(
    boxes: Float[Array, "b m 4"], box_mask: Float[Array, "b m"], grid: tuple[int, ...], image_size: tuple[int, int]
) -> tuple[Float[Array, "b h w"], Float[Array, "b h w"]]:
    """Weights of the cells in boxes, 1 / (cells of the smallest), and of the others, 1 / (number of others)."""
    corners = jnp.where((box_mask > 0)[..., None], boxes.astype(jnp.float32), 0.0)
    columns = _covered(corners[..., 0], corners[..., 2], grid[1], image_size[1])
    rows = _covered(corners[..., 1], corners[..., 3], grid[0], image_size[0])
    cells = jnp.sum(rows, axis=-1) * jnp.sum(columns, axis=-1)
    each = (box_mask > 0).astype(jnp.float32) / jnp.maximum(cells, 1.0)
    inside = jnp.max(each[..., None, None] * rows[..., :, None] * columns[..., None, :], axis=1, initial=0.0)
    background = (inside == 0).astype(jnp.float32)
    return inside, background / jnp.maximum(jnp.sum(background, axis=(1, 2), keepdims=True), 1.0)


def _covered(low: Float[Array, "b m"], high: Float[Array, "b m"], cells: int, pixels: int) -> Float[Array, "b m n"]:
    """1 at the cells of one axis that a box overlaps."""
    first = jnp.clip(jnp.floor(low * cells / pixels), 0, cells - 1)[..., None]
    last = jnp.maximum(jnp.ceil(high * cells / pixels)[..., None], first + 1)
    at = jnp.arange(cells, dtype=jnp.float32).reshape(1, 1, -1)
    return ((at >= first) & (at < last)).astype(jnp.float32)


def _attention(feature: Map, temperature: float) -> tuple[Float[Array, "b h w"], Float[Array, "b c"]]:
    """Where and in which channels a map is large, each with mean 1: n softmax(mean |F| / temperature)."""
    batch, height, width, channels = feature.shape
    size = jnp.abs(feature)
    spatial = jnp.mean(size, axis=-1).reshape(batch, -1) / temperature
    spatial = height * width * jax.nn.softmax(spatial).reshape(batch, height, width)
    return spatial, channels * jax.nn.softmax(jnp.mean(size, axis=(1, 2)) / temperature)


def _row(vector: Float[Array, " c"]) -> Float[Array, "1 c"]:
    return vector[None]


def _cast(student: Array, teacher: Array) -> tuple[Array, Array]:
    return student.astype(jnp.float32), lax.stop_gradient(teacher.astype(jnp.float32))


def _check(name: str, student: Array, teacher: Array) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            f"{name}: expected two maps of one grid and width, got {student.shape[1:]} (student) and"
            f" {teacher.shape[1:]} (teacher). Map the student's to the teacher's width; choose necks of one stride."
        )
