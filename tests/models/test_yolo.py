import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jkd import digest
from jkd.errors import UserError
from jkd.models.darknet import Dropout, shapes
from jkd.models.yolo import Yolo, max_pool, upsample
from jkd.pretrained import darknet, darknet_weights

MODELS = ("yolo-fastest-1.1", "yolo-fastest-1.1-xl")


def _network(body: str, inputs: int = 4, head: int = 6) -> Yolo:
    """A network of 8x8 images whose one head sees what `body` gives."""
    net = f"[net]\nheight=8\nwidth=8\nchannels={inputs}\n"
    tail = f"[convolutional]\nfilters={head}\nactivation=linear\n[yolo]\nanchors=1,2\nnum=1\nclasses={head - 5}\n"
    return Yolo(darknet.parse(f"{net}{body}\n{tail}"))


def _neck(body: str, x: jax.Array) -> jax.Array:
    """What `body`, which has no parameters, makes of a map."""
    module = _network(body, x.shape[-1])
    return jax.jit(module.apply)(module.init(jax.random.key(0), x), x)[1]["neck0"]


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(1), (2, 8, 8, 4))


def _decoded(head, rows):
    """Rows as Darknet decodes them: box, objectness and class scores above 0.2."""
    rows = np.asarray(rows, np.float64)
    height, width = rows.shape[1:3]
    y, x = np.mgrid[:height, :width][..., None]
    anchors = np.array(head.anchors)[list(head.mask)] / 320
    sigmoid = 1 / (1 + np.exp(-rows))
    centre = sigmoid[..., :2] * head.scale_x_y - (head.scale_x_y - 1) / 2
    made = [(centre[..., 0] + x) / width, (centre[..., 1] + y) / height]
    made += [np.exp(rows[..., 2]) * anchors[:, 0], np.exp(rows[..., 3]) * anchors[:, 1], sigmoid[..., 4]]
    scores = sigmoid[..., 5:] * sigmoid[..., 4:5]
    decoded = np.concatenate([np.stack(made, -1), np.where(scores > 0.2, scores, 0)], -1)
    return decoded.reshape(len(rows), -1, rows.shape[-1])


@pytest.mark.parametrize("name", MODELS)
def test_published_networks_give_the_rows_of_an_independent_implementation(shared, name):
    folder = shared / "data" / "yolo_fastest"
    golden = np.load(shared / "golden" / "yolo" / f"{name}.npz", allow_pickle=False)
    cfg = darknet.load(folder / f"{name}.cfg")
    variables, _ = darknet_weights.load(folder / f"{name}.weights", cfg)
    photos = [key.removesuffix("_input") for key in golden if key.endswith("_input")]
    images = jnp.asarray(np.concatenate([golden[f"{photo}_input"] for photo in photos]).astype(np.float32) / 255)
    heads, taps = jax.jit(Yolo(cfg).apply)(variables, images)
    assert len(photos) == 5 and [rows.shape for rows in heads] == [(5, 10, 10, 3, 85), (5, 20, 20, 3, 85)]
    for number, (head, rows) in enumerate(zip(cfg.heads, heads, strict=True)):
        expected = np.stack([golden[f"{photo}_decoded_{number}"] for photo in photos])
        np.testing.assert_allclose(_decoded(head, rows), expected, atol=1e-3, rtol=0)
        np.testing.assert_array_equal(taps[f"head{number}"], rows)
    wide = taps["neck0"], taps["neck1"]
    assert [neck.shape[:3] for neck in wide] == [(5, 10, 10), (5, 20, 20)]


def test_one_layer_is_what_its_formula_says(x):
    module = _network("[convolutional]\nbatch_normalize=1\nfilters=3\nsize=3\npad=1\nstride=2\nactivation=leaky")
    variables = module.init(jax.random.key(0), x)
    normal = iter(jax.random.split(jax.random.key(3), 20))
    variables = jax.tree.map(lambda leaf: jax.random.uniform(next(normal), leaf.shape, minval=0.5), variables)
    params, stats = variables["params"], variables["batch_stats"]["norm0"]
    y = lax.conv_general_dilated(
        x, params["conv0"]["kernel"], (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    vectors = [params["norm0"]["scale"], params["norm0"]["bias"], stats["mean"], stats["var"]]
    scale, bias, mean, var = (vector.reshape(1, 1, 1, -1) for vector in vectors)
    y = scale * (y - mean) / jnp.sqrt(var + 1e-6) + bias
    y = jnp.maximum(y, 0.1 * y)
    heads, taps = module.apply(variables, x)
    np.testing.assert_allclose(taps["neck0"], y, rtol=1e-4, atol=1e-4)
    rows = jnp.einsum("bhwi,io->bhwo", y, params["conv1"]["kernel"][0, 0]) + params["conv1"]["bias"].reshape(
        1, 1, 1, -1
    )
    np.testing.assert_allclose(heads[0][:, :, :, 0], rows, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "stride", "groups", "dilation"), [(3, 2, 2, 2), (5, 1, 1, 1), (3, 2, 4, 1)])
def test_size_stride_groups_and_dilation_of_a_layer_are_those_of_its_cfg(x, size, stride, groups, dilation):
    module = _network(
        f"[convolutional]\nfilters=8\nsize={size}\nstride={stride}\ngroups={groups}\ndilation={dilation}\n"
        "pad=1\nactivation=linear"
    )
    variables = module.init(jax.random.key(0), x)
    pad = size // 2 * dilation
    expected = lax.conv_general_dilated(
        x,
        variables["params"]["conv0"]["kernel"],
        (stride, stride),
        ((pad, pad), (pad, pad)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    np.testing.assert_allclose(module.apply(variables, x)[1]["neck0"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("side", "size", "stride", "padding"), [
    (8, 2, 2, 1), (7, 2, 2, 1), (8, 2, 1, 1), (8, 5, 1, 4), (8, 13, 1, 12), (9, 3, 2, 2), (8, 3, 3, 0), (8, 1, 2, 0),
    (8, 2, 2, 2),
])  # fmt: skip
def test_pooling_is_that_of_darknet(side, size, stride, padding):
    x = np.asarray(jax.random.normal(jax.random.key(0), (1, side, side, 2)))
    steps, first = (side + padding - size) // stride + 1, padding // 2
    expected = np.full((1, steps, steps, 2), -np.inf)
    for i in range(steps):
        for j in range(steps):
            top, left = i * stride - first, j * stride - first
            window = x[:, max(top, 0) : top + size, max(left, 0) : left + size]
            expected[:, i, j] = window.max((1, 2))
    np.testing.assert_array_equal(max_pool(jnp.asarray(x), size, stride, padding), expected)


def test_gradient_of_pooling_goes_to_the_largest():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1).at[0, 1, 1, 0].set(99)
    gradient = jax.grad(lambda x: max_pool(x, 3, 1, 2).sum())(x)
    assert gradient[0, 1, 1, 0] == 9 and gradient.sum() == 16


def test_upsampling_repeats_cells():
    x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(upsample(x, 2)[0, :, :, 0], np.kron([[0, 1], [2, 3]], np.ones((2, 2))))


def test_routes_and_shortcuts_are_sums_and_parts(x):
    body = "[dropout]\n[route]\nlayers=-1\ngroups=2\ngroup_id=1\n"
    np.testing.assert_array_equal(_neck(body, x), x[..., 2:])
    np.testing.assert_array_equal(_neck(f"{body}[route]\nlayers=-1,-2\n", x), jnp.concatenate([x[..., 2:], x], -1))
    np.testing.assert_array_equal(
        _neck(f"{body}[shortcut]\nfrom=0\nactivation=relu\n", x), jax.nn.relu(x[..., 2:] + x[..., :2])
    )
    wide = _neck(f"{body}[route]\nlayers=0\n[shortcut]\nfrom=-2,0\n", x)
    np.testing.assert_allclose(wide, 2 * x + jnp.pad(x[..., 2:], ((0, 0), (0, 0), (0, 0), (0, 2))), rtol=1e-6)
    np.testing.assert_array_equal(_neck("[upsample]\nscale=2\n", x), 2 * upsample(x, 2))
    np.testing.assert_allclose(_neck("[avgpool]\n", x), x.mean((1, 2), keepdims=True), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["linear", "leaky", "relu", "relu6", "mish", "swish", "logistic"])
def test_activations(name):
    x = jnp.linspace(-9.0, 9.0, 7).reshape(1, 1, 1, 7)
    y = _neck(f"[dropout]\n[shortcut]\nfrom=0\nactivation={name}\n", x.repeat(8, 1).repeat(8, 2))[0, 0, 0]
    v = 2 * np.linspace(-9, 9, 7)
    sigmoid = 1 / (1 + np.exp(-v))
    expected = {"linear": v, "leaky": np.where(v > 0, v, 0.1 * v), "relu": v.clip(0), "relu6": v.clip(0, 6)}
    expected |= {"swish": v * sigmoid, "logistic": sigmoid, "mish": v * np.tanh(np.log1p(np.exp(v)))}
    np.testing.assert_allclose(y, expected[name], rtol=2e-4, atol=1e-6)


def test_dropout_drops_its_share_in_training_by_sample():
    module = _network("[dropout]\nprobability=.25\n[dropout]\nprobability=.5\n", 100)
    x, keys = jnp.ones((2, 8, 8, 100)), jax.random.split(jax.random.key(0), 2)
    variables = module.init(jax.random.key(0), x)
    both = module.apply(variables, x, True, keys)[1]["neck0"]
    assert float((both > 0).mean()) == pytest.approx(0.375, abs=0.02)
    np.testing.assert_allclose(both[both > 0], 1 / 0.375, rtol=1e-6)
    np.testing.assert_array_equal(both[1:], module.apply(variables, x[1:], True, keys[1:])[1]["neck0"])
    np.testing.assert_array_equal(module.apply(variables, x)[1]["neck0"], x)
    np.testing.assert_array_equal(Yolo(module.cfg, dropout=False).apply(variables, x, True)[1]["neck0"], x)
    with pytest.raises(ValueError, match="one key per sample"):
        module.apply(variables, x, True)


def test_a_network_starts_with_rare_objects_and_kernels_of_its_fan_in():
    module = _network("[convolutional]\nbatch_normalize=1\nfilters=64\nsize=3\npad=1\n", 16, 8)
    flat = digest.flatten(module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 16))))
    assert float(flat["params/conv0/kernel"].std()) == pytest.approx((2 / (9 * 16)) ** 0.5, rel=0.03)
    assert float(flat["params/conv1/kernel"].std()) == pytest.approx(0.01, rel=0.15)
    bias = flat["params/conv1/bias"]
    np.testing.assert_allclose(jax.nn.sigmoid(bias[4]), 0.01, rtol=1e-5)
    assert not bias[:4].any() and not bias[5:].any()


def test_16_bit_computation_keeps_parameters_and_heads_in_32():
    module = _network("[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\npad=1\ngroups=4\nactivation=mish\n")
    half = Yolo(module.cfg, dtype=jnp.dtype(jnp.bfloat16))
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 4))
    variables = half.init(jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    (rows,), taps = half.apply(variables, x)
    assert rows.dtype == jnp.float32 and taps["neck0"].dtype == jnp.bfloat16
    np.testing.assert_allclose(rows, module.apply(variables, x)[0][0], atol=5e-3)


def test_images_of_other_sizes_are_taken_where_they_fit():
    body = "[maxpool]\nsize=2\nstride=2\n[upsample]\nstride=2\n[shortcut]\nfrom=-3\n"
    module = _network("[dropout]\n" + body)
    variables = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 4)))
    assert module.apply(variables, jnp.zeros((1, 6, 10, 4)))[0][0].shape == (1, 6, 10, 1, 6)
    with pytest.raises(UserError, match=r"for images of 8x8, and those of 7x8 do not fit: layer 3 \[shortcut\]"):
        module.apply(variables, jnp.zeros((1, 7, 8, 4)))
    with pytest.raises(UserError, match="takes images of 4 channels, but these have 3"):
        module.apply(variables, jnp.zeros((1, 8, 8, 3)))


def test_shapes_computed_are_shapes_made(shared):
    cfg = darknet.load(shared / "data" / "yolo_fastest" / "yolo-fastest-1.1.cfg")
    made = jax.eval_shape(lambda x: Yolo(cfg).init_with_output(jax.random.key(0), x), jnp.zeros((1, 320, 320, 3)))
    (heads, taps), variables = made
    found = shapes(cfg)
    ends = [index for index, layer in enumerate(cfg.layers) if layer in cfg.heads]
    assert [taps[f"neck{n}"].shape[1:] for n in range(2)] == [found[index - 2] for index in ends]
    assert [rows.shape[1:3] for rows in heads] == [found[index][:2] for index in ends]
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 346_062
    assert any(isinstance(layer, Dropout) for layer in cfg.layers)
