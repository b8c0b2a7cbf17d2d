from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jkd.losses import stages

RNG = np.random.default_rng(0)


def _maps(*shapes: tuple[int, ...]) -> tuple[jax.Array, ...]:
    return tuple(jnp.asarray(RNG.normal(size=(4, *shape)), jnp.float32) for shape in shapes)


STUDENT, TEACHER = _maps((8, 8, 3), (4, 4, 3), (2, 2, 6)), _maps((8, 8, 5), (4, 4, 5), (2, 2, 7))


def test_the_flow_between_maps_of_two_sizes_is_that_of_the_larger_pooled() -> None:
    one, other = _maps((8, 8, 3), (4, 4, 6))
    pooled = one.reshape(4, 4, 2, 4, 2, 3).mean((2, 4))
    zero = tuple(jnp.zeros_like(each) for each in (one, other))
    table = np.einsum("bijc,bijd->bcd", pooled, other) / 16
    np.testing.assert_allclose(stages.fsp((one, other), zero), np.mean(table**2), rtol=1e-4)


def test_a_move_is_measured_within_each_network_so_widths_may_differ() -> None:
    student, teacher = STUDENT[:2], TEACHER[:2]

    def moves(taps: tuple[Any, ...]) -> np.ndarray:
        one, other = (np.asarray(each).mean((1, 2)) for each in taps)
        squared = ((one - other) ** 2).sum(-1)
        return squared / squared.max()

    expected = ((moves(student) - moves(teacher)) ** 2).sum() / 2
    np.testing.assert_allclose(stages.irg_transformation(student, teacher), expected, rtol=1e-4)
    scaled = tuple(3 * each for each in student)
    np.testing.assert_allclose(stages.irg_transformation(scaled, student), 0, atol=1e-10)


def test_review_learns_to_match_each_stage_and_its_last_stage_reviews_none() -> None:
    shapes = [tuple(each.shape for each in taps) for taps in (STUDENT, TEACHER)]
    context = stages.init_review(jax.random.key(0), *shapes)
    loss = jax.value_and_grad(lambda context: stages.review(STUDENT, TEACHER, context))

    def step(context: Any, _: None) -> Any:
        value, gradient = loss(context)
        return jax.tree.map(lambda leaf, slope: leaf - 0.1 * slope, context, gradient), (value, gradient)

    _, (values, gradients) = jax.jit(lambda context: jax.lax.scan(step, context, length=40))(context)
    last = "2"  # nothing stands behind it
    assert "attend" not in gradients[last] and np.any(gradients["0"]["attend"]["kernel"][0])
    assert values[-1] < 0.8 * values[0]


def test_review_sends_what_a_later_stage_knows_to_the_earlier_ones() -> None:
    shapes = [tuple(each.shape for each in taps) for taps in (STUDENT, TEACHER)]
    context = stages.init_review(jax.random.key(0), *shapes)

    def of_first(last: jax.Array) -> jax.Array:
        whole = stages.review((*STUDENT[:2], last), TEACHER, context)
        alone = stages.review((STUDENT[1], last), TEACHER[1:], {"0": context["1"], "1": context["2"]})
        return whole - alone  # the first stage's part

    assert np.any(jax.jit(jax.grad(of_first))(STUDENT[2]))


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7, 8])
def test_a_pyramid_uses_the_grids_coarser_than_the_map(side: int) -> None:
    one, other = _maps((side, side, 2), (side, side, 2))
    error, expected, weights = np.asarray(one - other), 0.0, 0.0
    for level, cells in enumerate([side, *(each for each in (4, 2, 1) if each < side)]):
        bounds = [(i * side // cells, -(-(i + 1) * side // cells)) for i in range(cells)]
        means = [error[:, a:b, c:d].mean((1, 2)) for a, b in bounds for c, d in bounds]
        expected, weights = expected + 0.5**level * np.mean(np.square(means)), weights + 0.5**level
    np.testing.assert_allclose(stages.hierarchical_context(one, other), expected / weights, rtol=1e-4)


def test_taps_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"fsp: expected the same number of taps, at least 2, got 1 \(student\) and 2"):
        stages.fsp(STUDENT[:1], TEACHER[:2])
    with pytest.raises(
        ValueError, match=r"fsp: expected successive taps of the teacher's widths, 5 and 5, got 3 and 3"
    ):
        stages.fsp(STUDENT[:2], TEACHER[:2])
    with pytest.raises(
        ValueError, match=r"irg_transformation: expected successive taps of one width, got 3 and 6 \(stu"
    ):
        stages.irg_transformation(STUDENT[1:], TEACHER[:2])
    with pytest.raises(ValueError, match=r"review: expected the same number of taps, at least 1, got 3"):
        stages.review(STUDENT, TEACHER[:2], {})
    with pytest.raises(ValueError, match=r"review: expected maps \[H, W, C\] or vectors \[C\], got \(8, 3\)"):
        stages.review((STUDENT[0][:, 0],), TEACHER[:1], {})


def test_a_vector_is_a_map_of_one_position_to_review() -> None:
    student, teacher = ((*taps[1:], taps[2].mean((1, 2))) for taps in (STUDENT, TEACHER))
    context = stages.init_review(
        jax.random.key(0), *(tuple(each.shape for each in taps) for taps in (student, teacher))
    )
    as_maps = [(*taps[:2], taps[2][:, None, None]) for taps in (student, teacher)]
    review = jax.jit(stages.review)
    assert review(student, teacher, context) == review(*as_maps, context)
