import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jkd import digest
from jkd.errors import UserError
from jkd.models.darknet import Convolutional, Route, Shortcut, shapes
from jkd.models.scaling import adapted, scaled, with_classes
from jkd.models.yolo import Yolo
from jkd.pretrained import darknet

CONV = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize={}\npad=1\nactivation=leaky\n"
BLOCK = CONV.format(16, 1) + CONV.format(32, 3) + "[dropout]\n[shortcut]\nfrom=-4\n"
HEAD = "[convolutional]\nfilters=14\nactivation=linear\n[yolo]\nanchors=4,5,8,9\nnum=2\nclasses=2\n"
NET = "[net]\nheight=16\nwidth=16\nchannels=3\n"


def _net(body: str, head: str = HEAD):
    return darknet.parse(f"{NET}{body}{head}")


RESIDUAL = _net(CONV.format(32, 3) + BLOCK * 4 + "[route]\nlayers=-1,0\n")


def _filters(cfg):
    return [layer.filters for layer in cfg.layers if isinstance(layer, Convolutional)]


def test_a_factor_of_one_changes_nothing():
    assert scaled(RESIDUAL, 1.0, 1) == RESIDUAL
    odd = _net(CONV.format(13, 3))
    assert scaled(odd) == odd


def test_width_rounds_to_a_multiple_of_8_and_leaves_the_head():
    assert _filters(scaled(RESIDUAL, 0.4)) == [16] + [8, 16] * 4 + [14]
    assert _filters(scaled(RESIDUAL, 0.01)) == [8] * 9 + [14]
    assert _filters(scaled(RESIDUAL, 2)) == [64] + [32, 64] * 4 + [14]


def test_depthwise_convolutions_follow_their_input():
    cfg = _net(CONV.format(32, 3) + "[convolutional]\ngroups=32\nfilters=64\nsize=3\npad=1\n")
    conv = scaled(cfg, 0.5).layers[1]
    assert isinstance(conv, Convolutional) and (conv.groups, conv.filters) == (16, 32)


def test_sides_of_a_shortcut_stay_equal():
    # 20 channels become 16 at this width, twice that is 32, but 40 channels would become 24.
    body = CONV.format(20, 3) + "[route]\nlayers=0,0\n" + CONV.format(40, 1) + "[shortcut]\nfrom=-2\n"
    cfg = scaled(_net(body), 0.6)
    assert [channels for _, _, channels in shapes(cfg)[:4]] == [16, 32, 32, 32]


@pytest.mark.parametrize(("depth", "blocks"), [(0.01, 1), (0.5, 2), (0.75, 3), (2, 8)])
def test_depth_repeats_blocks_and_moves_sources(depth, blocks):
    cfg = scaled(RESIDUAL, depth=depth)
    shortcuts = [(index, layer.sources) for index, layer in enumerate(cfg.layers) if isinstance(layer, Shortcut)]
    assert shortcuts == [(4 * n, (4 * n - 4,)) for n in range(1, blocks + 1)]
    assert cfg.layers[4 * blocks + 1] == Route((4 * blocks, 0))


def test_a_block_read_from_elsewhere_stays():
    cfg = _net(CONV.format(32, 3) + BLOCK * 4 + "[route]\nlayers=-1,8\n")
    assert scaled(cfg, depth=0.5).layers[9] == Route((8, 4))  # two runs of two blocks, one of each left


def test_what_cannot_be_scaled_is_refused():
    with pytest.raises(UserError, match="no two equal residual blocks"):
        scaled(_net(CONV.format(8, 3)), depth=0.5)
    for arguments in ((0.0,), (17.0,), (1.0, -1.0), (float("nan"),)):
        with pytest.raises(UserError, match="expected above 0 and at most 16"):
            scaled(RESIDUAL, *arguments)
    with pytest.raises(UserError, match="more than 2048 layers"):
        scaled(_net(CONV.format(32, 3) + BLOCK * 100), depth=16)


@pytest.mark.parametrize("width", [0.25, 0.77, 1.5])
@pytest.mark.parametrize("depth", [0.34, 1, 1.5])
@pytest.mark.parametrize("name", ["yolo-fastest-1.1", "yolo-fastest-1.1-xl"])
def test_published_networks_scale_to_networks(shared, name, width, depth):
    cfg = darknet.load(shared / "data" / "yolo_fastest" / f"{name}.cfg")
    made = scaled(cfg, width, depth)
    assert darknet.parse(darknet.dump(made)) == made
    shape = shapes(made)
    for index, layer in enumerate(made.layers):
        if isinstance(layer, Shortcut):
            assert shape[index][2] == shape[layer.sources[0]][2]
    assert [rows[:2] for rows in (shape[-1], shape[0])] == [(20, 20), (160, 160)]


@pytest.mark.parametrize("norm", [False, True])
def test_other_classes_keep_all_that_does_not_name_them(norm):
    cfg = _net(CONV.format(8, 3), HEAD.replace("filters=14", "filters=14\nbatch_normalize=1" if norm else "filters=14"))
    fewer = with_classes(cfg, 1)
    assert [head.classes for head in fewer.heads] == [1] and _filters(fewer) == [8, 12]
    images = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3))
    variables = Yolo(cfg).init(jax.random.key(1), images)
    variables = jax.tree.map(
        lambda leaf: leaf + 0.1 * jnp.arange(leaf.size, dtype=leaf.dtype).reshape(leaf.shape), variables
    )
    made = adapted(variables, cfg, 1, jax.random.key(2))
    expected = jax.eval_shape(Yolo(fewer).init, jax.random.key(1), images)
    assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, dict(expected))
    flat, before = digest.flatten(made), digest.flatten(variables)
    for leaf in flat:
        if "1/" not in leaf:
            np.testing.assert_array_equal(flat[leaf], before[leaf])
    (old,), (new,) = (Yolo(c).apply(v, images)[0] for c, v in ((cfg, variables), (fewer, made)))
    np.testing.assert_allclose(new[..., :5], old[..., :5], rtol=1e-5, atol=1e-5)
    if not norm:
        assert not flat["params/conv1/bias"][jnp.array([5, 11])].any()
        assert 0 < float(jnp.abs(flat["params/conv1/kernel"][..., jnp.array([5, 11])]).max()) < 0.1


def test_published_weights_take_another_number_of_classes(shared):
    cfg = darknet.load(shared / "data" / "yolo_fastest" / "yolo-fastest-1.1-xl.cfg")
    assert _filters(with_classes(cfg, 3))[-1] == 24
    assert darknet.parse(darknet.dump(with_classes(cfg, 3))).heads[1].classes == 3
