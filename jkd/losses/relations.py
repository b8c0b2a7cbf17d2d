"""Losses between the relations that the samples of a batch have to each other."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jkd.losses.logits import kl_divergence, mean_of

# Entries of the [anchor, j, k] table of angles that are held at once: the whole table up to a batch of 128.
ANGLES_AT_ONCE = 128**3
# Squared distances up to this one count as 0 (as in the authors' code), and have gradient 0.
COINCIDENT = 1e-12
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
    student, teacher = _rows(student_feature), jax.lax.stop_gradient(_rows(teacher_feature))
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
    student, teacher = _rows(student_feature), jax.lax.stop_gradient(_rows(teacher_feature))
    return jnp.mean((_unit(_inner(student, student)) - _unit(_inner(teacher, teacher))) ** 2)


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
        return jax.nn.log_softmax(jnp.where(others, _inner(rows, rows) / temperature, MASKED))

    return mean_of(kl_divergence(jnp.exp(log_relations(teacher)), log_relations(student)), anchor_mask)


def _angle_loss(student: Float[Array, "b s"], teacher: Float[Array, "b t"]) -> Float[Array, ""]:
    batch = student.shape[0]

    def of_anchor(anchor: tuple[Float[Array, "1 s"], Float[Array, "1 t"]]) -> Float[Array, ""]:
        cosines = [_inner(unit, unit) for unit in (_unit(anchor[0] - student), _unit(anchor[1] - teacher))]
        return jnp.mean(_smooth_l1(cosines[0] - cosines[1]))

    each = (student[:, None, :], teacher[:, None, :])
    anchors = ANGLES_AT_ONCE // batch**2
    if anchors >= batch:
        return jnp.mean(jax.vmap(of_anchor)(each))
    return jnp.mean(jax.lax.map(jax.checkpoint(of_anchor), each, batch_size=max(1, anchors)))


def _rows(feature: Float[Array, "b *s"]) -> Float[Array, "b d"]:
    return feature.astype(jnp.float32).reshape(feature.shape[0], -1)


def _inner(left: Float[Array, "b d"], right: Float[Array, "c d"]) -> Float[Array, "b c"]:
    return jnp.matmul(left, right.T, precision="highest")  # elsewhere than on CPU the default is less than float32


def _norm(rows: Float[Array, "*b d"]) -> Float[Array, "*b"]:
    """Euclidean norm; 0 with gradient 0 where it is all but 0."""
    squared = jnp.sum(rows**2, axis=-1)
    apart = squared > COINCIDENT
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0)


def _unit(rows: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Rows scaled to unit norm; a row of zeros stays one."""
    norm = _norm(rows)[..., None]
    return jnp.where(norm > 0, rows / jnp.where(norm > 0, norm, 1.0), 0.0)


def _distances(rows: Float[Array, "b d"]) -> Float[Array, "b b"]:
    # From differences, not from inner products, which cancel where two samples are near each other.
    return _norm(rows[:, None, :] - rows[None, :, :])


def _mean_one(distances: Float[Array, "b b"]) -> Float[Array, "b b"]:
    """Divides by the mean of the positive entries; all zeros stay zeros."""
    count = jnp.sum(distances > 0)
    mean = jnp.sum(distances) / jnp.maximum(count, 1).astype(jnp.float32)
    return distances / jnp.where(count > 0, mean, 1.0)


def _smooth_l1(difference: Float[Array, "*b"]) -> Float[Array, "*b"]:
    size = jnp.abs(difference)
    return jnp.where(size < 1, 0.5 * difference**2, size - 0.5)
