"""Calls any listed method with made-up inputs, and any loss with golden ones. A new method needs no change here."""

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jkd.methods import METHODS

Loss = Callable[..., jax.Array]


def unit(rows: jax.Array) -> jax.Array:
    squared = jnp.sum(rows.astype(jnp.float32) ** 2, -1, keepdims=True)
    return (rows.astype(jnp.float32) * jax.lax.rsqrt(squared + 1e-6)).astype(rows.dtype)


def of_method(name: str) -> Loss:
    """A listed method as a function of (student [B, C], teacher [B, C], a row of probabilities per sample [B, C])."""
    method = METHODS[name]
    module, _, attribute = method.function.partition(":")
    function = getattr(importlib.import_module(module), attribute)
    parameters = inspect.signature(function).parameters.values()
    options = {
        parameter.name: 0.2 if method.options[parameter.name] == "auto" else method.options[parameter.name]
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY
    }

    def tap(rows: jax.Array) -> jax.Array:
        # a map of two channels, with the row's numbers as positions
        return jnp.stack([rows, jnp.roll(rows, 1, axis=1)], axis=-1)[:, :, None] if method.maps else rows

    def context(student: jax.Array, teacher: jax.Array) -> Any:
        if not method.own:
            return None
        module, _, attribute = method.own.partition(":")
        taps = [tuple(each.shape for each in several(rows)) for rows in (student, teacher)]
        return getattr(importlib.import_module(module), attribute)(jax.random.key(0), *taps)

    def several(rows: jax.Array) -> tuple[jax.Array, ...]:
        # two taps; square maps where the method wants maps with a height and a width
        return (tap(rows), 2 * tap(jnp.roll(rows, 2, axis=1)))

    def loss(student: jax.Array, teacher: jax.Array, beliefs: jax.Array) -> jax.Array:
        given: dict[str, Any] = {
            "student_logits": student,
            "teacher_logits": teacher,
            "student_feature": tap(student),
            "teacher_feature": tap(teacher),
            "student_features": several(student),
            "teacher_features": several(teacher),
            "context": context(student, teacher),
            "student_projection": unit(student),
            "teacher_projection": unit(teacher),
            "joined": beliefs,
            "mix": jnp.float32(0.8),
            "label_target": beliefs,
            "labelled": jnp.ones(len(beliefs), jnp.float32),
        }
        return function(**{p.name: given[p.name] for p in parameters if p.name in given}, **options)

    return loss


@pytest.fixture
def equals_golden(shared: Path) -> Callable[[str, Loss], None]:
    """Checks value (1e-5) and student gradient (1e-4) of a loss (student, teacher, **options) against golden ones."""

    def check(name: str, loss: Loss) -> None:
        golden = np.load(shared / "golden" / "losses" / f"{name}.npz", allow_pickle=False)
        suffix = "_0" if "student_0" in golden else ""
        student, teacher, gradient = (
            _channels_last(golden[key + suffix]).astype(np.float32) for key in ("student", "teacher", "grad_student")
        )
        options = {key[3:]: float(golden[key]) for key in golden if key.startswith("hp_")}
        value, found = jax.jit(jax.value_and_grad(lambda s: loss(s, jnp.asarray(teacher), **options)))(student)
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, golden["loss"], rtol=1e-5)
        np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=1e-4 * np.abs(gradient).max())

    return check


def _channels_last(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, 1, -1) if array.ndim == 4 else array
