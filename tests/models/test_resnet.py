"""Residual networks: sizes as published, names, and, where PyTorch is installed, its own numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jkd import config, digest
from jkd.config.checks import CHOICES, LARGE_RESNETS
from jkd.errors import UserError
from jkd.models import build_model
from jkd.models.layers import max_pool_3x3
from jkd.models.resnet import RESNETS
from jkd.pretrained import torch_images


def _module(name: str, width: int, classes: int = 100, **differs: Any) -> Any:
    network = config.default().student
    network.update(model=name, width=width, **differs)
    return build_model(network, classes)


# Millions of parameters, as the papers and shared code bases give them, for 100 classes and small images, or 1000.
@pytest.mark.parametrize(
    "name, width, large, published",
    [
        ("resnet8", 16, False, 0.08),
        ("resnet20", 16, False, 0.28),
        ("resnet56", 16, False, 0.86),
        ("resnet110", 16, False, 1.74),
        ("resnet8x4", 16, False, 1.23),
        ("resnet32x4", 16, False, 7.43),
        ("wrn_16_2", 16, False, 0.70),
        ("wrn_40_1", 16, False, 0.57),
        ("wrn_40_2", 16, False, 2.26),
        ("wrn_28_10", 16, False, 36.54),
        ("resnet18", 64, True, 11.69),
        ("resnet34", 64, True, 21.80),
        ("resnet50", 64, True, 25.56),
        ("resnet101", 64, True, 44.55),
        ("resnet152", 64, True, 60.19),
    ],
)
def test_sizes_are_the_published_ones(name: str, width: int, large: bool, published: float) -> None:
    module = _module(name, width, 1000 if large else 100, layout="torchvision" if large else "cifar")
    images = jax.ShapeDtypeStruct((1, 224, 224, 3) if large else (1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    millions = sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) / 1e6
    assert millions == pytest.approx(published, abs=0.011)
    _, taps = jax.eval_shape(module.apply, variables, images)
    stages = len(RESNETS[name].blocks)
    assert set(taps) >= {f"stage{stage}" for stage in range(stages + 1)} | {"embedding", f"preact{stages}"}
    assert taps[f"stage{stages}"].shape[1] == (7 if large else 32 // 2 ** (stages - 1))


def test_the_config_knows_each_of_them() -> None:
    assert set(RESNETS) <= set(CHOICES["model"]) and set(LARGE_RESNETS) == {
        name for name in RESNETS if len(RESNETS[name].blocks) == 4
    }


def test_only_networks_for_large_images_have_their_layout() -> None:
    given = config.default()
    given.student.update(model="resnet20", layout="torchvision")
    given.students = {"it": {"objective": {"kd": 1.0}}}
    with pytest.raises(UserError, match=r"layout: 'torchvision' is for a vgg, or a resnet of 18 layers and more"):
        config.resolve(given)


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 2)])
def test_pooling_is_the_largest_of_each_window_with_a_gradient_to_it(size: tuple[int, int]) -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *size, 3)), jnp.float32)
    pooled, back = jax.vjp(max_pool_3x3, x)
    rows, columns = ((side - 1) // 2 + 1 for side in size)
    assert pooled.shape == (2, rows, columns, 3)
    expected = np.zeros_like(x)
    for b, i, j, c in np.ndindex(pooled.shape):
        top, left = max(0, 2 * i - 1), max(0, 2 * j - 1)
        window = np.asarray(x[b, top : 2 * i + 2, left : 2 * j + 2, c])
        at = np.unravel_index(window.argmax(), window.shape)
        assert pooled[b, i, j, c] == window.max()
        expected[b, top + at[0], left + at[1], c] += 1
    np.testing.assert_array_equal(back(jnp.ones_like(pooled))[0], expected)


def _torch_network(name: str, width: int, large: bool) -> Any:
    """The network written again in PyTorch, in the layout of torchvision and of the shared CIFAR code bases."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    nn, F = torch.nn, torch.nn.functional
    shape = RESNETS[name]
    channels, stem = [width * times for times in shape.stages], width * shape.stem

    def conv(i: int, o: int, size: int, stride: int = 1) -> Any:
        return nn.Conv2d(i, o, size, stride, size // 2, bias=False)

    class Block(nn.Module):
        def __init__(self, i: int, c: int, stride: int) -> None:
            super().__init__()
            o = 4 * c if shape.bottleneck else c
            plan = (
                [(i, c, 1, 1), (c, c, 3, stride), (c, o, 1, 1)]
                if shape.bottleneck
                else [(i, c, 3, stride), (c, c, 3, 1)]
            )
            self.layers = len(plan)
            for index, (a, b, size, step) in enumerate(plan, 1):
                setattr(self, f"conv{index}", conv(a, b, size, step))
                setattr(self, f"bn{index}", nn.BatchNorm2d(b))
            if stride > 1 or i != o:
                self.downsample = nn.Sequential(conv(i, o, 1, stride), nn.BatchNorm2d(o))

        def forward(self, x: Any) -> Any:
            y = x
            for index in range(1, self.layers + 1):
                y = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(F.relu(y) if index > 1 else y))
            return F.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))

    class Wide(nn.Module):
        def __init__(self, i: int, o: int, stride: int) -> None:
            super().__init__()
            self.bn1, self.conv1 = nn.BatchNorm2d(i), conv(i, o, 3, stride)
            self.bn2, self.conv2 = nn.BatchNorm2d(o), conv(o, o, 3)
            if i != o:
                self.convShortcut = nn.Conv2d(i, o, 1, stride, bias=False)

        def forward(self, x: Any) -> Any:
            y = F.relu(self.bn1(x))
            x = self.convShortcut(y) if hasattr(self, "convShortcut") else x
            return x + self.conv2(F.relu(self.bn2(self.conv1(y))))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = conv(3, stem, 7, 2) if large else conv(3, stem, 3)
            i = stem
            for stage, count in enumerate(shape.blocks):
                blocks = []
                for block in range(count):
                    kind = Wide if shape.wide else Block
                    blocks.append(kind(i, channels[stage], 2 if stage and not block else 1))
                    i = channels[stage] * (4 if shape.bottleneck else 1)
                if shape.wide:
                    holder = nn.Module()
                    holder.layer = nn.Sequential(*blocks)
                    setattr(self, f"block{stage + 1}", holder)
                else:
                    setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            self.bn1 = nn.BatchNorm2d(i if shape.wide else stem)
            self.fc = nn.Linear(i, 10)

        def forward(self, x: Any) -> Any:
            x = self.conv1(x)
            if not shape.wide:
                x = F.relu(self.bn1(x))
            if large:
                x = F.max_pool2d(x, 3, 2, 1)
            for stage in range(len(shape.blocks)):
                x = getattr(self, f"block{stage + 1}").layer(x) if shape.wide else getattr(self, f"layer{stage + 1}")(x)
            if shape.wide:
                x = F.relu(self.bn1(x))
            return self.fc(x.mean((2, 3)))

    return Net().eval()


@pytest.mark.parametrize(
    "name, width, large",
    [
        ("resnet20", 4, False),
        ("resnet8x4", 4, False),
        ("wrn_16_2", 4, False),
        ("resnet18", 4, True),
        ("resnet50", 4, True),
    ],
)
def test_logits_equal_pytorchs_with_its_weights_and_the_file_comes_back(
    name: str, width: int, large: bool, tmp_path: Any
) -> None:
    net = _torch_network(name, width, large)
    import torch
    from safetensors.numpy import load_file, save_file

    rng = np.random.default_rng(0)
    state = {}
    for key, tensor in net.state_dict().items():
        drawn = rng.normal(size=tuple(tensor.shape)).astype(np.float32)
        if key.endswith("running_var") or ("bn" in key and key.endswith("weight")):
            drawn = 0.5 + np.abs(drawn)
        elif drawn.ndim > 1:
            drawn *= (2 / np.prod(drawn.shape[1:])) ** 0.5
        state[key] = drawn if tensor.ndim else tensor.numpy()
    net.load_state_dict({key: torch.from_numpy(np.asarray(value)) for key, value in state.items()})
    save_file(state, tmp_path / "net.safetensors")
    module = _module(name, width, 10, layout="torchvision" if large else "cifar")
    images = rng.normal(size=(3, 64, 64, 3)).astype(np.float32)
    variables = torch_images.load(tmp_path / "net.safetensors", module, images.shape[1:])
    logits, _ = jax.jit(module.apply)(variables, images)
    with torch.no_grad():
        expected = net(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    torch_images.save(tmp_path / "again.safetensors", variables, module)
    kept = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert digest.of_leaves(load_file(tmp_path / "again.safetensors")) == digest.of_leaves(kept)


@pytest.mark.parametrize("name", ["resnet8", "resnet8x4", "wrn_16_1", "resnet50"])
def test_variables_come_back_from_torch_layout(name: str, tmp_path: Any) -> None:
    module = _module(name, 1, 3)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.1, 1, leaf.shape), jnp.float32), shapes)
    torch_images.save(tmp_path / "it.safetensors", variables, module)
    again = torch_images.load(tmp_path / "it.safetensors", module, (32, 32, 3))
    assert digest.of_leaves(again) == digest.of_leaves(variables)
    with pytest.raises(UserError, match=rf"does not fit this {type(module).__name__} of \d+ tensors"):
        torch_images.load(tmp_path / "it.safetensors", _module(name, 2, 3), (32, 32, 3))
