"""The elastic step: the same bits on any number of devices, the mathematics of the plain one; and `pmap`."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jkd import digest, sharding
from jkd.train import elastic
from jkd.train.dispatch import MeshStep, PmapStep
from jkd.train.elastic import ElasticStep, elastic_step

SHAPE = (4, 4, 1)
TERMS = {
    "kd": 0.5,
    "cross_entropy": 0.1,
    "rkd": 0.1,
    "joined_beliefs": 0.2,
    "projection": {"weight": 0.1, "detach": False},
}


def _run(step: Any, problem: Any, run: Any, teacher: Any, steps: int = 2) -> tuple[Any, dict[str, np.ndarray]]:
    """`steps` calls of one step each."""
    state = step.place(jax.jit(lambda: step.program.init(run, teacher))())
    advance, lines = step.bind(teacher, problem.knowledge, run), []
    for index in range(steps):
        state, metrics = advance(state, problem.chunk(index, 1, step.program.settings.batch))
        lines.append({key: np.asarray(value)[0] for key, value in metrics.items()})
    return jax.tree.map(np.asarray, state), {key: np.stack([line[key] for line in lines]) for key in lines[0]}


def _network(problem: Any, **changes: Any) -> Any:
    network = problem.network(TERMS)
    with network.unlocked():
        network.train.steps_per_call = 1
        network.train.optimizer.name = "sgd"  # Adam would blow rounding up where a gradient is zero but for it
        for key, value in changes.items():
            (network.train.augment if key in network.train.augment else network)[key] = value
    return network


@pytest.mark.long
@pytest.mark.parametrize(
    "changes", [{"batch_norm": True, "dropout": 0.3}, {"mixup": 0.4}], ids=lambda each: next(iter(each))
)
def test_one_and_four_devices_give_the_same_bits(problem: Any, run: Any, changes: dict[str, Any]):
    program, teacher = problem.program(_network(problem, **changes))
    results = [_run(ElasticStep(program, 8, jax.devices()[:count]), problem, run, teacher) for count in (1, 4)]
    for state, metrics in results[1:]:
        assert digest.of_tree(state.__dict__) == digest.of_tree(results[0][0].__dict__)
        for name, values in metrics.items():
            np.testing.assert_array_equal(values, results[0][1][name], err_msg=name)


def test_one_step_trains_on_graphs_of_several_sizes(problem: Any, run: Any):
    """As replicates do: they share their programs, and each has a pool of its own."""
    program, teacher = problem.program(_network(problem))
    axes = {"joined": 0, "features": 0, "neighbours": 1, "weights": 1}  # of the nodes
    twice = {name: jnp.repeat(getattr(problem.knowledge, name), 2, axis) for name, axis in axes.items()}
    larger = problem.knowledge._replace(**twice)
    step, found = ElasticStep(program, 4, jax.devices()[:1]), []
    for knowledge in (problem.knowledge, larger, problem.knowledge):
        state, metrics = _run(step, replace(problem, knowledge=knowledge), run, teacher)
        found.append((digest.of_tree(state.__dict__), digest.of_tree(metrics["loss"])))
    assert found[0] == found[2] != found[1]


def test_threads_send_the_shards_and_change_no_bit_whatever_the_settings_of_the_one_that_trains(
    problem: Any, run: Any, monkeypatch: pytest.MonkeyPatch
):
    program, teacher = problem.program(_network(problem, dropout=0.3))

    def trained() -> tuple[str, str]:
        with jax.threefry_partitionable(False):  # a setting of this thread: dropout draws other numbers by it
            state, metrics = _run(ElasticStep(program, 4, jax.devices()[:1]), problem, run, teacher)
        return digest.of_tree(state.__dict__), digest.of_tree(metrics)

    pool, sent = ThreadPoolExecutor(2, thread_name_prefix="shard"), []
    send = pool.submit
    monkeypatch.setattr(pool, "submit", lambda *given: (sent.append(given), send(*given))[1])
    monkeypatch.setattr(elastic, "_threads", lambda: pool)
    threaded = trained()
    assert len(sent) == 2 * 2 * 4  # steps, forward and back, shards

    def alone(self: ElasticStep, program: Any, given: list[Any], alike: list[Any]) -> list[Any]:
        return [program(*each) for each in given]

    monkeypatch.setattr(ElasticStep, "_of_each_shard", alone)
    assert threaded == trained()


@pytest.mark.long
def test_it_is_the_plain_step_to_rounding(problem: Any, run: Any):
    program, teacher = problem.program(_network(problem))
    plain, one = _run(MeshStep(program, sharding.make_mesh(1)), problem, run, teacher)
    apart, two = _run(ElasticStep(program, 4, jax.devices()[:2]), problem, run, teacher)
    for name, values in one.items():
        if name != "checksums":
            np.testing.assert_allclose(two[name], values, rtol=2e-4, atol=1e-5, err_msg=name)
    for a, b in zip(jax.tree.leaves(plain.params), jax.tree.leaves(apart.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_another_number_of_shards_gives_other_bits(problem: Any, run: Any):
    program, teacher = problem.program(_network(problem, batch_norm=True))
    two, eight = (_run(ElasticStep(program, shards, jax.devices()[:1]), problem, run, teacher)[0] for shards in (2, 8))
    assert digest.of_tree(two.params) != digest.of_tree(eight.params)


def test_its_checksums_are_named_as_those_of_the_plain_step(problem: Any, run: Any):
    program, teacher = problem.program(_network(problem))
    state = jax.jit(lambda: program.init(run, teacher))()
    leaves = program.checksum_leaves(state, teacher, problem.knowledge, problem.chunk(0, 1, 16), run)
    for step in (ElasticStep(program, 4, jax.devices()[:2]), MeshStep(program, sharding.make_mesh(1))):
        rows = _run(step, problem, run, teacher)[1]["checksums"]
        assert rows.shape == (2, len(leaves)) and (rows[0] != rows[1]).sum() > len(leaves) / 2
    assert {name.partition("/")[0] for name, _ in leaves} == {
        "update",
        "batch",
        "teacher",
        "graph",
        "student",
        "gradients",
    }


def test_a_chunk_of_several_steps_is_one_program_on_one_device(problem: Any, run: Any):
    program, _ = problem.program(problem.network(TERMS))  # 4 steps a call
    step = elastic_step(program, 8, jax.devices())
    assert isinstance(step, MeshStep) and step.mesh.devices.size == 1 and step.program.parts == 8


@pytest.mark.long
def test_pmap_equals_jit(problem: Any, run: Any):
    network = _network(problem, batch_norm=True, mixup=0.4)
    jit, teacher = problem.program(network)
    pmapped, _ = problem.program(network, axis=sharding.AXIS)
    plain, one = _run(MeshStep(jit, sharding.make_mesh(2)), problem, run, teacher)
    other, two = _run(PmapStep(pmapped, jax.devices()[:2]), problem, run, teacher)
    for name, values in one.items():
        if name != "checksums":
            np.testing.assert_allclose(two[name], values, rtol=2e-4, atol=1e-5, err_msg=name)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
