import json
import struct

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jkd import digest
from jkd.errors import UserError
from jkd.models import CifarVgg, TorchvisionVgg
from jkd.models.vgg import STAGES
from jkd.pretrained import torch_images

CIFAR = (8, 16, 32, 64, 64)
TORCHVISION = (8, 16, 32, 32, 32)
MODULES = {
    "cifar_vgg8": CifarVgg(10, STAGES["vgg8"], CIFAR),
    "cifar_vgg13": CifarVgg(10, STAGES["vgg13"], CIFAR),
    "torchvision_vgg11_bn": TorchvisionVgg(10, STAGES["vgg11"], TORCHVISION, hidden=64, batch_norm=True),
    "torchvision_vgg16": TorchvisionVgg(10, STAGES["vgg16"], TORCHVISION, hidden=64),
}
SMALL = CifarVgg(2, STAGES["vgg8"], (2, 3, 4, 5, 6))
SHAPE = (32, 32, 3)


def _relative(value, expected):
    return np.abs(np.asarray(value) - expected).max() / np.abs(expected).max()


@pytest.fixture(scope="module")
def small():
    """Variables of `SMALL`, every leaf different."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(SMALL.init, jax.random.key(0), jnp.zeros((1, *SHAPE)))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.1, 1, leaf.shape), jnp.float32), shapes)


@pytest.fixture
def tensors(small, tmp_path):
    torch_images.save(tmp_path / "whole.safetensors", small, SMALL)
    return load_file(tmp_path / "whole.safetensors")


def _load(tmp_path, tensors):
    save_file(tensors, tmp_path / "w.safetensors")
    return torch_images.load(tmp_path / "w.safetensors", SMALL, SHAPE)


@pytest.mark.parametrize("name", MODULES)
def test_logits_and_features_equal_golden(shared, name):
    module, folder = MODULES[name], shared / "golden" / "vgg"
    golden = np.load(folder / f"{name}.npz", allow_pickle=False)
    variables = torch_images.load(folder / f"{name}.safetensors", module, golden["images"].shape[1:])
    logits, taps = jax.jit(module.apply)(variables, golden["images"])
    assert _relative(logits, golden["logits"]) < 1e-5
    features = [f"stage{stage}" for stage in range(5)] + ["embedding"]
    for number, tap in enumerate(features if "feature_0" in golden else ()):
        assert _relative(taps[tap], golden[f"feature_{number}"]) < 1e-5, tap


@pytest.mark.parametrize("name", MODULES)
def test_a_file_comes_back_tensor_by_tensor(shared, tmp_path, name):
    path = shared / "golden" / "vgg" / f"{name}.safetensors"
    shape = (64, 64, 3) if name.startswith("torchvision") else SHAPE
    torch_images.save(tmp_path / "again.safetensors", torch_images.load(path, MODULES[name], shape), MODULES[name])
    again, before = load_file(tmp_path / "again.safetensors"), load_file(path)
    before = {key: value for key, value in before.items() if not key.endswith("num_batches_tracked")}
    assert digest.of_leaves(again) == digest.of_leaves(before)


def test_variables_come_back_as_they_were(small, tensors, tmp_path):
    assert digest.of_leaves(_load(tmp_path, tensors)) == digest.of_leaves(small)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_16_bit_weights_are_widened_to_float32(tensors, tmp_path, dtype):
    loaded = digest.flatten(_load(tmp_path, {key: value.astype(dtype) for key, value in tensors.items()}))
    assert {leaf.dtype for leaf in loaded.values()} == {jnp.dtype(jnp.float32)}
    bias = tensors["classifier.bias"].astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(loaded["params/classifier/bias"], bias)


@pytest.mark.fault(8, 9)
def test_every_mismatch_is_listed(tensors, tmp_path):
    del tensors["block1.0.weight"]
    tensors["features.0.weight"] = np.zeros(2, np.float32)
    tensors["block2.0.weight"] = np.zeros((4, 3, 5, 5), np.float32)
    tensors["classifier.bias"] = np.zeros(2, np.float64)
    tensors["block0.1.num_batches_tracked"] = np.array(7)
    with pytest.raises(UserError) as error:
        _load(tmp_path, tensors)
    assert str(error.value).split("\n  ")[1:] == [
        "missing: block1.0.weight [3, 2, 3, 3]",
        "wrong shape: block2.0.weight is [4, 3, 5, 5], expected [4, 3, 3, 3]",
        "wrong type: classifier.bias is F64, expected one of F32, F16, BF16",
        "not known: 'features.0.weight' [2]",
    ]


@pytest.mark.fault(8)
def test_another_number_of_classes_is_a_mismatch(tensors, tmp_path):
    save_file(tensors, tmp_path / "w.safetensors")
    other = CifarVgg(3, SMALL.stages, SMALL.channels)
    with pytest.raises(UserError, match=r"classifier.weight is \[2, 6\], expected \[3, 6\]"):
        torch_images.load(tmp_path / "w.safetensors", other, SHAPE)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.fault(22)
def test_a_value_that_is_not_finite_is_refused_by_name(tensors, tmp_path, value):
    tensors["block3.0.bias"][1] = value
    with pytest.raises(UserError, match=r"'block3\.0\.bias' has 1 of 5 values that are NaN or infinite"):
        _load(tmp_path, tensors)


def test_a_negative_variance_is_refused_by_name(tensors, tmp_path):
    tensors["block3.1.running_var"][1] = -1
    with pytest.raises(UserError, match=r"'block3\.1\.running_var' has a negative variance"):
        _load(tmp_path, tensors)


def _header(text: bytes, claimed: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if claimed is None else claimed) + text


HUGE = json.dumps({"classifier.bias": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()


@pytest.mark.parametrize(
    "content",
    [b"", b"a text file, no weights", _header(b"{}", 2**62), _header(b"[" * 100_000), _header(HUGE)],
    ids=["empty", "text", "header beyond the file", "deep nesting", "tensor beyond the file"],
)
@pytest.mark.fault(22)
def test_a_malformed_file_is_refused(tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="not a readable safetensors file"):
        torch_images.load(tmp_path / "w.safetensors", SMALL, SHAPE)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a file"):
        torch_images.load(tmp_path, SMALL, SHAPE)


def test_saving_variables_of_another_module_is_refused(small, tmp_path):
    with pytest.raises(UserError, match="block0_conv1"):
        torch_images.save(tmp_path / "w.safetensors", small, CifarVgg(2, STAGES["vgg13"], SMALL.channels))
    assert not list(tmp_path.iterdir())
