import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

from jkd.models import convolution
from jkd.models.convolution import FEW_PIXELS, convolve


def _normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def _lax(x, kernel, stride, padding, dilation=1, groups=1):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((padding, padding), (padding, padding)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _made_of(function, *arguments) -> str:
    return str(jax.make_jaxpr(function)(*arguments))


@pytest.mark.parametrize("inputs", [4, 5])
@pytest.mark.parametrize(
    ("size", "stride", "padding"),
    [(1, 1, 0), (1, 2, 0), (1, 1, 1), (2, 1, 1), (3, 1, 1), (3, 2, 1), (3, 2, 0), (5, 2, 2)],
)
def test_every_formulation_and_its_gradients_are_those_of_lax(inputs, size, stride, padding):
    x, kernel = _normal(0, 2, 7, 5, inputs), _normal(1, size, size, inputs, 6)

    def with_gradients(function):
        def passed(x, kernel):
            out, back = jax.vjp(function, x, kernel)
            return out, *back(jnp.cos(out))

        return jax.jit(passed)(x, kernel)

    expected = with_gradients(lambda x, kernel: _lax(x, kernel, stride, padding))
    for formulation in (None, "patches"):
        made = with_gradients(lambda x, kernel, way=formulation: convolve(x, kernel, stride, padding, formulation=way))
        for one, two in zip(made, expected, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("groups", "dilation"), [(2, 1), (4, 1), (1, 2), (2, 2), (4, 2)])
def test_groups_and_dilation_are_those_of_lax(groups, dilation):
    x, kernel = _normal(0, 2, 8, 8, 4), _normal(1, 3, 3, 4 // groups, 8)
    for stride in (1, 2):
        expected = _lax(x, kernel, stride, dilation, dilation, groups)
        np.testing.assert_allclose(
            convolve(x, kernel, stride, dilation, dilation, groups), expected, rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("side", [1, 2])
def test_a_map_smaller_than_the_kernel_is_convolved_by_patches(side):
    x, kernel = _normal(0, FEW_PIXELS, side, side, 8), _normal(1, 3, 3, 8, 6)
    assert "conv_general_dilated" not in _made_of(lambda x: convolve(x, kernel, 1, 1), x)
    np.testing.assert_allclose(convolve(x, kernel, 1, 1), _lax(x, kernel, 1, 1), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "size", "stride", "by_lax"),
    [
        ((FEW_PIXELS // 16, 4, 4, 8), 3, 1, False),
        ((FEW_PIXELS // 16 + 1, 4, 4, 8), 3, 1, True),
        ((FEW_PIXELS // 16, 8, 8, 8), 3, 2, False),  # pixels are counted after the stride
        ((FEW_PIXELS, 4, 4, 3), 3, 1, False),
        ((2, 8, 8, 3), 7, 2, True),
    ],
)
def test_the_formulation_follows_the_shapes_on_a_cpu_and_is_lax_elsewhere(monkeypatch, shape, size, stride, by_lax):
    kernel = _normal(1, size, size, shape[-1], 6)

    def made() -> bool:
        return "conv_general_dilated" in _made_of(lambda x: convolve(x, kernel, stride, size // 2), _normal(0, *shape))

    assert made() == by_lax
    monkeypatch.setattr(convolution.jax, "default_backend", lambda: "gpu")
    assert made()


def test_a_batch_of_unknown_size_can_be_exported():
    kernel = _normal(1, 3, 3, 8, 6)
    (batch,) = export.symbolic_shape("b")
    example = jax.ShapeDtypeStruct((batch, 4, 4, 8), jnp.float32)
    exported = export.export(jax.jit(lambda x: convolve(x, kernel, 1, 1)))(example)
    x = _normal(0, 5, 4, 4, 8)
    np.testing.assert_allclose(exported.call(x), convolve(x, kernel, 1, 1), rtol=1e-5, atol=1e-4)


def test_gradients_of_16_bits_are_as_exact_as_those_of_lax():
    x, kernel = (
        _normal(seed, *shape).astype(jnp.bfloat16) for seed, shape in enumerate([(4, 4, 4, 64), (3, 3, 64, 64)])
    )
    cotangent = _normal(2, 4, 4, 4, 64).astype(jnp.bfloat16)

    def gradients(formulation, kind):
        _, back = jax.vjp(
            lambda x, kernel: convolve(x, kernel, 1, 1, formulation=formulation), x.astype(kind), kernel.astype(kind)
        )
        return [np.asarray(each, np.float32) for each in back(cotangent.astype(kind))]

    exact = gradients("lax", jnp.float32)
    errors = {
        way: [np.linalg.norm(a - b) for a, b in zip(gradients(way, jnp.bfloat16), exact, strict=True)]
        for way in ("patches", "lax")
    }
    for by_patches, by_lax in zip(errors["patches"], errors["lax"], strict=True):
        assert by_patches <= 1.1 * by_lax


def test_a_kernel_larger_than_the_padded_map_leaves_nothing():
    x, kernel = _normal(0, 2, 1, 1, 3), _normal(1, 2, 2, 3, 6)
    assert convolve(x, kernel).shape == _lax(x, kernel, 1, 0).shape == (2, 0, 0, 6)
