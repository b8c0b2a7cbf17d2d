"""A tiny problem: 64 samples of 4x4 images in 3 classes, an MLP teacher and an MLP student, random graph arrays."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from jkd import config as configs
from jkd import objective
from jkd.build import run_of
from jkd.data import Images
from jkd.methods import METHODS
from jkd.models import build_model
from jkd.tasks import CLASSIFICATION
from jkd.train.given import Knowledge
from jkd.train.optimizer import make_optimizer
from jkd.train.step import Program

CLASSES, SHAPE, NODES, K, VIEWS = 3, (4, 4, 1), 64, 5, 2


@dataclass
class Problem:
    """Makes programs and batches over the same data."""

    images: np.ndarray
    labels: np.ndarray
    knowledge: Knowledge

    def network(self, objective_terms: dict[str, Any], **changes: Any) -> ConfigDict:
        config = configs.default()
        config.students = {"it": {"objective": objective_terms}}
        config.student.update(model="mlp", width=8, depth=1)
        config.student.train.update(steps=40, batch=16, steps_per_call=4, log_every=4, checkpoint_every=0)
        config.student.graph.update(edges="real" if any(METHODS[term].edges for term in objective_terms) else "none")
        config.student.update(changes)
        return configs.resolve(config).students.it

    def program(self, network: ConfigDict, teacher: bool = True, axis: str | None = None) -> tuple[Program, Any]:
        module = build_model(configs.default().teacher, CLASSES)

        def apply(variables: Any, images: jax.Array) -> Any:
            return module.apply(variables, images, train=False)

        program = Program(
            task=CLASSIFICATION,
            module=build_model(network, CLASSES, axis),
            objective=objective.make_objective(network, VIEWS),
            optimizer=make_optimizer(network.train.optimizer, network.train.steps),
            settings=network.train,
            steps=network.train.steps,
            classes=CLASSES,
            inputs=Images(SHAPE, (0.5,), (0.5,)),
            teacher=apply if teacher else None,
            parts=network.train.accumulate,
        )
        return program, module.init(jax.random.key(7), jnp.zeros((1, *SHAPE)), train=False)

    def chunk(self, start: int, steps: int, batch: int) -> dict[str, np.ndarray]:
        ids = (np.arange(start * batch, (start + steps) * batch) * 7 % NODES).astype(np.int32).reshape(steps, batch)
        return {
            "input": self.images[ids],
            "label": self.labels[ids],
            "id": ids,
            "node": ids,
            "step": np.arange(start, start + steps, dtype=np.int32),
            "count": np.int32(steps),
            "record": np.asarray(True),
        }

    def batches(self, program: Program, per_call: int) -> Any:
        def start(step: int) -> Any:
            while step < program.steps:
                count = min(per_call - step % per_call, program.steps - step)
                chunk = self.chunk(step, per_call, program.settings.batch) | {"count": np.int32(count)}
                yield chunk
                step += count

        return start


class Altered:
    """A step around which something happens: `around(advance, state, chunk)` is called in place of `advance`."""

    def __init__(self, sound: Any, around: Any) -> None:
        self.sound, self.around, self.program = sound, around, sound.program
        self.rows, self.place, self.leaves = sound.rows, sound.place, sound.leaves

    def bind(self, *given: Any) -> Any:
        advance = self.sound.bind(*given)
        return lambda state, chunk: self.around(advance, state, chunk)


@pytest.fixture
def altered() -> type[Altered]:
    return Altered


@pytest.fixture(scope="session")
def problem() -> Problem:
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, CLASSES, NODES).astype(np.int32)
    images = rng.integers(0, 256, (NODES, *SHAPE)).astype(np.uint8)
    joined = rng.dirichlet(np.ones(CLASSES), NODES).astype(np.float32)
    ids = rng.integers(0, NODES, (VIEWS, NODES, K)).astype(np.int32)
    ids[:, 3] = -1  # one isolated node
    knowledge = Knowledge(
        joined=jnp.asarray(joined),
        features=jnp.asarray(rng.normal(size=(NODES, 128)).astype(np.float32)),
        neighbours=jnp.asarray(ids),
        weights=jnp.asarray(rng.uniform(size=ids.shape).astype(np.float32)),
        mix=jnp.float32(0.7),
        smoothing=jnp.float32(0.1),
    )
    return Problem(images, labels, knowledge)


@pytest.fixture
def run() -> Any:
    return run_of(0, 0)
