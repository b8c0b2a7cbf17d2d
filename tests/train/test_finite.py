"""A step that is not finite is found where it happened, and said so with its batch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jkd.train import finite
from jkd.train.state import TrainState

CHUNK = {"step": np.arange(8, 12, dtype=np.int32), "id": np.arange(12, dtype=np.int32).reshape(4, 3)}


def _state(**broken: Any) -> TrainState:
    params = {"dense": {"bias": np.zeros(2, np.float32), "kernel": np.ones((2, 2), np.float32)}}
    given = dict(step=np.uint32(12), params=params, batch_stats={}, objective={}, opt_state={"mu": params}, ema={})
    return TrainState(**(given | broken))


def _metrics(**broken: tuple[int, float]) -> dict[str, np.ndarray]:
    made = {key: np.ones(4, np.float32) for key in ("loss", "kd", "gradient_norm")}
    for key, (at, value) in broken.items():
        made[key][at:] = value
    return made


def test_a_sound_chunk_is_nothing_to_describe():
    assert finite.describe(_state(), CHUNK, _metrics()) is None


@pytest.mark.fault(10)
@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_broken_step_is_named_with_its_batch(at: int, value: float):
    found = finite.describe(
        _state(), CHUNK, _metrics(loss=(at, value), kd=(at, value), gradient_norm=(at, np.nan)), str
    )
    assert (found["step"], found["what"], found["value"]) == (9 + at, "loss", str(value))
    assert found["ids"] == CHUNK["id"][at].tolist() and found["names"] == [str(i) for i in CHUNK["id"][at]]
    assert found["terms"] == ["loss", "kd", "gradient_norm"]


@pytest.mark.fault(10)
def test_a_gradient_breaks_before_the_loss_does():
    found = finite.describe(_state(), CHUNK, _metrics(gradient_norm=(1, np.inf), loss=(2, np.nan)))
    assert (found["step"], found["what"], found["terms"]) == (10, "gradient_norm", ["gradient_norm"])


@pytest.mark.fault(10)
@pytest.mark.parametrize("part", ["params", "batch_stats", "objective", "opt_state", "ema"])
def test_the_first_leaf_is_named_though_all_metrics_are_finite(part: str):
    broken = {"a": np.ones(2, np.float32), "b": {"c": np.array([1, np.nan], np.float32)}, "count": np.int32(3)}
    found = finite.describe(_state(**{part: broken}), CHUNK, _metrics())
    assert (found["leaf"], found["what"], found["step"]) == (f"{part}/b/c", f"{part}/b/c", 12)


@pytest.mark.fault(10)
def test_bfloat16_leaves_are_looked_at_too():
    import jax.numpy as jnp

    assert finite.first_leaf(_state(params={"a": jnp.full(2, jnp.nan, jnp.bfloat16)})) == "params/a"


@pytest.mark.fault(10)
def test_the_refusal_says_all_and_keeps_the_batch(tmp_path: Path):
    broken = _state(params={"dense": {"kernel": np.full((2, 2), np.nan, np.float32)}})
    found = finite.describe(broken, CHUNK, _metrics(loss=(2, np.nan), kd=(2, np.nan)))
    said = str(finite.refusal(found, tmp_path))
    assert said == (
        f"loss is nan at step 11 of {tmp_path}, first in kd; the first leaf that is not finite is params/dense/kernel. "
        "Lower the learning rate or set optimizer.clip; earlier checkpoints are kept. "
        f"The batch is listed in {tmp_path / 'nonfinite.json'}."
    )
    kept = json.loads((tmp_path / "nonfinite.json").read_text())
    assert kept == found and kept["ids"] == [6, 7, 8] and kept["metrics"]["loss"] == "nan"
    assert "nonfinite.json" not in str(finite.refusal(found, None))
