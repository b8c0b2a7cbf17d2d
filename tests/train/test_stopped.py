"""Stopped, or broken, at any step: saved before it ends, and resumed to the same bits."""

import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jkd import digest, files, sharding
from jkd.errors import UserError
from jkd.objective import Objective
from jkd.train import checkpoint, interrupt, metrics
from jkd.train.dispatch import MeshStep
from jkd.train.loop import IN_FLIGHT, Fit, fit
from jkd.train.step import Program

STEPS, CALL = 40, 4


@pytest.fixture(scope="module")
def setup(problem: Any) -> Any:
    network = problem.network({"kd": 1.0, "cross_entropy": 0.1})
    program, teacher = problem.program(network)
    step = MeshStep(program, sharding.make_mesh(1))
    init = jax.jit(lambda run: program.init(run, teacher))

    def make(run: Any, folder: Path | None = None, **changes: Any) -> tuple[Fit, Any]:
        given = dict(step=step, batches=problem.batches(program, CALL), teacher=teacher, run=run)
        given |= dict(knowledge=problem.knowledge, folder=folder, inputs="made of this")
        return Fit(**(given | changes)), init(run)

    return make


def _digest(state: Any) -> str:
    return digest.of_tree(jax.tree.map(np.asarray, {"params": state.params, "opt": state.opt_state}))


@pytest.mark.fault(2)
def test_a_signal_at_any_step_saves_and_the_run_goes_on_to_the_same_bits(
    setup: Any, run: Any, problem: Any, tmp_path: Path, tries: Any
):
    whole, chance = _digest(fit(*setup(run))), np.random.default_rng(2)
    for trial in range(tries.count(5, 40)):
        folder = tmp_path / str(trial)
        number = signal.SIGTERM if chance.random() < 0.7 else signal.SIGINT
        at = int(chance.integers(0, STEPS // CALL - 1))

        def batches(start: int, at: int = at, number: int = number) -> Any:
            for index, chunk in enumerate(setup(run)[0].batches(start)):
                if index == at:
                    os.kill(os.getpid(), number)
                yield chunk

        with tries(f"{number.name} at step {CALL * at}"):
            with interrupt.listen(), pytest.raises(interrupt.Interrupted) as caught:
                fit(*setup(run, folder, batches=batches))
            assert caught.value.code == 128 + number
            assert checkpoint.steps(folder / "checkpoints") == [CALL * (at + 1)]
            assert _digest(fit(*setup(run, folder))) == whole


def test_the_device_is_two_calls_behind_at_most(setup: Any, run: Any, problem: Any, altered: Any):
    """Calls return before they are done: a signal would have to wait for all up to the next log line."""
    calls, waited, behind = [0], [0], []

    class Watched:
        def __init__(self, values: Any, call: int) -> None:
            self.values, self.call = values, call

        def block_until_ready(self) -> "Watched":
            waited[0] = max(waited[0], self.call)
            return self

        def __array__(self, *_: Any, **__: Any) -> np.ndarray:
            return np.asarray(self.values)

    def step(advance: Any, state: Any, chunk: Any) -> Any:
        behind.append(calls[0] - waited[0])
        calls[0] += 1
        state, measured = advance(state, chunk)
        return state, measured | {"gradient_norm": Watched(measured["gradient_norm"], calls[0])}

    network = problem.network({"kd": 1.0, "cross_entropy": 0.1})
    network.train.update(log_every=10 * STEPS)
    one, state = setup(run)
    fit(replace(one, step=altered(MeshStep(problem.program(network)[0], sharding.make_mesh(1)), step)), state)
    assert calls[0] == STEPS // CALL and max(behind) == IN_FLIGHT


@dataclass(frozen=True)
class Steep(Objective):
    """An objective with a root of zero in it from some step on: the loss is what it was, its gradient is not finite."""

    broken: int = 0

    def __call__(self, params: Any, student: Any, teacher: Any, given: Any, progress: Any) -> Any:
        value, terms = super().__call__(params, student, teacher, given, progress)
        mean = jnp.mean(student.anchors.logits)
        root = jnp.sqrt(jnp.where(progress * STEPS > self.broken - 1.5, mean - jax.lax.stop_gradient(mean), 1.0))
        return value + (root - jax.lax.stop_gradient(root)), terms


@pytest.mark.fault(10)
def test_a_gradient_that_is_not_finite_is_named_though_the_loss_is(setup: Any, run: Any, tmp_path: Path, tries: Any):
    whole, chance = _digest(fit(*setup(run))), np.random.default_rng(4)
    for broken in chance.permutation(np.arange(9, STEPS + 1))[: tries.count(1, 10)].tolist():
        folder = tmp_path / str(broken)
        one, state = setup(run, folder)
        objective = Steep(**vars(one.step.program.objective), broken=broken)
        steep = MeshStep(replace(one.step.program, objective=objective), sharding.make_mesh(1))
        with tries(f"step {broken}"):
            fit(*setup(run, folder), stop_at=8)
            with pytest.raises(UserError, match=rf"gradient_norm is (nan|inf) at step {broken} of {folder}\b"):
                fit(replace(one, step=steep), state)
            assert np.isfinite(files.read_json(folder / "nonfinite.json")["metrics"]["loss"])
            assert checkpoint.steps(folder / "checkpoints") == [8]
            assert _digest(fit(*setup(run, folder))) == whole


@dataclass(frozen=True)
class Poisoned(Program):
    """A program in which one value of one leaf's gradient is not finite from some step on."""

    broken: int = 0
    leaf: str = ""

    def differentiate(self, params: Any, batch_stats: Any, prepared: Any) -> Any:
        backward, side, stats = super().differentiate(params, batch_stats, prepared)

        def poisoned(cotangent: Any) -> Any:
            found = digest.flatten(grads := backward(cotangent))
            here = prepared.batch["step"] >= self.broken - 1
            value = jnp.where(jnp.arange(found[self.leaf].size) == 0, jnp.where(here, jnp.nan, 0.0), 0.0)
            poison = {self.leaf: value.reshape(found[self.leaf].shape)}
            leaves = [leaf + poison.get(name, 0.0) for name, leaf in found.items()]
            return jax.tree.unflatten(jax.tree.structure(grads), leaves)

        return poisoned, side, stats


@pytest.mark.fault(10)
def test_the_leaf_in_which_it_began_is_named_though_all_are_broken_soon_after(
    setup: Any, run: Any, problem: Any, tmp_path: Path, tries: Any
):
    chance = np.random.default_rng(5)
    one, state = setup(run)
    leaves, program = list(digest.flatten(state.params)), one.step.program
    for trial in range(tries.count(2, 20)):
        folder, broken, leaf = tmp_path / str(trial), int(chance.integers(1, 37)), str(chance.choice(leaves))
        settings = program.settings.copy_and_resolve_references()
        with settings.unlocked():
            settings.update(log_every=1000, checkpoint_every=int(chance.choice([0, 8])), digest_every=0)
        sick = Poisoned(**program.__dict__ | {"settings": settings}, broken=broken, leaf=leaf)
        taken: list[int] = []

        def batches(first: int, sick: Program = sick, taken: list[int] = taken) -> Any:
            for chunk in problem.batches(sick, CALL)(first):
                taken.append(int(chunk["step"][0]) + CALL)
                yield chunk

        with tries(f"{leaf} at step {broken}"):
            changes = dict(step=MeshStep(sick, sharding.make_mesh(1)), batches=batches)
            changes |= dict(init=lambda: jax.jit(program.init)(run, one.teacher))
            poisoned, state = setup(run, folder, **changes)
            said = rf"at step {broken} of {folder}\b.*the first leaf that is not finite is params/{leaf}\."
            with pytest.raises(UserError, match=said):
                fit(poisoned, state)
            assert max(taken) <= broken + CALL * (IN_FLIGHT + 1)


@pytest.mark.fault(10)
@pytest.mark.parametrize("metric", ["loss", "gradient_norm"])
def test_a_step_that_is_not_finite_is_named_and_the_state_before_it_is_kept(
    setup: Any, run: Any, altered: Any, tmp_path: Path, tries: Any, metric: str
):
    whole, chance = _digest(fit(*setup(run))), np.random.default_rng(3)
    for trial in range(tries.count(4, 40)):
        folder, broken = tmp_path / str(trial), int(chance.integers(9, STEPS + 1))
        value = float(chance.choice([np.nan, np.inf, -np.inf]))
        one, state = setup(run, folder)

        def step(advance: Any, state: Any, chunk: Any, broken: int = broken, value: float = value) -> Any:
            first = int(state.step)
            state, measured = advance(state, chunk)
            if first < broken <= first + CALL:
                values = np.array(measured[metric])
                values[broken - first - 1 :] = value
                measured = measured | {metric: values}
            return state, measured

        with tries(f"{value} at step {broken}"):
            fit(*setup(run, folder), stop_at=8)
            with pytest.raises(UserError, match=rf"{metric} is {value} at step {broken} of {folder}\b"):
                fit(replace(one, step=altered(one.step, step)), state)
            assert checkpoint.steps(folder / "checkpoints") == [8]
            assert len(files.read_json(folder / "nonfinite.json")["ids"]) == 16
            assert all(line["step"] < broken for line in metrics.read(folder / "metrics.jsonl"))
            assert _digest(fit(*setup(run, folder))) == whole
