"""No key is used twice: initialisation, augmentation, dropout and a whole step under both checkers."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jkd import random
from jkd.build import run_of
from jkd.data import augment
from jkd.models.layers import dropout

EVERYTHING = {"shift": 1, "pad_crop": 1, "flip": True, "cutout": 2, "mixup": 0.4, "cutmix": 1.0}


@pytest.fixture
def book() -> Iterator[random.Ledger]:
    with jax.debug_key_reuse(True), random.ledger() as opened:
        yield opened


def _draws(book: random.Ledger) -> set[str]:
    return {where.split(" at ")[0] for where in book.used.values()}


def test_a_whole_step(book: random.Ledger, problem: Any):
    terms = {"kd": 0.5, "joined_beliefs": 0.5, "projection": 0.1}
    network = problem.network(terms, dropout=0.2, train={"augment": EVERYTHING})
    program, teacher = problem.program(network)
    chunk = jax.tree.map(lambda leaf: leaf[0], {k: v for k, v in problem.chunk(0, 1, 16).items() if v.ndim})
    state = jax.jit(lambda run: program.init(run, teacher))(run_of(0, 0))
    drawn = len(book.used)
    _, metrics = jax.jit(program.train_step)(state, teacher, problem.knowledge, chunk, run_of(0, 0))
    assert np.isfinite(metrics["loss"])
    assert drawn >= 4 and len(book.used) >= drawn + 8
    assert {"augment", "dropout", "init"} <= {derivation.stream for derivation in book.derived}
    assert {"bernoulli", "randint", "beta", "permutation", "uniform"} <= _draws(book)


def test_augmentation_with_everything_on(book: random.Ledger):
    @jax.jit
    def step(images: jax.Array, ids: jax.Array, number: jax.Array) -> Any:
        key = random.key("augment", 0, 0, number)
        return augment(images, random.sample_keys(key, ids), key, EVERYTHING)

    step(jnp.zeros((6, 8, 8, 1)), jnp.arange(6), 3)
    assert {"bernoulli", "randint", "beta", "permutation"} <= _draws(book)


def test_two_layers_of_dropout(book: random.Ledger):
    keys = random.sample_keys(random.key("dropout", 0, 0, 1), jnp.arange(4))
    dropout(dropout(jnp.ones((4, 5)), 0.5, keys, 0), 0.5, keys, 1)
    assert len(book.used) == 4  # each by its name and its bits


def test_two_layers_of_one_number_would_be_found(book: random.Ledger):
    keys = random.sample_keys(random.key("dropout", 0, 0, 1), jnp.arange(4))
    with pytest.raises(random.KeyReused, match="stream 'dropout'"):
        dropout(dropout(jnp.ones((4, 5)), 0.5, keys, 1), 0.5, keys, 1)


def test_no_sample_has_the_key_of_the_permutation():
    from jkd.data.augment import PERMUTE

    assert np.iinfo(np.int32).max < PERMUTE  # ids are int32
