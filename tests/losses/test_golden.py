"""Values and gradients against independent implementations in float64."""

from collections.abc import Callable

import jax
import pytest

from jkd.losses import contrastive, features, logits, relations

from .conftest import unit

CASES: dict[str, Callable[..., jax.Array]] = {
    "kd": lambda s, t, temperature: logits.kd(s, t, temperature=temperature),
    "fitnet": features.fitnet,
    "rkd_distance": lambda s, t: relations.rkd(s, t, distance_weight=1.0, angle_weight=0.0),
    "rkd_angle": lambda s, t: relations.rkd(s, t, distance_weight=0.0, angle_weight=1.0),
    "rkd": lambda s, t, **options: relations.rkd(s, t, **options),
    "infonce": lambda s, t, temperature: contrastive.info_nce(unit(s), unit(t), temperature=temperature),
}


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_equal_the_golden_ones(name: str, equals_golden: Callable[..., None]) -> None:
    equals_golden(name, CASES[name])
