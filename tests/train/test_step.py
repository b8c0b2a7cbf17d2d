"""The step: sharded equals unsharded, micro-batches equal the whole batch, one compile, the teacher is really used."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jkd import digest, sharding
from jkd.methods import METHODS
from jkd.train.dispatch import MeshStep, place_chunk

# A perceptron has neither maps nor tokens, and finds no objects.
PLAIN = sorted(name for name, it in METHODS.items() if not (it.tokens or it.objects or it.maps))
EVERYTHING: dict[str, Any] = {name: 0.1 for name in PLAIN} | {"projection": {"weight": 0.1, "detach": False}}


def _train(problem: Any, run: Any, network: Any, steps: int = 2, devices: int = 1) -> tuple[Any, dict[str, np.ndarray]]:
    program, teacher = problem.program(network)
    state = jax.jit(lambda: program.init(run, teacher))()
    chunk = problem.chunk(0, steps, network.train.batch)
    step = MeshStep(program, sharding.make_mesh(devices))
    state, metrics = step.bind(teacher, problem.knowledge, run)(step.place(state), chunk)
    return state, {key: np.asarray(value) for key, value in metrics.items() if key != "checksums"}


SHAPE = (4, 4, 1)


def test_each_device_computes_its_share_of_a_batch(problem: Any, run: Any):
    program, teacher = problem.program(problem.network({"kd": 1.0, "cross_entropy": 0.1}))
    state, chunk = jax.jit(lambda: program.init(run, teacher))(), problem.chunk(0, 1, 16)

    def work(devices: int) -> tuple[float, str]:
        mesh = sharding.make_mesh(devices)
        step, given = MeshStep(program, mesh), sharding.place((teacher, problem.knowledge, run), mesh)
        compiled = step.jitted.lower(step.place(state), *given[:2], place_chunk(chunk, mesh), given[2]).compile()
        return compiled.cost_analysis()["flops"], compiled.as_text()

    (alone, _), (shared, text) = work(1), work(4)
    assert "all-reduce" in text and shared < 0.6 * alone


@pytest.mark.long
@pytest.mark.parametrize("devices", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_more_devices_give_the_same_losses_with_relations_over_the_global_batch(problem: Any, run: Any, devices: int):
    network = problem.network(EVERYTHING)
    one, many = (_train(problem, run, network, devices=count)[1] for count in (1, devices))
    assert set(EVERYTHING) < set(one)
    for name, values in one.items():
        np.testing.assert_allclose(many[name], values, rtol=2e-4, atol=1e-5, err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize("accumulate", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_micro_batches_equal_the_whole_batch(problem: Any, run: Any, accumulate: int):
    whole_state, whole = _train(problem, run, problem.network(EVERYTHING))
    network = problem.network(EVERYTHING)
    with network.unlocked():
        network.train.accumulate = accumulate
    state, parts = _train(problem, run, network)
    for name, values in whole.items():
        np.testing.assert_allclose(parts[name], values, rtol=2e-4, atol=1e-5, err_msg=name)
    for a, b in zip(jax.tree.leaves(whole_state.params), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_many_steps_in_one_call_equal_single_steps(problem: Any, run: Any):
    network = problem.network({"kd": 1.0, "cross_entropy": 0.1})
    program, teacher = problem.program(network)
    state = jax.jit(lambda: program.init(run, teacher))()
    step = jax.jit(program.train_steps)
    many, metrics = step(state, teacher, problem.knowledge, problem.chunk(0, 4, 16), run)
    losses = []
    for index in range(4):
        state, one = step(state, teacher, problem.knowledge, problem.chunk(index, 1, 16), run)
        losses.append(float(one["loss"][0]))
    np.testing.assert_allclose(metrics["loss"], losses, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(many.params), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_short_chunk_stops_at_its_count_and_compiles_nothing_new(problem: Any, run: Any):
    network = problem.network({"kd": 1.0})
    program, teacher = problem.program(network)
    step = jax.jit(program.train_steps)
    state = jax.jit(lambda: program.init(run, teacher))()
    chunk = problem.chunk(0, 4, 16)
    after_two, _ = step(state, teacher, problem.knowledge, chunk | {"count": np.int32(2)}, run)
    assert int(after_two.step) == 2
    step(state, teacher, problem.knowledge, chunk, run._replace(seed=jnp.uint32(9), replicate=jnp.uint32(4)))
    assert step._cache_size() == 1


@pytest.mark.parametrize("term", sorted(set(PLAIN) - {"cross_entropy", "joined_beliefs"}))
def test_the_teacher_is_really_used(problem: Any, run: Any, term: str):
    network = problem.network({term: 1.0})
    program, teacher = problem.program(network)
    state = jax.jit(lambda: program.init(run, teacher))()
    step = jax.jit(program.train_steps)
    chunk = problem.chunk(0, 1, 16)
    _, one = step(state, teacher, problem.knowledge, chunk, run)
    other = jax.tree.map(lambda leaf: leaf[::-1] * 1.5, teacher)
    _, two = step(state, other, problem.knowledge, chunk, run)
    assert float(one[term][0]) != float(two[term][0])


def test_no_gradient_flows_into_the_teacher(problem: Any, run: Any):
    network = problem.network(EVERYTHING)
    program, teacher = problem.program(network)
    state = jax.jit(lambda: program.init(run, teacher))()
    batch = jax.tree.map(
        lambda leaf: jnp.asarray(leaf[0]), {k: v for k, v in problem.chunk(0, 1, 16).items() if np.ndim(v)}
    )

    def loss(teacher: Any) -> jax.Array:
        prepared = program.prepare(problem.knowledge, batch, run)
        side = program.teacher_side(teacher, prepared)
        student, _ = program.shard_forward(state.params, state.batch_stats, prepared.batch, prepared.dropout)
        return program.objective(state.objective, student, side, prepared.given, jnp.float32(0))[0]

    assert all(float(jnp.abs(leaf).max()) == 0 for leaf in jax.tree.leaves(jax.grad(loss)(teacher)))


def test_the_relation_network_and_both_projections_are_trained(problem: Any, run: Any):
    network = problem.network({"projection": 1.0})
    program, teacher = problem.program(network)
    first = jax.jit(lambda: program.init(run, teacher))().objective
    last = _train(problem, run, network)[0].objective
    for name, before in digest.flatten(first).items():
        change = np.abs(np.asarray(digest.flatten(last)[name]) - np.asarray(before)).max()
        assert change > 0, f"{name} is not trained"


def test_a_detached_projection_leaves_the_student_as_it_is(problem: Any, run: Any):
    alone, _ = _train(problem, run, problem.network({"kd": 1.0}))
    both, _ = _train(problem, run, problem.network({"kd": 1.0, "projection": {"weight": 5.0, "detach": True}}))
    for a, b in zip(jax.tree.leaves(alone.params), jax.tree.leaves(both.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert jax.tree.leaves(both.objective) and not jax.tree.leaves(alone.objective)


def test_same_seed_same_bits_and_another_seed_others(problem: Any, run: Any):
    network = problem.network({"kd": 1.0})
    one, two = _train(problem, run, network)[0], _train(problem, run, network)[0]
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True))
    other = _train(problem, run._replace(seed=jnp.uint32(1)), network)[0]
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True))


def test_schedules_change_the_weight_over_the_run(problem: Any):
    terms = problem.network({"kd": {"weight": 2.0, "schedule": "linear"}, "rkd": {"schedule": "cosine", "warmup": 0.5}})
    objective = problem.program(terms)[0].objective
    kd, rkd = (next(term for term in objective.terms if term.name == name) for name in ("kd", "rkd"))
    at = lambda term, progress: float(term.factor(jnp.float32(progress)))  # noqa: E731
    assert (at(kd, 0.0), at(kd, 0.5)) == (2.0, 1.0)
    assert at(rkd, 0.0) == 0.0 and at(rkd, 0.5) == pytest.approx(0.5)


def test_ema_follows_the_parameters_and_is_what_is_evaluated(problem: Any, run: Any):
    network = problem.network({"kd": 1.0})
    with network.unlocked():
        network.train.ema = 0.5
    state, _ = _train(problem, run, network)
    assert state.variables["params"] is state.ema
    first = jax.tree.leaves(state.params)[0] - jax.tree.leaves(state.ema)[0]
    assert 0 < float(jnp.abs(first).max()) < 0.1


def test_unlabelled_samples_give_no_cross_entropy(problem: Any, run: Any):
    network = problem.network({"cross_entropy": 1.0})
    program, teacher = problem.program(network, teacher=False)
    state = jax.jit(lambda: program.init(run, teacher))()
    chunk = problem.chunk(0, 1, 16)
    chunk["label"] = np.full_like(chunk["label"], -1)
    _, metrics = jax.jit(program.train_steps)(state, {}, problem.knowledge, chunk, run)
    assert float(metrics["loss"][0]) == 0.0 == float(metrics["gradient_norm"][0])


def test_bfloat16_compute_stays_close_with_float32_parameters(problem: Any, run: Any):
    full = _train(problem, run, problem.network({"kd": 1.0}))[1]
    state, half = _train(problem, run, problem.network({"kd": 1.0}, dtype="bfloat16"))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.params))
    np.testing.assert_allclose(half["loss"], full["loss"], rtol=0.05, atol=0.05)


def test_a_batch_that_devices_cannot_share_is_refused():
    from jkd.errors import UserError

    with pytest.raises(UserError, match="Use a multiple of 4"):
        sharding.check_batch(2, 18, 2, "students.kd")
    with pytest.raises(UserError, match="jax sees"):
        sharding.make_mesh(4096)
