"""Losses between the raw heads of two single-stage detectors of one cfg family, and hints weighted by the teacher.

A head is `[B, H, W, A, 5 + C]`, raw logits in YOLO's order: tx, ty, tw, th, objectness, classes. The box is
((sigmoid(tx), sigmoid(ty)) + cell, anchor * (exp tw, exp th)), objectness and each class are sigmoids. Student and
teacher have the same grid, anchors and classes. A detector with several scales has one such term a scale.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jkd.losses.logits import kl_divergence

Head = Float[Array, "b h w a p"]
TeacherHead = Float[Array, "b th tw ta tp"]  # of the same shape, which is checked with a message


def objectness_scaled(
    student_feature: Head,
    teacher_feature: TeacherHead,
    *,
    window: int = 3,
    objectness_weight: float = 1.0,
    box_weight: float = 1.0,
    class_weight: float = 1.0,
) -> Float[Array, ""]:
    """Objectness-scaled distillation: boxes and classes are learned by how sure the teacher is of an object.

    sum over cells and anchors, mean over images, of  f_obj(o_T, o) + o_T (f_box(b_T, b) + f_class(p_T, p)),
    where o_T = sigmoid(teacher's objectness), 0 where FM-NMS suppresses it, f_box is the squared error of (sigmoid tx,
    sigmoid ty, tw, th), and f_obj and f_class are the KL divergences of YOLOv3's sigmoids: the gradient of its own
    cross-entropy, and 0 where the two agree. (The paper's network is a YOLOv2, whose f_obj and f_class are squared.)

    Beside the term `yolo`, FM-NMS has targets that contradict: `yolo` makes every anchor that is much like a true box
    positive, here all but one of a class in a neighbourhood are to be silent; and where objects are small and close
    beside one another, neighbours are suppressed that are objects themselves. `window=0` does neither.

    Args:
      student_feature: raw head.
      teacher_feature: raw head of the teacher.
      window: side of FM-NMS's neighbourhood in cells, odd; 0 for no suppression.
      objectness_weight: of f_obj.
      box_weight: of f_box.
      class_weight: of f_class.

    References: Mehta, Ozturk 2018, arXiv 1805.06361.
    """
    _check("objectness_scaled", student_feature, teacher_feature)
    student, teacher = _cast(student_feature, teacher_feature)
    keep = fm_nms(teacher, window=window) if window else jnp.ones(teacher.shape[:-1], jnp.float32)
    target = keep * jax.nn.sigmoid(teacher[..., 4])
    # The divergence to a suppressed target, 0, is -log(1 - o) = softplus(objectness).
    suppressed = (1 - keep) * jax.nn.softplus(student[..., 4])
    objectness = keep * binary_kl(student[..., 4], teacher[..., 4]) + suppressed
    box = target * jnp.sum((_box(student) - _box(teacher)) ** 2, axis=-1)
    classes = target * jnp.sum(binary_kl(student[..., 5:], teacher[..., 5:]), axis=-1)
    total = objectness_weight * objectness + box_weight * box + class_weight * classes
    return jnp.sum(total) / student.shape[0]


def fm_nms(teacher_feature: Head, *, window: int = 3) -> Float[Array, "b h w a"]:
    """Feature-map NMS: 1 for a prediction of the highest objectness of its class in its neighbourhood, else 0.

    The neighbourhood is the `window` x `window` cells around its own, all their anchors; the class is the likeliest.
    Of equal ones the first in (row, column, anchor) stays. It is no greedy suppression: what is suppressed itself still
    suppresses.

    Raises:
      ValueError: `window` is not odd and positive.

    References: Mehta, Ozturk 2018, arXiv 1805.06361, section 3.
    """
    if window < 1 or not window % 2:
        raise ValueError(f"fm_nms: expected an odd number of cells, got a window of {window}")
    teacher = lax.stop_gradient(teacher_feature.astype(jnp.float32))
    own = jax.nn.one_hot(jnp.argmax(teacher[..., 5:], axis=-1), teacher.shape[-1] - 5, dtype=jnp.bool_)
    score = teacher[..., 4]
    order = jnp.argsort(-score.reshape(score.shape[0], -1), axis=1, stable=True)
    place = jnp.argsort(order, axis=1).astype(jnp.int32).reshape(score.shape)  # no two are equal
    by_class = jnp.min(jnp.where(own, place[..., None], jnp.int32(score[0].size)), axis=3)
    sides = (1, window, window, 1)
    first = lax.reduce_window(by_class, jnp.int32(score[0].size), lax.min, sides, (1, 1, 1, 1), "SAME")
    of_own_class = jnp.sum(jnp.where(own, first[:, :, :, None], 0), axis=-1)
    return (place == of_own_class).astype(jnp.float32)


def confidence(feature: Head) -> Float[Array, "b h w a"]:
    """Objectness times the probability of the likeliest class, in (0, 1)."""
    logits = feature.astype(jnp.float32)
    return jax.nn.sigmoid(logits[..., 4]) * jax.nn.sigmoid(jnp.max(logits[..., 5:], axis=-1))


def confident_hint(
    student_feature: Float[Array, "b h w c"],
    teacher_feature: Float[Array, "b h w c"],
    teacher_confidence: Float[Array, "b h w"],
) -> Float[Array, ""]:
    """Squared error of two neck maps, each cell weighted by how sure the teacher is of an object there.

    sum_cells w mean_channels (s - t)^2 / sum_cells w, over all cells of the batch; 0 where all weights are.

    Args:
      student_feature: neck map, mapped to the teacher's channels.
      teacher_feature: the teacher's, of the same grid.
      teacher_confidence: the largest `confidence` of a cell's anchors, of the head that reads this neck.
    """
    student, teacher = _cast(student_feature, teacher_feature)
    weight = lax.stop_gradient(teacher_confidence.astype(jnp.float32))
    return _weighted_mean(jnp.mean((student - teacher) ** 2, axis=-1), weight)


def confident(
    student_feature: Float[Array, "b h w c"],
    teacher_feature: Float[Array, "b h w c"],
    teacher_heads: Sequence[Float[Array, "b _ _ _ _"]],
) -> Float[Array, ""]:
    """`confident_hint`, weighted by the teacher's head on the same grid.

    Raises:
      ValueError: no head has the neck's grid.
    """
    grid = teacher_feature.shape[1:3]
    head = next((head for head in teacher_heads if head.shape[1:3] == grid), None)
    if head is None:
        raise ValueError(f"confident: no head of the teacher has the grid {grid}")
    return confident_hint(student_feature, teacher_feature, jnp.max(confidence(head), axis=-1))


def class_kd(
    student_feature: Head, teacher_feature: TeacherHead, *, temperature: float, threshold: float = 0.5
) -> Float[Array, ""]:
    """T^2 KL of the class sigmoids, summed over classes, averaged over the predictions that the teacher is sure of.

    Args:
      student_feature: raw head.
      teacher_feature: raw head of the teacher.
      temperature: T, that the logits are divided by.
      threshold: objectness of the teacher from which a prediction counts. Where none does, the loss is 0.

    References: Hinton, Vinyals, Dean 2015, arXiv 1503.02531, on each class's sigmoid.
    """
    _check("class_kd", student_feature, teacher_feature)
    student, teacher = _cast(student_feature, teacher_feature)
    sure = jax.nn.sigmoid(teacher[..., 4]) >= threshold
    divergence = jnp.sum(binary_kl(student[..., 5:] / temperature, teacher[..., 5:] / temperature), axis=-1)
    return temperature**2 * _weighted_mean(divergence, sure.astype(jnp.float32))


def localization_kd(
    student_feature: Float[Array, "b *a e n"],
    teacher_feature: Float[Array, "b *a e n"],
    weight: Float[Array, "b *a"],
    *,
    temperature: float,
) -> Float[Array, ""]:
    """Localisation distillation: T^2 KL of the distributions over where each edge of a box is.

    Summed over the bins, averaged over the edges and, by `weight`, over the predictions of the batch.

    Args:
      student_feature: logits over `n` bins of each of the `e` (four) edges of each prediction.
      teacher_feature: the same of the teacher.
      weight: how much each prediction counts: 1 in the main region, or the teacher's confidence.
      temperature: T; the paper's is 10.

    References: Zheng et al. 2022, arXiv 2102.12252.
    """
    student, teacher = (jax.nn.log_softmax(each / temperature) for each in _cast(student_feature, teacher_feature))
    divergence = jnp.mean(kl_divergence(jnp.exp(teacher), student), axis=-1)
    return temperature**2 * _weighted_mean(divergence, lax.stop_gradient(weight.astype(jnp.float32)))


def yolo_localization_kd(
    student_feature: Head, teacher_feature: TeacherHead, *, temperature: float
) -> Float[Array, ""]:
    """Localisation distillation for anchor-based heads, which have no distributions over edges: a bounded form.

    Each of the four numbers t is read as the logit of a distribution over two bins, sigmoid(t / T): at T = 1, for tx
    and ty where the centre lies between the two edges of its cell, for tw = log(w / anchor) the share w / (w + anchor).
    So, unlike that of the squared error of tw, its gradient is bounded, by T for each number. T^2 KL, averaged over the
    four and, by the teacher's confidence, over the predictions of the batch.

    References: Zheng et al. 2022, arXiv 2102.12252, whose distributions this replaces.
    """
    _check("yolo_localization_kd", student_feature, teacher_feature)
    student, teacher = _cast(student_feature, teacher_feature)
    divergence = jnp.mean(binary_kl(student[..., :4] / temperature, teacher[..., :4] / temperature), axis=-1)
    return temperature**2 * _weighted_mean(divergence, confidence(teacher))


def binary_kl(student_logits: Float[Array, "*n"], teacher_logits: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """KL(sigmoid(teacher) || sigmoid(student)) of each pair of logits, in nats; finite however large they are."""
    yes = jax.nn.log_sigmoid(teacher_logits) - jax.nn.log_sigmoid(student_logits)
    no = jax.nn.log_sigmoid(-teacher_logits) - jax.nn.log_sigmoid(-student_logits)
    return jax.nn.sigmoid(teacher_logits) * yes + jax.nn.sigmoid(-teacher_logits) * no


def _box(head: Head) -> Float[Array, "b h w a 4"]:
    return jnp.concatenate([jax.nn.sigmoid(head[..., :2]), head[..., 2:4]], axis=-1)


def _weighted_mean(values: Float[Array, "*n"], weights: Float[Array, "*n"]) -> Float[Array, ""]:
    total = jnp.sum(weights)
    return jnp.where(total > 0, jnp.sum(values * weights) / jnp.where(total > 0, total, 1.0), 0.0)


def _cast(student: Array, teacher: Array) -> tuple[Array, Array]:
    return student.astype(jnp.float32), lax.stop_gradient(teacher.astype(jnp.float32))


def _check(name: str, student: Array, teacher: Array) -> None:
    if student.shape != teacher.shape or student.shape[-1] < 6:
        raise ValueError(
            f"{name}: expected raw heads [H, W, A, 5 + C] of one grid with the same anchors and classes, got"
            f" {student.shape[1:]} (student) and {teacher.shape[1:]} (teacher)."
        )
