"""Losses that take a teacher's logits apart before they are matched: by class, by scale, by correlation."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jkd.losses.logits import kd, kl_divergence
from jkd.losses.norms import inner, standard, unit

MASKED = -1e9  # finite, so that a class left out has probability 0 and no NaN
STANDARD_EPSILON = 1e-7  # added to a row's standard deviation, as in the authors' code
TEMPERATURES = (0.5, 0.75, 1.0, 1.25, 1.5)  # of multi-level logits, as factors
RATIO_FLOOR = 1e-7  # added to the teacher's cross-entropy, as in the authors' code


def dkd(
    student_logits: Float[Array, "b c"],
    teacher_logits: Float[Array, "b c"],
    label_target: Float[Array, "b c"],
    labelled: Float[Array, " b"],
    *,
    alpha: float,
    beta: float,
    temperature: float,
) -> Float[Array, ""]:
    """Decoupled KD: T^2 (alpha KL of (target, all others) + beta KL among the others), averaged over the batch.

    The target is the label (the larger part of a mixture); of a sample without one, the teacher's likeliest class. With
    two classes there is one other, and the second part is 0.

    References: Zhao et al. 2022, arXiv 2203.08679.
    """
    target = class_of(teacher_logits, label_target, labelled)
    student, teacher = (each.astype(jnp.float32) / temperature for each in (student_logits, teacher_logits))
    teacher = jax.lax.stop_gradient(teacher)
    of_target = kl_divergence(jnp.exp(_target_or_not(teacher, target)), _target_or_not(student, target))
    others = [_among_others(each, target) for each in (student, teacher)]
    among_others = kl_divergence(jnp.exp(others[1]), others[0])
    return temperature**2 * jnp.mean(alpha * of_target + beta * among_others)


def dist(
    student_logits: Float[Array, "b c"],
    teacher_logits: Float[Array, "b c"],
    *,
    inter_weight: float,
    intra_weight: float,
    temperature: float,
) -> Float[Array, ""]:
    """DIST: T^2 (inter (1 - Pearson over a sample's classes) + intra (1 - Pearson over a class's samples)), averaged.

    Of the probabilities at temperature T. Where both are constant, they agree.

    References: Huang et al. 2022, arXiv 2205.10536.
    """
    student, teacher = (
        jax.nn.softmax(each.astype(jnp.float32) / temperature) for each in (student_logits, teacher_logits)
    )
    teacher = jax.lax.stop_gradient(teacher)
    inter, intra = _decorrelation(student, teacher), _decorrelation(student.T, teacher.T)
    return temperature**2 * (inter_weight * inter + intra_weight * intra)


def logit_standardization(
    student_logits: Float[Array, "b c"], teacher_logits: Float[Array, "b c"], *, temperature: float
) -> Float[Array, ""]:
    """KD between logits of which each row has mean 0 and standard deviation 1: only their shape is learned.

    References: Sun et al. 2024, arXiv 2403.01427.
    """
    student, teacher = (
        standard(each.astype(jnp.float32), STANDARD_EPSILON) for each in (student_logits, teacher_logits)
    )
    return kd(student, teacher, temperature=temperature)


def wsld(
    student_logits: Float[Array, "b c"],
    teacher_logits: Float[Array, "b c"],
    label_target: Float[Array, "b c"],
    labelled: Float[Array, " b"],
    *,
    temperature: float,
) -> Float[Array, ""]:
    """Weighted soft labels: T^2 cross-entropy with the teacher, each sample weighted by 1 - exp(-CE_S / CE_T).

    CE_S and CE_T are the cross-entropies of student and teacher with the label at T = 1; the weight has no gradient.
    Of a sample without a label the teacher's likeliest class is taken.

    References: Zhou et al. 2021, arXiv 2102.00650.
    """
    target = class_of(teacher_logits, label_target, labelled)
    student, teacher = student_logits.astype(jnp.float32), jax.lax.stop_gradient(teacher_logits.astype(jnp.float32))

    def with_label(logits: Float[Array, "b c"]) -> Float[Array, " b"]:
        return -jnp.sum(jnp.where(target, jax.nn.log_softmax(logits), 0.0), axis=-1)

    ratio = with_label(jax.lax.stop_gradient(student)) / (with_label(teacher) + RATIO_FLOOR)
    soft = jax.nn.softmax(teacher / temperature) * jax.nn.log_softmax(student / temperature)
    return temperature**2 * jnp.mean((1 - jnp.exp(-ratio)) * -jnp.sum(soft, axis=-1))


def nkd(
    student_logits: Float[Array, "b c"],
    teacher_logits: Float[Array, "b c"],
    label_target: Float[Array, "b c"],
    labelled: Float[Array, " b"],
    *,
    gamma: float,
    temperature: float,
) -> Float[Array, ""]:
    """Normalised KD: -t_y log s_y - gamma T^2 sum over the others of N(t) log N(s), averaged over the batch.

    y is the label, or the teacher's likeliest class of a sample without one; t_y and s_y are probabilities at T = 1; N
    is the softmax at T over the other classes alone. The paper's loss is this and the cross-entropy.

    References: Yang et al. 2023, arXiv 2303.13005.
    """
    target = class_of(teacher_logits, label_target, labelled)
    student, teacher = student_logits.astype(jnp.float32), jax.lax.stop_gradient(teacher_logits.astype(jnp.float32))

    own = jnp.where(target, jax.nn.softmax(teacher) * jax.nn.log_softmax(student), 0.0)
    ours, theirs = (_among_others(each / temperature, target) for each in (student, teacher))
    others = jnp.where(target, 0.0, jnp.exp(theirs) * ours)
    return -jnp.mean(jnp.sum(own + gamma * temperature**2 * others, axis=-1))


def transformed_teacher(
    student_logits: Float[Array, "b c"], teacher_logits: Float[Array, "b c"], *, temperature: float, weighted: bool
) -> Float[Array, ""]:
    """Transformed teacher matching: KL(softmax(teacher / T) || softmax(student)), with no temperature on the student.

    With `weighted`, each sample weighs sum_i p_i^(1/T), p the teacher's probabilities: more where it is unsure.

    References: Zheng, Yang 2024, arXiv 2402.11148.
    """
    student, teacher = student_logits.astype(jnp.float32), jax.lax.stop_gradient(teacher_logits.astype(jnp.float32))
    divergence = kl_divergence(jax.nn.softmax(teacher / temperature), jax.nn.log_softmax(student))
    if weighted:
        divergence *= jnp.sum(jnp.exp(jax.nn.log_softmax(teacher) / temperature), axis=-1)
    return jnp.mean(divergence)


def multi_level(
    student_logits: Float[Array, "b c"],
    teacher_logits: Float[Array, "b c"],
    *,
    temperature: float,
    instance_weight: float,
    batch_weight: float,
    class_weight: float,
) -> Float[Array, ""]:
    """Multi-level logits: KD of each sample, and the tables P P' of samples and P' P of classes, squared errors.

    Averaged over the temperatures T/2, 3T/4, T, 5T/4 and 3T/2; the table of samples is summed and divided by B, that of
    classes by C. The authors' code sums over the temperatures, takes two views of each sample, and scales some parts by
    shares of samples and classes that the teacher is unsure of; none of that is here.

    References: Jin et al. 2023, CVPR.
    """
    batch, classes = student_logits.shape
    total = jnp.zeros((), jnp.float32)
    for factor in TEMPERATURES:
        at = factor * temperature
        student, teacher = (jax.nn.softmax(each.astype(jnp.float32) / at) for each in (student_logits, teacher_logits))
        teacher = jax.lax.stop_gradient(teacher)
        of_samples = jnp.sum((inner(student, student) - inner(teacher, teacher)) ** 2) / batch
        of_classes = jnp.sum((inner(student.T, student.T) - inner(teacher.T, teacher.T)) ** 2) / classes
        total += instance_weight * kd(student_logits, teacher_logits, temperature=at)
        total += batch_weight * of_samples + class_weight * of_classes
    return total / len(TEMPERATURES)


def logit_mse(student_logits: Float[Array, "b c"], teacher_logits: Float[Array, "b c"]) -> Float[Array, ""]:
    """Mean squared error of the logits.

    References: Ba, Caruana 2014, arXiv 1312.6184.
    """
    teacher = jax.lax.stop_gradient(teacher_logits.astype(jnp.float32))
    return jnp.mean((student_logits.astype(jnp.float32) - teacher) ** 2)


def class_of(
    teacher_logits: Float[Array, "b c"], label_target: Float[Array, "b c"], labelled: Float[Array, " b"]
) -> Bool[Array, "b c"]:
    """One-hot: the label where it is known, else the teacher's likeliest class."""
    known = (labelled > 0)[:, None]
    score = jnp.where(known, label_target.astype(jnp.float32), teacher_logits.astype(jnp.float32))
    return jax.nn.one_hot(jnp.argmax(score, axis=-1), score.shape[-1], dtype=jnp.bool_)


def _among_others(logits: Float[Array, "b c"], target: Bool[Array, "b c"]) -> Float[Array, "b c"]:
    """Log-probabilities among the classes but the target, whose own is of no meaning."""
    return jax.nn.log_softmax(jnp.where(target, MASKED, logits))


def _target_or_not(logits: Float[Array, "b c"], target: Bool[Array, "b c"]) -> Float[Array, "b 2"]:
    """Log-probabilities of the target class and of all others together."""
    own = jnp.sum(jnp.where(target, logits, 0.0), axis=-1)
    others = jax.nn.logsumexp(jnp.where(target, MASKED, logits), axis=-1)
    return jax.nn.log_softmax(jnp.stack([own, others], axis=-1))


def _decorrelation(student: Float[Array, "n d"], teacher: Float[Array, "n d"]) -> Float[Array, ""]:
    """Mean over rows of 1 - Pearson's correlation, as half the squared distance of the standardised rows."""
    rows = [unit(each - jnp.mean(each, axis=-1, keepdims=True)) for each in (student, teacher)]
    return jnp.mean(jnp.sum((rows[0] - rows[1]) ** 2, axis=-1)) / 2
