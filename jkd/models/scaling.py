"""Networks made from a Darknet cfg: narrower, shallower, or for another number of classes."""

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jkd.errors import UserError
from jkd.models.darknet import (
    MOST_LAYERS,
    Cfg,
    Convolutional,
    Dropout,
    Layer,
    LayerError,
    MaxPool,
    Route,
    Shape,
    Shortcut,
    Upsample,
    YoloHead,
    channels_in,
    shapes,
)
from jkd.models.yolo import head_bias

MULTIPLE = 8  # of channels, as vector units like them


def scaled(cfg: Cfg, width: float | int = 1.0, depth: float | int = 1.0) -> Cfg:
    """A narrower or shallower network of the same form, such as a student's.

    Width multiplies the filters of every convolution but those right before a head, and rounds to a multiple of 8 (8
    at least); depthwise convolutions follow their input, and the two sides of a shortcut that had equal channels have
    equal channels again. Depth multiplies how often equal residual blocks follow each other, and rounds (1 at least);
    layers that no repeated block holds stay. A width or depth of 1 changes nothing.

    Raises:
      UserError: width or depth is not in (0, 16], nothing is repeated that depth could scale, or what comes out is no
        network: groups that do not divide the new channels.
    """
    for what, value in (("width", width), ("depth", depth)):
        if not 0 < value <= 16:
            raise UserError(f"{what}={value}: expected above 0 and at most 16.")
    if depth != 1:
        cfg = _deeper(cfg, depth)
    return _wider(cfg, width) if width != 1 else cfg


def with_classes(cfg: Cfg, classes: int) -> Cfg:
    """The same network for another number of classes: the heads and the convolutions right before them change."""
    layers = list(cfg.layers)
    for index, layer in enumerate(layers):
        if isinstance(layer, YoloHead):
            layers[index] = replace(layer, classes=classes)
            conv = layers[index - 1]
            assert isinstance(conv, Convolutional)
            layers[index - 1] = replace(conv, filters=len(layer.mask) * (5 + classes))
    return _checked(replace(cfg, layers=tuple(layers)))


def adapted(variables: dict[str, Any], cfg: Cfg, classes: int, key: Key[Array, ""]) -> dict[str, Any]:
    """Variables of `Yolo(cfg)` for `Yolo(with_classes(cfg, classes))`.

    All weights are kept but those that give class logits: in the convolution right before a head, the outputs for boxes
    and objectness stay as they were, and those for classes start as an untrained network's do: kernels normal with
    deviation 0.01, biases zero. A head whose convolution has BatchNorm keeps the statistics of what it keeps; its
    classes start with scale 1, mean 0 and variance 1.

    Args:
      variables: `params` and, where there is BatchNorm, `batch_stats`. Not changed.
      cfg: the network that they are of.
      classes: how many there shall be.
      key: for the new kernels.
    """
    made = {collection: dict(tree) for collection, tree in variables.items()}
    for index, layer in enumerate(cfg.layers):
        if not isinstance(layer, YoloHead):
            continue
        mine = jax.random.fold_in(key, index)
        old, boxes = layer.classes, len(layer.mask)
        conv = made["params"][f"conv{index - 1}"]
        kernel = conv["kernel"].reshape(*conv["kernel"].shape[:3], boxes, 5 + old)[..., :5]
        fresh = 0.01 * jax.random.normal(mine, (*kernel.shape[:-1], classes), jnp.float32)
        new = {"kernel": jnp.concatenate([kernel, fresh], -1).reshape(*kernel.shape[:3], -1)}
        if "bias" in conv:
            new["bias"] = _vector(conv["bias"], boxes, old, head_bias(replace(layer, classes=classes)))
        made["params"][f"conv{index - 1}"] = new
        for collection, starts in (("params", {"bias": 0.0, "scale": 1.0}), ("batch_stats", {"mean": 0.0, "var": 1.0})):
            norm = made.get(collection, {}).get(f"norm{index - 1}")
            if norm is not None:
                full = {name: jnp.full(boxes * (5 + classes), value) for name, value in starts.items()}
                made[collection][f"norm{index - 1}"] = {
                    name: _vector(norm[name], boxes, old, start) for name, start in full.items()
                }
    return made


def _vector(old: Array, boxes: int, old_classes: int, start: Array) -> Array:
    """`start` with the rows of boxes and objectness from `old`."""
    kept = old.reshape(boxes, 5 + old_classes)[:, :5]
    return jnp.concatenate([kept, start.reshape(boxes, -1)[:, 5:]], -1).reshape(-1)


def _checked(cfg: Cfg) -> Cfg:
    shapes(cfg)
    return cfg


def _wider(cfg: Cfg, width: float | int) -> Cfg:
    """Filters times `width`; where a shortcut's sides then differ, the convolution that makes the later one follows."""
    before, fixed = shapes(cfg), dict[int, int]()
    for _ in range(len(cfg.layers) + 1):
        made, clash = _with_filters(cfg, before, width, fixed)
        if clash is None:
            return _checked(made)
        fixed[clash[0]] = clash[1]
    raise UserError(f"width={width}: the channels of this cfg's shortcuts cannot be made equal. Choose another width.")


def _with_filters(
    cfg: Cfg, before: tuple[Shape, ...], width: float | int, fixed: dict[int, int]
) -> tuple[Cfg, tuple[int, int] | None]:
    """The scaled network, or the first convolution that needs other filters, and how many."""
    channels: list[int] = []
    layers = list(cfg.layers)
    for index, layer in enumerate(layers):
        inputs = channels[-1] if index else cfg.net.channels
        if isinstance(layer, Convolutional):
            head = isinstance(layers[index + 1] if index + 1 < len(layers) else None, YoloHead)
            old_inputs = channels_in(cfg, index, before)
            if layer.groups == old_inputs > 1:
                layer = replace(layer, groups=inputs, filters=inputs * (layer.filters // old_inputs))
            elif not head:
                layer = replace(layer, filters=fixed.get(index, _rounded(layer.filters * width, layer.groups)))
            layers[index] = layer
            channels.append(layer.filters)
        elif isinstance(layer, Route):
            channels.append(sum(channels[source] for source in layer.sources) // layer.groups)
        else:
            channels.append(inputs)
        if isinstance(layer, Shortcut):
            for source in layer.sources:
                if before[source][2] == before[index][2] and channels[source] != inputs:
                    return cfg, (_maker(cfg, index, before, fixed, width), channels[source])
    return replace(cfg, layers=tuple(layers)), None


def _maker(cfg: Cfg, index: int, before: tuple[Shape, ...], fixed: dict[int, int], width: float | int) -> int:
    """The convolution that decides how many channels enter layer `index`."""
    at = index - 1
    while at >= 0:
        layer = cfg.layers[at]
        if isinstance(layer, Convolutional) and layer.groups != channels_in(cfg, at, before):
            if at in fixed:
                break
            return at
        if isinstance(layer, Route):
            if len(layer.sources) > 1 or layer.groups > 1:
                break
            at = layer.sources[0]
        elif isinstance(layer, Convolutional | Dropout | MaxPool | Upsample | Shortcut):
            at -= 1
        else:
            break
    problem = f"with width={width} its two sides have different channels. Choose another width."
    raise LayerError(index, cfg.layers[index], problem)


def _rounded(filters: float | int, groups: int) -> int:
    multiple = math.lcm(MULTIPLE, groups)
    return max(multiple, round(filters / multiple) * multiple)


@dataclass(frozen=True)
class _Run:
    """`count` equal residual blocks of `length` layers, the first of which begins at layer `start`."""

    start: int
    length: int
    count: int


def _deeper(cfg: Cfg, depth: float | int) -> Cfg:
    runs = _runs(cfg)
    if not runs:
        raise UserError(f"depth={depth}: no two equal residual blocks follow each other in this cfg. Use depth 1.")
    layers: list[Layer] = []
    place: dict[int, int] = {-1: -1}  # old layer -> new layer
    at = 0
    while at < len(cfg.layers):
        run = next((run for run in runs if run.start == at), None)
        if run is None:
            layers.append(_moved(cfg.layers[at], place))
            place[at] = len(layers) - 1
            at += 1
            continue
        for _ in range(max(1, round(run.count * depth))):
            first, entry = len(layers), len(layers) - 1
            inside = place | {run.start - 1: entry} | {run.start + i: first + i for i in range(run.length)}
            layers += [_moved(layer, inside) for layer in cfg.layers[at : at + run.length]]
            if len(layers) > MOST_LAYERS:
                raise UserError(f"depth={depth}: more than {MOST_LAYERS} layers. Choose a smaller depth.")
        at += run.length * run.count
        place[at - 1] = len(layers) - 1
    return _checked(replace(cfg, layers=tuple(layers)))


def _moved(layer: Layer, place: dict[int, int]) -> Layer:
    if isinstance(layer, Shortcut | Route):
        return replace(layer, sources=tuple(place[source] for source in layer.sources))
    return layer


def _runs(cfg: Cfg) -> list[_Run]:
    """Maximal runs of at least two equal blocks, each ending in a shortcut from right before it.

    A block that a layer outside of it and its successor reads from ends its run, so that none loses its source.
    """
    found: list[_Run] = []
    blocks = [block for index in range(len(cfg.layers)) if (block := _block(cfg, index))]
    at = 0
    while at < len(blocks):
        start, length = blocks[at]
        count = 1
        while at + count < len(blocks) and _continues(cfg, start, length, count, blocks[at + count]):
            count += 1
        if count > 1:
            found.append(_Run(start, length, count))
        at += count
    return found


def _block(cfg: Cfg, index: int) -> tuple[int, int] | None:
    """Start and length of the residual block that ends in layer `index`: a straight line, read from nowhere else."""
    layer = cfg.layers[index]
    if not isinstance(layer, Shortcut) or len(layer.sources) != 1:
        return None
    start = layer.sources[0] + 1
    inner = cfg.layers[start:index]
    if not inner or any(isinstance(part, Route | Shortcut | YoloHead) for part in inner):
        return None
    read = {s for other in cfg.layers if isinstance(other, Shortcut | Route) for s in other.sources}
    return None if read & set(range(start, index)) else (start, index + 1 - start)


def _continues(cfg: Cfg, start: int, length: int, count: int, block: tuple[int, int]) -> bool:
    end = start + length * count
    if block != (end, length):
        return False
    first, other = cfg.layers[start : start + length], cfg.layers[end : end + length]
    readers = [
        index
        for index, layer in enumerate(cfg.layers)
        if isinstance(layer, Shortcut | Route) and end - 1 in layer.sources and index != end + length - 1
    ]
    alike = first[:-1] == other[:-1]
    last, mine = first[-1], other[-1]
    assert isinstance(last, Shortcut) and isinstance(mine, Shortcut)
    return alike and last.activation == mine.activation and not readers
