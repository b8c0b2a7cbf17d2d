import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jkd import digest
from jkd.errors import UserError
from jkd.models.yolo import Yolo
from jkd.pretrained import darknet, darknet_weights
from jkd.pretrained.darknet_weights import Header

CFG = darknet.parse("""
[net]
height=16
width=16
channels=2
[convolutional]
batch_normalize=1
filters=4
size=3
stride=2
pad=1
[convolutional]
filters=6
size=3
groups=2
pad=1
[yolo]
anchors=1,2
classes=1
num=1
""")
COUNT = 4 * 4 + 4 * 2 * 9 + 6 + 6 * 2 * 9
MODERN = struct.pack("<iiiQ", 0, 2, 5, 2**40)
VALUES = np.linspace(0.1, 1, COUNT, dtype="<f4")


@pytest.fixture
def write(tmp_path):
    def made(data):
        (tmp_path / "net.weights").write_bytes(data)
        return tmp_path / "net.weights"

    return made


def test_numbers_come_in_the_order_of_the_file(write):
    variables, header = darknet_weights.load(write(MODERN + VALUES.tobytes()), CFG)
    assert header == Header(0, 2, 5, 2**40)
    flat = digest.flatten(variables)
    for place, leaf in enumerate(("params/norm0/bias", "params/norm0/scale", "batch_stats/norm0/mean")):
        np.testing.assert_array_equal(flat[leaf], VALUES[4 * place : 4 * place + 4])
    kernel = VALUES[16 : 16 + 72].reshape(4, 2, 3, 3)
    np.testing.assert_array_equal(flat["params/conv0/kernel"][1, 2, 0, 3], kernel[3, 0, 1, 2])
    np.testing.assert_array_equal(flat["params/conv1/bias"], VALUES[88:94])


def test_they_are_the_variables_of_the_module(write):
    variables, _ = darknet_weights.load(write(MODERN + VALUES.tobytes()), CFG)
    made = jax.eval_shape(Yolo(CFG).init, jax.random.key(0), jnp.zeros((1, 16, 16, 2)))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), dict(made)) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), variables
    )


@pytest.mark.parametrize(
    "header", [MODERN, struct.pack("<iiiI", 0, 1, 0, 2**31), struct.pack("<iiiQ", 1, 0, 0, 2**63), bytes(16)]
)
def test_a_file_comes_back_byte_for_byte_whatever_its_header(write, tmp_path, header):
    values = VALUES.copy()
    values[:3] = -0.0, 1e-42, 3e38  # a negative zero, one too small to be normal, one near the largest
    data = header + values.tobytes()
    variables, read = darknet_weights.load(write(data), CFG)
    darknet_weights.save(tmp_path / "again.weights", variables, CFG, read)
    assert (tmp_path / "again.weights").read_bytes() == data


@pytest.mark.parametrize("name", ["yolo-fastest-1.1", "yolo-fastest-1.1-xl"])
def test_published_weights_come_back_byte_for_byte(shared, tmp_path, name):
    folder = shared / "data" / "yolo_fastest"
    cfg = darknet.load(folder / f"{name}.cfg")
    variables, header = darknet_weights.load(folder / f"{name}.weights", cfg)
    darknet_weights.save(tmp_path / "again.weights", variables, cfg, header)
    assert (tmp_path / "again.weights").read_bytes() == (folder / f"{name}.weights").read_bytes()


def _changed(place, value):
    values = VALUES.copy()
    values[place] = value
    return MODERN + values.tobytes()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "has 0 bytes"),
        (MODERN[:15], "has 15 bytes"),
        (MODERN[:18], "has 18 bytes: expected a header of 20"),
        (struct.pack("<iiiQ", 2000, 2, 5, 0) + VALUES.tobytes(), "version 2000.2"),
        (struct.pack("<iiiQ", -1, 2, 5, 0) + VALUES.tobytes(), "version -1.2"),
        (MODERN, "holds 0 numbers, but its cfg needs 202; it ends in the biases of layer 0"),
        (MODERN + VALUES.tobytes()[:-4], "201 numbers.*the kernel of layer 1 .convolutional., of which 107 of 108"),
        (MODERN + VALUES.tobytes()[:80], "20 numbers.*the kernel of layer 0 .convolutional., of which 4 of 72"),
        (MODERN + VALUES.tobytes()[:-1], "201 numbers and 3 bytes more"),
        (MODERN + VALUES.tobytes() + bytes(8), "204 numbers.*needs 202; 2 numbers are left after layer 1"),
        (MODERN + VALUES.tobytes() + b"x", "202 numbers and 1 bytes more"),
        (_changed(20, np.nan), "layer 0 .convolutional., 1 of 72 kernel are NaN"),
        (_changed(90, np.inf), "layer 1 .convolutional., 1 of 6 biases are NaN"),
        (_changed(13, -1.0), "1 of 4 variances are below zero"),
    ],
)
def test_files_of_something_else_are_refused_with_layer_and_counts(write, data, message):
    with pytest.raises(UserError, match=message):
        darknet_weights.load(write(data), CFG)


def test_variables_of_another_cfg_are_not_written(write, tmp_path):
    variables, _ = darknet_weights.load(write(MODERN + VALUES.tobytes()), CFG)
    missing = {"params": {"conv0": variables["params"]["conv0"]}}
    with pytest.raises(UserError, match="variables and cfg differ in"):
        darknet_weights.save(tmp_path / "x.weights", missing, CFG)
    variables["params"]["conv1"]["bias"] = jnp.zeros(7)
    with pytest.raises(UserError, match=r"layer 1 biases is \[7\], the cfg says \[6\]"):
        darknet_weights.save(tmp_path / "x.weights", variables, CFG)
    assert not (tmp_path / "x.weights").exists()
