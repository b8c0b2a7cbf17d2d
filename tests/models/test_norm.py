import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jkd.models.norm import BatchNorm

LINEN = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5, axis_name=None)


@pytest.fixture
def case():
    x = 2 * jax.random.normal(jax.random.key(0), (3, 5, 4, 6)) + 1
    variables = {
        "params": {"scale": jnp.linspace(0.5, 2.0, 6), "bias": jnp.linspace(-1.0, 1.0, 6)},
        "batch_stats": {"mean": jnp.linspace(0.0, 1.0, 6), "var": jnp.linspace(0.5, 3.0, 6)},
    }
    return x, variables


def _loss(module, *arguments):
    def loss(x, params, stats):
        y, new = module.apply({"params": params, "batch_stats": stats}, x, *arguments, mutable=["batch_stats"])
        return (y * jnp.sin(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)).sum(), (y, new)

    return jax.value_and_grad(loss, (0, 1), has_aux=True)


def _assert_near(mine, theirs):
    assert jax.tree.structure(mine) == jax.tree.structure(theirs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), mine, theirs)


def test_values_statistics_and_gradients_are_those_of_linen(case):
    x, variables = case
    mine = _loss(BatchNorm(), True)(x, variables["params"], variables["batch_stats"])
    _assert_near(mine, _loss(LINEN)(x, variables["params"], variables["batch_stats"]))


def test_in_evaluation_it_takes_the_running_statistics(case):
    x, variables = case
    theirs = nn.BatchNorm(use_running_average=True, epsilon=1e-5).apply(variables, x)
    np.testing.assert_allclose(BatchNorm().apply(variables, x, False), theirs, rtol=1e-5, atol=1e-5)


def test_it_starts_as_linen_does_and_initialising_does_not_count_as_a_step(case):
    _assert_near(BatchNorm().init(jax.random.key(0), case[0], True), LINEN.init(jax.random.key(0), case[0]))


def test_over_devices_of_pmap_it_is_that_of_the_whole_batch(case):
    x, variables = case
    x = jnp.concatenate([x, 3 * x[:1]])  # 4 rows for 2 devices
    (_, (y, new)), (dx, dparams) = _loss(BatchNorm(), True)(x, variables["params"], variables["batch_stats"])
    weights = jnp.sin(jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape)

    def part(x, weights):
        def loss(x, params):
            made, new = BatchNorm(axis="d").apply(
                {"params": params, "batch_stats": variables["batch_stats"]}, x, True, mutable=["batch_stats"]
            )
            return (made * weights).sum(), (made, new)

        return jax.grad(loss, (0, 1), has_aux=True)(x, variables["params"])

    halves = [array.reshape(2, 2, *array.shape[1:]) for array in (x, weights)]
    (dx2, dparams2), (y2, new2) = jax.vmap(part, axis_name="d")(*halves)
    _assert_near(y2.reshape(y.shape), y)
    _assert_near(dx2.reshape(dx.shape), dx)
    _assert_near(jax.tree.map(lambda leaf: leaf.sum(0), dparams2), dparams)
    _assert_near(jax.tree.map(lambda leaf: leaf[1], new2), new)


def test_16_bit_inputs_stay_16_bit(case):
    y, _ = BatchNorm().apply(case[1], case[0].astype(jnp.bfloat16), True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
