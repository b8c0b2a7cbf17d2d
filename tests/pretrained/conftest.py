"""A small BERT with weights of some size, for tests of folders and of cuts."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

IDS = np.array([[5, 6, 7, 8, 0, 0], [9, 3, 4, 0, 0, 0], [1, 2, 11, 12, 13, 14]], np.int32)  # no jax before its flags


def filled(module, scale=0.2):
    """Variables of a module, without the seconds that its `init` takes to compile."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), IDS)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape), leaf.dtype), shapes)


@pytest.fixture(scope="session")
def fill():
    return filled


@pytest.fixture(scope="session")
def ids():
    return jnp.asarray(IDS)


@pytest.fixture(scope="session")
def small_bert():
    from jkd.models.bert import Bert

    return Bert(classes=3, vocab=50, width=16, depth=2, heads=4, feed_forward=24, positions=20)


@pytest.fixture(scope="session")
def variables(small_bert):
    return filled(small_bert)


@pytest.fixture
def folder(tmp_path: Path, small_bert, variables) -> Path:
    """What `bert.save` writes of them."""
    from jkd.pretrained import bert

    bert.save(tmp_path / "model", variables, small_bert, {0: "no", 1: "perhaps", 2: "yes"})
    return tmp_path / "model"
