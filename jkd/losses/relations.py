"""Losses between the relations that the samples of a batch have to each other."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jkd.losses.logits import kl_divergence, mean_of
from jkd.losses.norms import COINCIDENT, flat_rows, inner, norm, unit

# Entries of the [anchor, j, k] table of angles that are held at once: the whole table up to a batch of 128.
ANGLES_AT_ONCE = 128**3
PKT_FLOOR = 1e-7  # as in the authors' code
# Finite, so that a masked entry has probability 0 and no NaN: log 0 would meet 0 in the product.
MASKED = -1e9


def rkd(
    student_feature: Float[Array, "b *s"],
    teacher_feature: Float[Array, "b *t"],
    *,
    distance_weight: float,
    angle_weight: float,
) -> Float[Array, ""]:
    """Relational knowledge distillation: distance_weight * L_distance + angle_weight * L_angle.

    L_distance: smooth L1 between the two B x B tables of Euclidean distances, each divided by the mean of
    its positive entries. L_angle: smooth L1 between the cosines of the angle at i between j and k, over all
    B^3 triples. The widths of the two taps may differ; maps are flattened.

    L_angle needs B^3 values. Up to B = 128 they are made at once; above, for a few anchors at a time, and
    again in the backward pass, so that memory stays at about 128^3 floats; the result differs by rounding.

    References: Park, Kim, Lu, Cho 2019, arXiv 1904.05068.
    """
    student, teacher = flat_rows(student_feature), jax.lax.stop_gradient(flat_rows(teacher_feature))
    loss = jnp.zeros((), jnp.float32)
    if distance_weight:
        difference = _mean_one(_distances(student)) - _mean_one(_distances(teacher))
        loss += distance_weight * jnp.mean(_smooth_l1(difference))
    if angle_weight:
        loss += angle_weight * _angle_loss(student, teacher)
    return loss


def sp(student_feature: Float[Array, "b *s"], teacher_feature: Float[Array, "b *t"]) -> Float[Array, ""]:
    """Similarity-preserving distillation: ||G_T - G_S||_F^2 / B^2.

    G is the B x B table of inner products of the flattened taps, each row scaled to unit norm.

    References: Tung, Mori 2019, arXiv 1907.09682.
    """
    student, teacher = flat_rows(student_feature), jax.lax.stop_gradient(flat_rows(teacher_feature))
    return jnp.mean((unit(inner(student, student)) - unit(inner(teacher, teacher))) ** 2)


def relation_matching(
    student_projection: Float[Array, "b p"],
    teacher_projection: Float[Array, "b p"],
    anchor_mask: Float[Array, " b"] | None = None,
    *,
    temperature: float,
) -> Float[Array, ""]:
    """Mean over rows of KL(softmax(T T' / temperature) || softmax(S S' / temperature)), diagonals left out.

    Args:
      student_projection: S, unit-norm rows.
      teacher_projection: T, unit-norm rows.
      anchor_mask: 1 where a row counts, else 0, and then it is nobody's other either; default: all do.
      temperature: of the softmax over the other samples of the batch.
    """
    student = student_projection.astype(jnp.float32)
    teacher = jax.lax.stop_gradient(teacher_projection.astype(jnp.float32))
    others = ~jnp.eye(student.shape[0], dtype=bool)
    if anchor_mask is not None:
        others &= anchor_mask[None, :] > 0

    def log_relations(rows: Float[Array, "b p"]) -> Float[Array, "b b"]:
        return jax.nn.log_softmax(jnp.where(others, inner(rows, rows) / temperature, MASKED))

    return mean_of(kl_divergence(jnp.exp(log_relations(teacher)), log_relations(student)), anchor_mask)


def pkt(student_feature: Float[Array, "b *s"], teacher_feature: Float[Array, "b *t"]) -> Float[Array, ""]:
    """Probabilistic knowledge transfer: mean over all pairs of p_T log(p_T / p_S).

    p_ij is (cosine + 1) / 2 of two samples, each row scaled to sum 1, the sample itself among them.

    References: Passalis, Tefas 2018, arXiv 1803.10837.
    """

    def relations(feature: Float[Array, "b *d"]) -> Float[Array, "b b"]:
        rows = unit(flat_rows(feature))
        near = (inner(rows, rows) + 1) / 2
        return near / jnp.maximum(jnp.sum(near, axis=1, keepdims=True), PKT_FLOOR)

    student, teacher = relations(student_feature), jax.lax.stop_gradient(relations(teacher_feature))
    return jnp.mean(teacher * jnp.log((teacher + PKT_FLOOR) / (student + PKT_FLOOR)))


def cckd(
    student_feature: Float[Array, "b *s"], teacher_feature: Float[Array, "b *t"], *, gamma: float, order: int
) -> Float[Array, ""]:
    """Correlation congruence: ||K_T - K_S||_F^2 / B^2 of the kernel tables of the unit-norm taps.

    K is exp(-gamma ||a - b||^2) as a Taylor series up to `order`, exp(-2 gamma) sum_p (2 gamma a . b)^p / p!; with
    `gamma = 0` it is the bilinear kernel a . b. Not the "CC" of some code bases, which depends on the batch's order.

    References: Peng et al. 2019, arXiv 1904.01802.
    """

    def kernel(feature: Float[Array, "b *d"]) -> Float[Array, "b b"]:
        rows = unit(flat_rows(feature))
        cosine = inner(rows, rows)
        if not gamma:
            return cosine
        terms = [(2 * gamma * cosine) ** power / math.factorial(power) for power in range(order + 1)]
        return math.exp(-2 * gamma) * sum(terms[1:], start=terms[0])

    return jnp.mean((kernel(student_feature) - jax.lax.stop_gradient(kernel(teacher_feature))) ** 2)


def batch_order_cc(student_feature: Float[Array, "b *s"], teacher_feature: Float[Array, "b *t"]) -> Float[Array, ""]:
    """The "CC" of shared code bases: mean over successive samples of sum_d |s - t|_d of one times that of the next.

    Not the loss of the paper, which is `cckd`, and unlike it, it depends on the order of the batch; published tables
    call it CC. There both taps are first mapped to 128 numbers by trained layers; here the student's is, to the
    teacher's width.

    Args:
      student_feature: mapped to the teacher's width.
      teacher_feature: the teacher's tap.

    Raises:
      ValueError: taps of two sizes.
    """
    student, teacher = flat_rows(student_feature), jax.lax.stop_gradient(flat_rows(teacher_feature))
    if student.shape != teacher.shape:
        raise ValueError(
            f"batch_order_cc: expected taps of the same size, got {student_feature.shape[1:]} (student) and "
            f"{teacher_feature.shape[1:]} (teacher). Choose taps of one size."
        )
    apart = jnp.abs(student - teacher)
    return jnp.sum(apart[:-1] * apart[1:]) / max(len(apart) - 1, 1)


def gkd(student_feature: Float[Array, "b *s"], teacher_feature: Float[Array, "b *t"]) -> Float[Array, ""]:
    """Graph knowledge distillation: sum of squared differences between the graphs that two taps span over a batch.

    A graph's edges are cosines, none to itself, scaled by 1 / sqrt(degree_i degree_j). Taps after a ReLU have no
    negative cosine; of others those edges are left out, as degrees must not be negative.

    References: Lassance et al. 2020, arXiv 1911.03080.
    """

    def graph(feature: Float[Array, "b *d"]) -> Float[Array, "b b"]:
        rows = unit(flat_rows(feature))
        edges = jnp.maximum(inner(rows, rows), 0.0) * (1 - jnp.eye(len(rows), dtype=jnp.float32))
        degree = jnp.sum(edges, axis=1)
        linked = degree > COINCIDENT
        scale = jnp.where(linked, jax.lax.rsqrt(jnp.where(linked, degree, 1.0)), 0.0)
        return edges * scale[:, None] * scale[None, :]

    return jnp.sum((graph(student_feature) - jax.lax.stop_gradient(graph(teacher_feature))) ** 2)


def irg_edge(student_feature: Float[Array, "b *s"], teacher_feature: Float[Array, "b *t"]) -> Float[Array, ""]:
    """Instance relationship graph, its edges: ||E_T - E_S||_F^2 / (2 B), E the squared distances over their largest.

    The largest distance has no gradient.

    References: Liu et al. 2019, CVPR.
    """

    def edges(feature: Float[Array, "b *d"]) -> Float[Array, "b b"]:
        rows = flat_rows(feature)
        squared = jnp.sum((rows[:, None, :] - rows[None, :, :]) ** 2, axis=-1)
        largest = jax.lax.stop_gradient(jnp.max(squared))
        return squared / jnp.where(largest > 0, largest, 1.0)

    student, teacher = edges(student_feature), jax.lax.stop_gradient(edges(teacher_feature))
    return jnp.sum((teacher - student) ** 2) / (2 * student.shape[0])


def _angle_loss(student: Float[Array, "b s"], teacher: Float[Array, "b t"]) -> Float[Array, ""]:
    batch = student.shape[0]

    def of_anchor(anchor: tuple[Float[Array, "1 s"], Float[Array, "1 t"]]) -> Float[Array, ""]:
        cosines = [inner(units, units) for units in (unit(anchor[0] - student), unit(anchor[1] - teacher))]
        return jnp.mean(_smooth_l1(cosines[0] - cosines[1]))

    each = (student[:, None, :], teacher[:, None, :])
    anchors = ANGLES_AT_ONCE // batch**2
    if anchors >= batch:
        return jnp.mean(jax.vmap(of_anchor)(each))
    return jnp.mean(jax.lax.map(jax.checkpoint(of_anchor), each, batch_size=max(1, anchors)))


def _distances(rows: Float[Array, "b d"]) -> Float[Array, "b b"]:
    # From differences, not from inner products, which cancel where two samples are near each other.
    return norm(rows[:, None, :] - rows[None, :, :])


def _mean_one(distances: Float[Array, "b b"]) -> Float[Array, "b b"]:
    """Divides by the mean of the positive entries; all zeros stay zeros."""
    count = jnp.sum(distances > 0)
    mean = jnp.sum(distances) / jnp.maximum(count, 1).astype(jnp.float32)
    return distances / jnp.where(count > 0, mean, 1.0)


def _smooth_l1(difference: Float[Array, "*b"]) -> Float[Array, "*b"]:
    size = jnp.abs(difference)
    return jnp.where(size < 1, 0.5 * difference**2, size - 0.5)
