"""Optimisers and schedules by name."""

import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from jkd import config as configs
from jkd.config.checks import CHOICES
from jkd.train.optimizer import make_optimizer, make_schedule


def _settings(**changes: object) -> ConfigDict:
    settings = configs.default().student.train.optimizer
    settings.update(changes)
    return settings


@pytest.mark.parametrize("name", CHOICES["optimizer.name"])
def test_every_named_optimizer_goes_downhill(name: str):
    optimizer = make_optimizer(_settings(name=name, learning_rate=0.05, weight_decay=1e-3, clip=1.0), 20)
    params = {"x": jnp.full(3, 2.0)}
    state = optimizer.init(params)
    for _ in range(20):
        updates, state = optimizer.update(params, state, params)  # the gradient of x^2 / 2
        params = {"x": params["x"] + updates["x"]}
    assert float(params["x"].max()) < 2.0


@pytest.mark.parametrize("schedule", CHOICES["optimizer.schedule"])
def test_warm_up_rises_to_the_rate_and_the_schedule_takes_over(schedule: str):
    rate = make_schedule(_settings(learning_rate=1.0, schedule=schedule, warmup=0.1), 100)
    assert float(rate(0)) == 0.0 and float(rate(5)) == pytest.approx(0.5) and float(rate(10)) == pytest.approx(1.0)
    ends = {"constant": 1.0, "cosine": 0.0, "linear": 0.0, "step": 1e-3}
    assert float(rate(99)) == pytest.approx(ends[schedule], abs=0.02)


def test_steps_fall_where_the_boundaries_say():
    rate = make_schedule(_settings(learning_rate=1.0, schedule="step", boundaries=(0.5, 0.75), factor=0.1), 200)
    found = [round(float(rate(step)), 6) for step in (0, 99, 101, 149, 151, 199)]
    assert found == [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]


def test_weight_decay_of_sgd_is_an_l2_term():
    optimizer = make_optimizer(_settings(name="sgd", learning_rate=0.1, momentum=0.0, weight_decay=0.5), 1)
    params = {"x": jnp.ones(1)}
    updates, _ = optimizer.update({"x": jnp.zeros(1)}, optimizer.init(params), params)
    assert float(updates["x"][0]) == pytest.approx(-0.05)
