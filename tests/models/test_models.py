"""What every model promises, on the smallest instance of each kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jkd import config
from jkd.errors import UserError
from jkd.models import CifarVgg, build_model

KINDS = {
    "mlp": dict(model="mlp", width=8, depth=2),
    "mlp_batch_norm": dict(model="mlp", width=8, depth=2, batch_norm=True, dropout=0.3),
    "mlp_linear": dict(model="mlp", depth=0),
    "mlp_bfloat16": dict(model="mlp", width=8, depth=1, batch_norm=True, dtype="bfloat16"),
    "cifar": dict(model="vgg8", width=2),
    "cifar_bfloat16": dict(model="vgg8", width=2, dtype="bfloat16", dropout=0.3),
    "resnet": dict(model="resnet8", width=2),
    "resnet_large": dict(model="resnet18", width=2, layout="torchvision", dtype="bfloat16", dropout=0.3),
    "resnet_bottleneck": dict(model="resnet50", width=1),
    "wide_resnet": dict(model="wrn_16_2", width=2, dropout=0.3),
    "torchvision": dict(model="vgg11", width=1, layout="torchvision"),
    "torchvision_norm": dict(model="vgg11", width=1, layout="torchvision", batch_norm=True, dropout=0.3),
}
WITH_NORM = ("mlp_batch_norm", "mlp_bfloat16", "cifar", "cifar_bfloat16", "torchvision_norm")
WITH_NORM += ("resnet", "resnet_large", "resnet_bottleneck", "wide_resnet")
IMAGES = jax.random.normal(jax.random.key(1), (4, 32, 32, 3))


def _network(**differs):
    network = config.default().student
    network.update(differs)
    return network


def _filled(shapes):
    """Random weights of about the usual size, without the seconds that compiling `init` takes."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key == "var":
            return jnp.ones(leaf.shape, leaf.dtype)
        scale = (2 / np.prod(leaf.shape[:-1])) ** 0.5 if len(leaf.shape) > 1 else 0.1
        return jnp.asarray(scale * rng.normal(size=leaf.shape), leaf.dtype)

    return jax.tree.map_with_path(draw, shapes)


@pytest.fixture(scope="module", params=KINDS)
def made(request):
    with jax.numpy_dtype_promotion("strict"):
        module = build_model(_network(**KINDS[request.param]), 5)
        variables = _filled(jax.eval_shape(module.init, jax.random.key(0), IMAGES))
    return request.param, module, variables


def test_logits_and_embedding_are_float32_and_so_are_all_variables(made):
    _, module, variables = made
    logits, taps = jax.eval_shape(module.apply, variables, IMAGES)
    assert (logits.shape, logits.dtype) == ((4, 5), jnp.float32)
    assert taps["embedding"].ndim == 2 and taps["embedding"].dtype == jnp.float32
    assert all(tap.dtype == module.dtype for name, tap in taps.items() if name != "embedding")
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_logits_of_a_sample_do_not_depend_on_the_batch(made):
    _, module, variables = made
    apply = jax.jit(lambda variables, images: module.apply(variables, images)[0])
    tolerance = 3e-2 if module.dtype == jnp.bfloat16 else 1e-5
    alone = np.concatenate([apply(variables, IMAGES[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(apply(variables, IMAGES), alone, atol=tolerance, rtol=tolerance)


def test_training_updates_batch_statistics_where_there_are_any_and_gives_finite_gradients(made):
    kind, module, variables = made
    keys = jax.random.split(jax.random.key(2), 4)

    @jax.jit
    def gradient(params):
        def loss(params):
            (logits, _), new = module.apply(variables | {"params": params}, IMAGES, True, keys, mutable=["batch_stats"])
            return (logits**2).mean(), new

        return jax.grad(loss, has_aux=True)(params)

    gradients, new = gradient(variables["params"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert (kind in WITH_NORM) == ("batch_stats" in variables) == bool(new)
    if kind in WITH_NORM:
        before, after = variables["batch_stats"], new["batch_stats"]
        moved = jax.tree.map(lambda a, b: bool((a != b).any()), before, after)
        assert all(jax.tree.leaves(moved))


def test_running_mean_moves_a_tenth_of_the_way_to_the_batch_mean():
    module = build_model(_network(model="mlp", width=3, depth=1, batch_norm=True), 2)
    images = IMAGES[:, :4, :4, :1]
    variables = module.init(jax.random.key(0), images)
    dense = variables["params"]["hidden0"]
    batch_mean = (images.reshape(4, 16) @ dense["kernel"]).mean(0) + dense["bias"]
    _, new = module.apply(variables, images, True, mutable=["batch_stats"])
    np.testing.assert_allclose(new["batch_stats"]["norm0"]["mean"], 0.1 * batch_mean, atol=1e-6)


def test_taps_of_a_vgg_are_its_stages_after_the_relu():
    module = CifarVgg(5, (1, 1, 1, 1, 1), (2, 3, 4, 5, 6))
    shapes = {32: [32, 16, 8, 4, 4], 64: [64, 32, 16, 8, 4]}  # a fourth pooling at 64 pixels
    for size, sides in shapes.items():
        images = jnp.zeros((1, size, size, 3))
        variables = jax.eval_shape(module.init, jax.random.key(0), images)
        _, taps = jax.eval_shape(module.apply, variables, images)
        assert [taps[f"stage{i}"].shape[1:] for i in range(5)] == [(s, s, i + 2) for i, s in enumerate(sides)]
        assert taps["embedding"].shape == (1, 6)


def test_embedding_of_an_mlp_is_its_last_hidden_layer():
    module = build_model(_network(model="mlp", width=3, depth=2), 2)
    variables = module.init(jax.random.key(0), IMAGES)
    _, taps = module.apply(variables, IMAGES)
    assert set(taps) == {"hidden0", "hidden1", "embedding"}
    np.testing.assert_array_equal(taps["embedding"], taps["hidden1"])


@pytest.mark.parametrize(
    ("model", "layout", "params"),
    [
        ("vgg8", "cifar", 3_965_028),
        ("vgg13", "cifar", 9_462_180),
        ("vgg16", "torchvision", 138_357_544),  # as torchvision documents it, 1000 classes
        ("vgg19", "torchvision", 143_667_240),
    ],
)
def test_published_sizes(model, layout, params):
    classes, size = (100, 32) if layout == "cifar" else (1000, 224)
    module = build_model(_network(model=model, width=64, layout=layout), classes)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == params


def test_too_small_an_image_is_refused_with_the_least_size():
    with pytest.raises(UserError, match="need 8 pixels a side, but these are 7x8"):
        CifarVgg(5, (1, 1, 1, 1, 1)).init(jax.random.key(0), jnp.zeros((1, 7, 8, 1)))


def test_an_unknown_model_is_refused_with_the_nearest_name():
    network = _network(model="vgg8").unlock()
    network.model = "vg13"
    with pytest.raises(UserError, match=r"unknown 'vg13'\. Did you mean 'vgg13'"):
        build_model(network, 5)
