"""Values and gradients against independent implementations in float64."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jkd.losses import contrastive, features, logits, relations


def _unit(rows: jax.Array) -> jax.Array:
    return rows / jnp.linalg.norm(rows, axis=-1, keepdims=True)


CASES: dict[str, Callable[..., jax.Array]] = {
    "kd": lambda s, t, temperature: logits.kd(s, t, temperature=temperature),
    "fitnet": features.fitnet,
    "rkd_distance": lambda s, t: relations.rkd(s, t, distance_weight=1.0, angle_weight=0.0),
    "rkd_angle": lambda s, t: relations.rkd(s, t, distance_weight=0.0, angle_weight=1.0),
    "rkd": lambda s, t, **options: relations.rkd(s, t, **options),
    "sp": relations.sp,
    "infonce": lambda s, t, temperature: contrastive.info_nce(_unit(s), _unit(t), temperature=temperature),
}


def _channels_last(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, 1, -1) if array.ndim == 4 else array


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_equal_the_golden_ones(name: str, shared: Path) -> None:
    golden = np.load(shared / "golden" / "losses" / f"{name}.npz", allow_pickle=False)
    suffix = "_0" if "student_0" in golden else ""
    student, teacher, gradient = (
        _channels_last(golden[key + suffix]).astype(np.float32) for key in ("student", "teacher", "grad_student")
    )
    options = {key[3:]: float(golden[key]) for key in golden if key.startswith("hp_")}
    loss, found = jax.jit(jax.value_and_grad(lambda s: CASES[name](s, jnp.asarray(teacher), **options)))(student)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, golden["loss"], rtol=1e-5)
    np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=1e-4 * np.abs(gradient).max())
