"""The objective: a sum of terms, each given exactly what its function asks for."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jkd import config as configs
from jkd import methods, objective
from jkd.errors import UserError
from jkd.losses import logits, relations, stages
from jkd.objective import Objective, Side, make_objective
from jkd.tasks import Anchors
from jkd.terms import INPUTS

B, C = 6, 4
EVERY = sorted(name for name, method in methods.METHODS.items() if not (method.tokens or method.objects))


def _objective(terms: dict[str, Any], **student: Any) -> Objective:
    config = configs.default()
    edges = {"graph": {"edges": "real"}} if {"joined_beliefs", "projection"} & set(terms) else {}
    config.students = {"it": {"objective": terms} | edges | student}
    return make_objective(configs.resolve(config).students.it, edge_types=2)


def _sides(seed: int = 0) -> tuple[Side, Side]:
    rng = np.random.default_rng(seed)

    def side(width: int) -> Side:
        draw = lambda *shape: jnp.asarray(rng.normal(size=shape).astype(np.float32))  # noqa: E731
        feature = draw(B, width)
        anchors = Anchors(jnp.arange(B, dtype=jnp.int32), jnp.ones(B), feature, draw(B, C))
        taps = {"embedding": feature, "map": draw(B, 4, 4, width)}
        return Side(anchors, taps | {"alike": draw(B, 4, 4, 3), "coarse": draw(B, 2, 2, 3)})

    return side(5), side(7)


def _given() -> dict[str, jax.Array]:
    rng = np.random.default_rng(1)
    ids = rng.integers(-1, B, (B, 2, 3))
    return {
        "label_target": jnp.eye(C)[jnp.arange(B) % C] * (jnp.arange(B) < 4)[:, None],
        "labelled": (jnp.arange(B) < 4).astype(jnp.float32),
        "joined": jnp.asarray(rng.dirichlet(np.ones(C), B).astype(np.float32)),
        "mix": jnp.float32(0.5),
        "smoothing": jnp.float32(0.3),
        "neighbour_features": jnp.asarray(rng.normal(size=(B, 2, 3, 7)).astype(np.float32)),
        "neighbour_weights": jnp.ones((B, 2, 3)),
        "neighbour_mask": jnp.asarray(ids >= 0),
    }


def _value(goal: Objective, progress: float = 0.0) -> tuple[float, dict[str, float]]:
    def run(student: Side, teacher: Side, given: dict[str, jax.Array], progress: jax.Array) -> Any:
        params = goal.init(jax.random.key(0), student, teacher if goal.needs_teacher else None)
        return goal(params, student, teacher, given, progress)

    total, values = jax.jit(run)(*_sides(), _given(), jnp.float32(progress))
    return float(total), {name: float(value) for name, value in values.items()}


def test_the_total_is_the_weighted_sum_of_the_terms():
    total, values = _value(_objective({"kd": 0.7, "cross_entropy": 0.2, "projection": 0.1, "rkd": 0.5}))
    weights = {"kd": 0.7, "cross_entropy": 0.2, "projection": 0.1, "rkd": 0.5}
    assert set(values) == set(weights)
    assert total == pytest.approx(sum(weights[name] * value for name, value in values.items()), rel=1e-5)


def test_a_weight_of_zero_is_no_term():
    goal = _objective({"kd": 0.7, "rkd": {"weight": 0.0}})
    assert [term.name for term in goal.terms] == ["kd"]


@pytest.mark.parametrize("name", EVERY)
def test_every_listed_method_can_be_a_term(name: str):
    method = methods.METHODS[name]
    tap = "alike,coarse" if "," in method.tap else "map"
    taps = {"student_tap": tap, "teacher_tap": tap} if method.maps else {}
    goal = _objective({name: {"weight": 1.0} | taps})
    total, values = _value(goal)
    assert np.isfinite(total) and total == pytest.approx(values[name])
    assert goal.terms[0].needs <= INPUTS and goal.terms[0].needs
    assert bool(goal.student_taps) == method.taps


def test_an_automatic_option_is_taken_from_what_is_given():
    student, teacher = _sides()
    expected = logits.smoothed_kd(student.anchors.logits, teacher.anchors.logits, smoothing=jnp.float32(0.3))
    assert _value(_objective({"label_smoothing": {"smoothing": "auto"}}))[0] == pytest.approx(float(expected))
    fixed = _value(_objective({"label_smoothing": {"smoothing": 0.0}}))[0]
    assert fixed != pytest.approx(float(expected))


def test_taps_are_the_ones_that_are_named():
    goal = _objective({"sp": {"student_tap": "map", "teacher_tap": "embedding"}})
    student, teacher = _sides()
    expected = relations.sp(student.taps["map"], teacher.taps["embedding"])
    assert _value(goal)[0] == pytest.approx(float(expected), rel=1e-5)


def test_a_regressed_tap_gets_its_own_map_to_the_teachers_width():
    goal = _objective({"fitnet": {"student_tap": "map", "teacher_tap": "map"}})
    params = goal.init(jax.random.key(0), *_sides())
    assert params["fitnet"]["kernel"].shape == (5, 7)


def test_a_term_of_several_taps_gets_them_in_the_order_that_they_are_named_in():
    goal = _objective({"fsp": {"student_tap": "coarse, alike", "teacher_tap": "coarse,alike"}})
    student, teacher = _sides()
    taps = [[side.taps[name] for name in ("coarse", "alike")] for side in (student, teacher)]
    assert _value(goal)[0] == pytest.approx(float(stages.fsp(*taps)), rel=1e-5)


def test_a_term_of_one_tap_stands_for_one_a_pair_of_listed_taps_with_equal_shares():
    goal = _objective({"fitnet": {"weight": 3.0, "student_tap": "map,embedding", "teacher_tap": "map,embedding"}})
    assert [(term.name, term.weight, term.student_tap) for term in goal.terms] == [
        ("fitnet_0", 1.5, "map"),
        ("fitnet_1", 1.5, "embedding"),
    ]
    total, values = _value(goal)
    assert total == pytest.approx(1.5 * sum(values.values()), rel=1e-5)
    with pytest.raises(UserError, match=r"fitnet.student_tap: expected the name of a tap, .* got 'map,'"):
        _objective({"fitnet": {"student_tap": "map,", "teacher_tap": "map"}})
    with pytest.raises(UserError, match=r"fitnet.teacher_tap: expected the name of a tap, .* got ''"):
        _objective({"fitnet": {"student_tap": "map", "teacher_tap": ""}})
    with pytest.raises(UserError, match=r"fitnet: expected as many taps of the student as of the teacher, got 2 .* 1"):
        _objective({"fitnet": {"student_tap": "map,embedding", "teacher_tap": "map"}})


def test_a_terms_own_parameters_are_made_from_the_shapes_of_its_taps():
    goal = _objective({"vid": {"student_tap": "map", "teacher_tap": "map"}, "crd": 1.0})
    params = goal.init(jax.random.key(0), *_sides())
    assert params["vid_context"]["layer0"]["kernel"].shape == (5, 7)
    assert {side: it["kernel"].shape for side, it in params["crd_context"].items()} == {
        "student": (5, 128),
        "teacher": (7, 128),
    }


def test_parameters_do_not_depend_on_a_term_that_owns_none():
    key, sides = jax.random.key(3), _sides()
    goals = [_objective({"projection": 1.0}), _objective({"projection": 1.0, "kd": 1.0, "cross_entropy": 0.5})]
    alone, more = jax.jit(lambda: [goal.init(key, *sides) for goal in goals])()
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), alone, more)))


def test_a_lone_test_input_is_projected_as_in_a_batch():
    goal = _objective({"projection": 1.0})
    student, teacher = _sides()
    params = jax.jit(goal.init)(jax.random.key(0), student, teacher)
    together = goal.project_student(params, student.anchors.feature)
    alone = goal.project_student(params, student.anchors.feature[2:3])
    np.testing.assert_allclose(alone[0], together[2], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jnp.linalg.norm(together, axis=-1), 1.0, rtol=1e-5)


def test_a_teacher_is_trained_on_labels_alone():
    goal = objective.supervised()
    assert not goal.needs_teacher and not goal.projects and goal.init(jax.random.key(0), _sides()[0], None) == {}
    student, teacher = _sides()
    total, _ = goal({}, student, None, _given(), jnp.float32(0.0))
    other, _ = goal({}, student, teacher, _given(), jnp.float32(0.9))
    assert float(total) == float(other) > 0
