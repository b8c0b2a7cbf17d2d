"""Torch-layout weights of networks for images in safetensors, read and written.

Keys of a VGG are `block0.0.weight` ... in the CIFAR layout and `features.0.weight` ... in torchvision's; of a ResNet
`conv1.weight`, `layer1.0.conv1.weight`, `layer2.0.downsample.0.weight`, `fc.weight` ... in both, as torchvision and the
shared CIFAR code bases have them; of a wide one `block1.layer.0.bn1.weight`, `block2.layer.0.convShortcut.weight` ....

Torch keeps convolutions as `[O, I, 3, 3]` and dense kernels as `[O, I]`; jkd as `[3, 3, I, O]` and `[I, O]`.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jkd import digest, files, places, random
from jkd.errors import UserError
from jkd.models import CifarVgg, ResNet, TorchvisionVgg, WideResNet
from jkd.models.resnet import EXPANSION
from jkd.places import Path
from jkd.pretrained.tensors import FLOATS, Tensors, nested, opened

Network = CifarVgg | TorchvisionVgg | ResNet | WideResNet
IGNORED = "num_batches_tracked"  # torch's step counter, of no use without a momentum of None


def load(path: str | Path, module: Network, input_shape: tuple[int, ...]) -> dict[str, Any]:
    """Reads the variables of `module` from a torch-layout file.

    Args:
      path: safetensors, of float32, float16 or bfloat16, which are widened. `num_batches_tracked` is ignored.
      module: says which layout, which sizes, and whether there is BatchNorm.
      input_shape: height, width and channels of an image.

    Returns:
      `{"params": ..., "batch_stats": ...}` of float32 arrays, as `module.init` would give.

    Raises:
      UserError: listing every tensor that is missing, not known, or of a shape or type that does not fit;
        or naming the one that holds NaN, infinity or a negative variance; or saying why it cannot be read.
    """
    names = _names(module)
    shapes = {name: _torch_shape(leaf.shape) for name, leaf in _expected(module, input_shape).items()}
    with opened(path) as tensors:
        problems = list(_mismatches(tensors, {names[leaf]: shape for leaf, shape in shapes.items()}))
        if problems:
            raise UserError(
                f"{path} does not fit this {type(module).__name__} of {len(names)} tensors. Check model, "
                "width, layout, batch_norm and the number of classes. It has\n  " + "\n  ".join(problems)
            )
        flat = {leaf: _read(tensors, names[leaf]) for leaf in shapes}
    return nested(flat, str(path))


def save(path: str | Path, variables: dict[str, Any], module: Network) -> None:
    """Writes variables of `module` as float32 in torch layout: `load` gives them back, torch reads them."""
    names, flat = _names(module), digest.flatten(variables)
    if set(names) != set(flat):
        odd = ", ".join(sorted(set(names) ^ set(flat)))
        raise UserError(f"cannot write {path}: variables and module differ in {odd}. Pass the module they are from.")
    files.write_arrays(
        places.path_of(path), {names[leaf]: _to_torch(np.asarray(flat[leaf], np.float32)) for leaf in flat}
    )


def _names(module: Network) -> dict[str, str]:
    """Leaf path -> torch name, for every leaf."""
    made: dict[type, Callable[[Any], Iterator[tuple[str, str]]]] = {
        CifarVgg: _cifar_names,
        TorchvisionVgg: _torchvision_names,
        ResNet: _resnet_names,
        WideResNet: _wide_resnet_names,
    }
    return dict(made[type(module)](module))


def _cifar_names(module: CifarVgg) -> Iterator[tuple[str, str]]:
    for stage, layers in enumerate(module.stages):
        for layer in range(layers):  # every layer is convolution, norm, ReLU
            yield from _conv_and_norm(stage, layer, f"block{stage}.{3 * layer}", f"block{stage}.{3 * layer + 1}")
    yield from _weight_and_bias("classifier", "kernel", "classifier")


def _torchvision_names(module: TorchvisionVgg) -> Iterator[tuple[str, str]]:
    index = 0
    for stage, layers in enumerate(module.stages):
        for layer in range(layers):
            norm = f"features.{index + 1}" if module.batch_norm else None
            yield from _conv_and_norm(stage, layer, f"features.{index}", norm)
            index += 3 if module.batch_norm else 2
        index += 1  # the pooling
    for layer in range(3):  # dense, ReLU, dropout
        yield from _weight_and_bias(f"classifier{layer}", "kernel", f"classifier.{3 * layer}")


def _resnet_names(module: ResNet) -> Iterator[tuple[str, str]]:
    yield "params/stem_conv/kernel", "conv1.weight"
    yield from _norm("stem_norm", "bn1")
    width = module.stem
    for stage, blocks in enumerate(module.blocks):
        out = module.channels[stage] * (EXPANSION if module.bottleneck else 1)
        for block in range(blocks):
            leaf, torch = f"stage{stage}_block{block}", f"layer{stage + 1}.{block}"
            for layer in range(3 if module.bottleneck else 2):
                yield f"params/{leaf}_conv{layer}/kernel", f"{torch}.conv{layer + 1}.weight"
                yield from _norm(f"{leaf}_norm{layer}", f"{torch}.bn{layer + 1}")
            if not block and (stage or width != out):
                yield f"params/{leaf}_short_conv/kernel", f"{torch}.downsample.0.weight"
                yield from _norm(f"{leaf}_short_norm", f"{torch}.downsample.1")
        width = out
    yield from _weight_and_bias("classifier", "kernel", "fc")


def _wide_resnet_names(module: WideResNet) -> Iterator[tuple[str, str]]:
    yield "params/stem_conv/kernel", "conv1.weight"
    width = module.stem
    for stage, blocks in enumerate(module.blocks):
        for block in range(blocks):
            leaf, torch = f"stage{stage}_block{block}", f"block{stage + 1}.layer.{block}"
            for layer in range(2):
                yield from _norm(f"{leaf}_norm{layer}", f"{torch}.bn{layer + 1}")
                yield f"params/{leaf}_conv{layer}/kernel", f"{torch}.conv{layer + 1}.weight"
            if width != module.channels[stage]:
                yield f"params/{leaf}_short_conv/kernel", f"{torch}.convShortcut.weight"
            width = module.channels[stage]
    yield from _norm("last_norm", "bn1")
    yield from _weight_and_bias("classifier", "kernel", "fc")


def _conv_and_norm(stage: int, layer: int, conv: str, norm: str | None) -> Iterator[tuple[str, str]]:
    yield from _weight_and_bias(f"block{stage}_conv{layer}", "kernel", conv)
    if norm:
        yield from _norm(f"block{stage}_norm{layer}", norm)


def _norm(leaf: str, torch: str) -> Iterator[tuple[str, str]]:
    yield from _weight_and_bias(leaf, "scale", torch)
    yield f"batch_stats/{leaf}/mean", f"{torch}.running_mean"
    yield f"batch_stats/{leaf}/var", f"{torch}.running_var"


def _weight_and_bias(leaf: str, weight: str, torch: str) -> Iterator[tuple[str, str]]:
    yield f"params/{leaf}/{weight}", f"{torch}.weight"
    yield f"params/{leaf}/bias", f"{torch}.bias"


def _expected(module: Network, input_shape: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    images = jnp.zeros((1, *input_shape), jnp.float32)
    return digest.flatten(jax.eval_shape(module.init, random.key("init", 0), images))


def _mismatches(tensors: Tensors, expected: dict[str, tuple[int, ...]]) -> Iterator[str]:
    for name, shape in expected.items():
        if name not in tensors.shapes:
            yield f"missing: {name} {list(shape)}"
            continue
        if tensors.shapes[name] != shape:
            yield f"wrong shape: {name} is {list(tensors.shapes[name])}, expected {list(shape)}"
        if tensors.dtypes[name] not in FLOATS:
            yield f"wrong type: {name} is {tensors.dtypes[name]}, expected one of {', '.join(FLOATS)}"
    for name in sorted(set(tensors.shapes) - set(expected)):
        if name.rpartition(".")[2] != IGNORED:
            yield f"not known: {name!r} {list(tensors.shapes[name])}"


def _read(tensors: Tensors, name: str) -> Array:
    array = tensors.read(name)
    if name.endswith("running_var") and (array < 0).any():
        raise UserError(f"{tensors.path}: '{name}' has a negative variance. Export the weights again.")
    return jnp.asarray(_from_torch(array))


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape[::-1]


def _to_torch(array: np.ndarray) -> np.ndarray:
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def _from_torch(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
