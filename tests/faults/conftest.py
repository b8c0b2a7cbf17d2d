"""States and checkpoints to damage. Nothing here is trained: what a checkpoint holds does not matter to it."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

INPUTS = "made of this"


def _state(step: int = 0, width: int = 16) -> Any:
    from jkd.train.state import TrainState

    rng = np.random.default_rng(step)
    params = {
        f"layer{i}": {"kernel": rng.normal(size=(width, width)).astype(np.float32), "bias": np.zeros(width, np.float32)}
        for i in range(2)
    }
    return TrainState(np.uint32(step), params, {}, {}, {"count": np.int32(step), "mu": params}, {})


@pytest.fixture
def make_state() -> Callable[..., Any]:
    """`make_state(step, width)`: the state at a step, a pure function of it."""
    return _state


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A folder with sound checkpoints of the steps 1 and 2."""
    from jkd.train import checkpoint

    for step in (1, 2):
        checkpoint.save(tmp_path / "checkpoints", _state(step), INPUTS)
    return tmp_path / "checkpoints"


@pytest.fixture
def restored(recwarn: pytest.WarningsRecorder) -> Callable[[Path], tuple[int | None, list[str]]]:
    """`restored(folder)`: the step of the checkpoint that is used, None for none at all, and the warnings."""
    from jkd.train import checkpoint

    def restore(folder: Path) -> tuple[int | None, list[str]]:
        recwarn.clear()
        state = checkpoint.restore(folder, _state(), INPUTS)
        if state is not None:
            assert digests(state) == digests(_state(int(state.step)))
        return None if state is None else int(state.step), [str(entry.message) for entry in recwarn]

    def digests(state: Any) -> str:
        from flax import serialization

        from jkd import digest

        return digest.of_tree(serialization.to_state_dict(state))

    return restore


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Draws that are the same each time the test runs."""
    return random.Random(request.node.nodeid)


def _flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(data))


@pytest.fixture
def flip() -> Callable[[Path, int], None]:
    """`flip(path, bit)`: turns one bit of a file over."""
    return _flip
