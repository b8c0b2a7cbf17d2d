import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jkd.compress import file_bytes, latency, macs, parameters, receipt, save_variables
from jkd.models import CifarVgg, Mlp, depthwise

IMAGE = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)


def _zeros(module, image):
    shapes = jax.eval_shape(module.init, jax.random.key(0), image)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)


@pytest.mark.parametrize(
    ("stages", "params", "multiply_adds"),
    [((2, 2, 2, 2, 2), 9.462e6, 284.9e6), ((1, 1, 1, 1, 1), 3.965e6, 96.2e6)],
)
def test_vgg13_and_vgg8_cost_what_is_published(stages, params, multiply_adds):
    module = CifarVgg(100, stages)
    shapes = jax.eval_shape(module.init, jax.random.key(0), IMAGE)
    assert parameters(shapes)[0] == pytest.approx(params, rel=1e-4)
    assert macs(module.apply, shapes, np.zeros((1, 32, 32, 3), np.float32)) == pytest.approx(multiply_adds, rel=5e-4)


def test_batch_statistics_are_state_not_parameters():
    module = Mlp(classes=3, width=5, depth=1, batch_norm=True)
    made = receipt(module.apply, _zeros(module, jnp.zeros((1, 4))), np.zeros((1, 4), np.float32))
    assert made["params"] == (4 * 5 + 5) + 2 * 5 + (5 * 3 + 3)
    assert made["state"] == 2 * 5
    assert made["macs"] == 4 * 5 + 5 * 3
    assert made["latency_ms"] is None


def test_bytes_are_the_length_of_the_saved_file_whatever_the_type(tmp_path):
    module = Mlp(classes=3, width=5, depth=1)
    variables = _zeros(module, jnp.zeros((1, 4)))
    save_variables(tmp_path / "student.safetensors", variables)
    size = (tmp_path / "student.safetensors").stat().st_size
    assert file_bytes(variables) == size
    half = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), variables)
    assert file_bytes(half) == size


def test_multiply_adds_look_into_calls_loops_groups_and_branches():
    kernel, square = jnp.zeros((3, 3, 2, 4)), jnp.eye(7)

    def apply(variables, image):
        x = lax.conv_general_dilated(
            image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
        )
        y = jax.jit(lambda x: x.reshape(-1, 7) @ square)(x)
        y, _ = lax.scan(lambda y, _: (y @ square, None), y, length=5)
        y = lax.cond(y[0, 0] > 0, lambda y: y @ square @ square, lambda y: y, y)
        return jax.checkpoint(lambda y: y @ square)(y), {}

    rows = 7 * 7 * 4 // 7
    assert macs(apply, {}, np.zeros((1, 7, 7, 4), np.float32)) == 7 * 7 * 4 * 9 * 2 + (1 + 5 + 2 + 1) * rows * 7 * 7


@pytest.mark.parametrize("formulation", ["shifted", "lax"])
def test_a_depthwise_convolution_counts_whatever_it_is_written_as(formulation):
    def apply(variables, image):
        return depthwise.depthwise(image, jnp.zeros((3, 3, 1, 5)), padding=1), {}

    with depthwise.formulated(formulation):
        assert macs(apply, {}, np.zeros((1, 8, 6, 5), np.float32)) == 8 * 6 * 5 * 9


def test_a_batched_product_counts_each_of_the_batch():
    def apply(variables, image):
        return jnp.einsum("bij,bjk->bik", jnp.zeros((3, 4, 5)), jnp.zeros((3, 5, 6))), {}

    assert macs(apply, {}, np.zeros((1, 1, 1, 1), np.float32)) == 3 * 4 * 5 * 6


def test_a_tree_without_params_counts_in_full():
    assert parameters({"a": np.zeros((2, 3)), "b": {"c": np.zeros(4)}}) == (10, 0)


def test_latency_is_positive_milliseconds():
    module = Mlp(classes=3, width=5, depth=1)
    measured = latency(module.apply, _zeros(module, jnp.zeros((1, 4))), np.zeros((1, 4), np.float32), budget_s=0.01)
    assert 0 < measured < 1000
