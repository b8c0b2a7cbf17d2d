"""Values and gradients against independent implementations in float64."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jkd.losses import activations, contrastive, features, logits, maps, relations, soft_targets, stages

from .conftest import unit

CASES: dict[str, Callable[..., jax.Array]] = {
    "kd": lambda s, t, temperature: logits.kd(s, t, temperature=temperature),
    "fitnet": features.fitnet,
    "rkd_distance": lambda s, t: relations.rkd(s, t, distance_weight=1.0, angle_weight=0.0),
    "rkd_angle": lambda s, t: relations.rkd(s, t, distance_weight=0.0, angle_weight=1.0),
    "rkd": lambda s, t, **options: relations.rkd(s, t, **options),
    "pkt": relations.pkt,
    "cckd_gaussian": lambda s, t, gamma, order: relations.cckd(s, t, gamma=gamma, order=int(order)),
    "cckd_bilinear": lambda s, t: relations.cckd(s, t, gamma=0.0, order=1),
    "gkd": lambda s, t, power: relations.gkd(s, t),
    "irg_edge": relations.irg_edge,
    "dist": soft_targets.dist,
    "logit_standardization": lambda s, t, temperature, eps: soft_targets.logit_standardization(
        s, t, temperature=temperature
    ),
    "nst": maps.nst,
    "cwd": maps.cwd,
    "ickd": maps.ickd,
    "pkd_pearson": maps.pkd,
    "cc_batch_order": relations.batch_order_cc,
    "factor_transfer": lambda s, t, p1, p2: maps.factor_transfer(s, t, power=int(p1)),
    "infonce": lambda s, t, temperature: contrastive.info_nce(unit(s), unit(t), temperature=temperature),
}


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_equal_the_golden_ones(name: str, equals_golden: Callable[..., None]) -> None:
    equals_golden(name, CASES[name])


@pytest.mark.parametrize("name", ["dkd", "wsld"])
def test_losses_that_read_the_label_equal_the_golden_ones(
    name: str, shared: Path, equals_golden: Callable[..., None]
) -> None:
    labels = np.load(shared / "golden" / "losses" / f"{name}.npz", allow_pickle=False)["labels"]
    target, known = jax.nn.one_hot(labels, 10), jnp.ones(len(labels))
    equals_golden(name, lambda s, t, **options: getattr(soft_targets, name)(s, t, target, known, **options))


SEVERAL: dict[str, Callable[..., jax.Array]] = {
    "fsp": stages.fsp,
    "reviewkd_hcl": lambda s, t: sum(stages.hierarchical_context(*pair) for pair in zip(s, t, strict=True)),
    # of the shared code base: each tap weighs half of the next, and all of it is 3 / 1000
    "ab": lambda s, t: (
        0.003
        * sum(
            weight * activations.activation_boundary(*pair, margin=1.0)
            for weight, *pair in zip((0.5, 1.0), s, t, strict=True)
        )
    ),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_losses_over_several_taps_equal_the_golden_ones(name: str, shared: Path) -> None:
    golden = np.load(shared / "golden" / "losses" / f"{name}.npz", allow_pickle=False)
    student, teacher, gradient = (
        [jnp.moveaxis(jnp.float32(golden[f"{key}_{tap}"]), 1, -1) for tap in range(2)]
        for key in ("student", "teacher", "grad_student")
    )
    value, found = jax.jit(jax.value_and_grad(lambda s: SEVERAL[name](s, teacher)))(student)
    np.testing.assert_allclose(value, golden["loss"], rtol=1e-5)
    for one, other in zip(found, gradient, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(other).max())


def test_partial_l2_equals_the_golden_one(shared: Path, equals_golden: Callable[..., None]) -> None:
    margin = np.load(shared / "golden" / "losses" / "ofd.npz", allow_pickle=False)["margin"]
    margin = jnp.moveaxis(jnp.float32(margin), 1, -1)
    equals_golden("ofd", lambda s, t: activations.partial_l2(s, t, margin))


def test_attention_transfer_summed_over_two_taps_equals_the_golden_one(shared: Path) -> None:
    golden = np.load(shared / "golden" / "losses" / "attention_transfer.npz", allow_pickle=False)
    total = 0.0
    for tap in range(2):
        student, teacher, gradient = (
            np.moveaxis(golden[f"{key}_{tap}"], 1, -1).astype(np.float32)
            for key in ("student", "teacher", "grad_student")
        )
        value, found = jax.jit(jax.value_and_grad(lambda s, t: maps.attention_transfer(s, t, power=2)))(
            student, teacher
        )
        np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=1e-4 * np.abs(gradient).max())
        total += float(value)
    assert total == pytest.approx(float(golden["loss"]), rel=1e-5)
