"""What a Darknet cfg describes: its layers as frozen dataclasses, and the shapes that follow from them.

Nothing here reads files or allocates arrays. `shapes` checks a whole network, so that one that is impossible or
absurdly large is refused before anything is made of it. Sources of routes and shortcuts are absolute layer indices.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from jkd.errors import UserError, some

ACTIVATIONS = ("linear", "leaky", "relu", "relu6", "mish", "swish", "logistic")

# Far above any published detector (yolov4-p7: 288 million weights, 2,000 channels at 1536x1536), far below any harm.
MOST_LAYERS = 2048
MOST_CHANNELS = 2**15
MOST_PIXELS = 2**13  # a side
MOST_SOURCES = 64
MOST_WEIGHTS = 2**29
MOST_VALUES = 2**28  # of one layer's output for one image
MOST_VALUES_IN_ALL = 2**33

Shape = tuple[int, int, int]
Options = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Net:
    """The input, in pixels and channels; `options` are the other lines of `[net]`, of which none shapes the network."""

    height: int
    width: int
    channels: int
    options: Options = ()


@dataclass(frozen=True)
class Convolutional:
    """Convolution with a bias, or with BatchNorm in its place; `padding` pixels of zeros on every side."""

    filters: int
    size: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    dilation: int = 1
    batch_normalize: bool = False
    activation: str = "logistic"
    options: Options = ()


@dataclass(frozen=True)
class Shortcut:
    """Adds the outputs of `sources` to the input. A source with more or fewer channels joins in the first it shares."""

    sources: tuple[int, ...]
    activation: str = "linear"


@dataclass(frozen=True)
class Route:
    """Concatenates channels of `sources`: of each, part `group_id` of `groups` equal parts."""

    sources: tuple[int, ...]
    groups: int = 1
    group_id: int = 0


@dataclass(frozen=True)
class Upsample:
    """Nearest neighbour, `stride` times as large, times `scale`."""

    stride: int
    scale: float = 1.0


@dataclass(frozen=True)
class MaxPool:
    """Largest of `size` x `size`; `padding` is the sum of both sides, of which the first gets the smaller half."""

    size: int
    stride: int
    padding: int


@dataclass(frozen=True)
class AvgPool:
    """Average over the whole map."""


@dataclass(frozen=True)
class Dropout:
    """Zeroes a share `probability` of the units in training."""

    probability: float


@dataclass(frozen=True)
class YoloHead:
    """What the rows of the map before it mean: A = len(mask) boxes a cell, each of 4 + 1 + classes numbers.

    Attributes:
      mask: which of `anchors` this head uses.
      anchors: all of them, width and height in pixels of the input.
      classes: number of classes.
      scale_x_y: stretch of the centre's sigmoid about 1/2 (YOLOv4; 1 is none).
      new_coords: whether the convolution before has applied the sigmoid and sizes are (2 t)^2 (scaled YOLOv4).
      options: the other lines, of which none shapes the network.
    """

    mask: tuple[int, ...]
    anchors: tuple[tuple[float, float], ...]
    classes: int
    scale_x_y: float = 1.0
    new_coords: bool = False
    options: Options = ()


Layer = Convolutional | Shortcut | Route | Upsample | MaxPool | AvgPool | Dropout | YoloHead

NAMES: dict[type, str] = {
    Convolutional: "convolutional",
    Shortcut: "shortcut",
    Route: "route",
    Upsample: "upsample",
    MaxPool: "maxpool",
    AvgPool: "avgpool",
    Dropout: "dropout",
    YoloHead: "yolo",
}


@dataclass(frozen=True)
class Cfg:
    """A network. Hashable, so that it can be an attribute of a module."""

    net: Net
    layers: tuple[Layer, ...]

    @property
    def heads(self) -> tuple[YoloHead, ...]:
        """The yolo layers, in the order of the file."""
        return tuple(layer for layer in self.layers if isinstance(layer, YoloHead))

    def at_size(self, height: int, width: int) -> "Cfg":
        """The same network for images of another size."""
        return dataclasses.replace(self, net=dataclasses.replace(self.net, height=height, width=width))


class LayerError(UserError):
    """What is wrong with one layer; `index` says which, counted from 0 as Darknet counts."""

    def __init__(self, index: int, layer: Layer, problem: str) -> None:
        super().__init__(f"layer {index} [{NAMES[type(layer)]}]: {problem}")
        self.index = index


def shapes(cfg: Cfg) -> tuple[Shape, ...]:
    """Output height, width and channels of every layer.

    Raises:
      LayerError: the first layer that does not fit, with what was expected and what came.
      UserError: there is no yolo layer, or the network as a whole is too large.
    """
    net = cfg.net
    for what, value, most in (
        ("height", net.height, MOST_PIXELS),
        ("width", net.width, MOST_PIXELS),
        ("channels", net.channels, MOST_CHANNELS),
    ):
        if not 1 <= value <= most:
            raise UserError(f"[net] {what}={value}: expected 1 to {most}.")
    if len(cfg.layers) > MOST_LAYERS:
        raise UserError(f"{len(cfg.layers)} layers: expected {MOST_LAYERS} at most.")
    if not cfg.heads:
        raise UserError("no [yolo] layer: expected a detector with at least one.")
    found: list[Shape] = []
    weights = values = 0
    for index, layer in enumerate(cfg.layers):
        shape = _shape(cfg, index, found)
        weights += sum(count for _, count in weight_counts(layer, channels_in(cfg, index, found)))
        values += _volume(shape)
        if shape[2] > MOST_CHANNELS or _volume(shape) > MOST_VALUES or values > MOST_VALUES_IN_ALL:
            raise LayerError(index, layer, f"its output {_text(shape)} is too large. Check filters, stride and input.")
        if weights > MOST_WEIGHTS:
            raise LayerError(index, layer, f"{weights:,} weights up to here: expected {MOST_WEIGHTS:,} at most.")
        found.append(shape)
    return tuple(found)


def channels_in(cfg: Cfg, index: int, found: list[Shape] | tuple[Shape, ...]) -> int:
    """Channels of the map that enters a layer from the one before it."""
    return found[index - 1][2] if index else cfg.net.channels


def weight_counts(layer: Layer, inputs: int) -> list[tuple[str, int]]:
    """What a weights file holds for a layer, in its order: name and how many float32."""
    if not isinstance(layer, Convolutional):
        return []
    names = ["biases", "scales", "means", "variances"] if layer.batch_normalize else ["biases"]
    kernel = layer.filters * (inputs // layer.groups) * layer.size**2
    return [(name, layer.filters) for name in names] + [("kernel", kernel)]


def _shape(cfg: Cfg, index: int, found: list[Shape]) -> Shape:
    layer = cfg.layers[index]

    def refuse(problem: str) -> NoReturn:
        raise LayerError(index, layer, problem)

    if isinstance(layer, Shortcut | Route):
        _check_sources(cfg, layer.sources, index, refuse)
    if isinstance(layer, Route):
        return _route(layer, found, refuse)
    if index and isinstance(cfg.layers[index - 1], YoloHead):
        refuse("it follows a [yolo] layer, whose output is for no layer. Put a [route] between them.")
    before = found[index - 1] if index else (cfg.net.height, cfg.net.width, cfg.net.channels)
    if isinstance(layer, Convolutional):
        return _convolution(layer, before, refuse)
    if isinstance(layer, Shortcut):
        for source in layer.sources:
            if found[source][:2] != before[:2]:
                refuse(f"layer {source} is {_text(found[source])}: expected the size of its input, {_text(before)}.")
        return before
    if isinstance(layer, Upsample):
        if not 1 <= layer.stride <= 64:
            refuse(f"stride={layer.stride}: expected 1 to 64.")
        return before[0] * layer.stride, before[1] * layer.stride, before[2]
    if isinstance(layer, MaxPool):
        if layer.size < 1 or layer.stride < 1 or not 0 <= layer.padding < 2 * layer.size:
            refuse(f"size={layer.size}, stride={layer.stride}, padding={layer.padding}: expected sensible numbers.")
        height, width = (_steps(side + layer.padding, layer.size, layer.stride, before, refuse) for side in before[:2])
        return height, width, before[2]
    if isinstance(layer, AvgPool):
        return 1, 1, before[2]
    if isinstance(layer, Dropout):
        if not 0 <= layer.probability < 1:
            refuse(f"probability={layer.probability}: expected at least 0 and below 1.")
        return before
    return _head(cfg, layer, index, before, refuse)


def _check_sources(cfg: Cfg, sources: tuple[int, ...], index: int, refuse: Callable[[str], NoReturn]) -> None:
    if not 1 <= len(sources) <= MOST_SOURCES:
        refuse(f"{len(sources)} layers as sources: expected 1 to {MOST_SOURCES}.")
    for source in sources:
        if not 0 <= source < index:
            refuse(f"layer {source} as a source: expected one before it, 0 to {index - 1}.")
        if isinstance(cfg.layers[source], YoloHead):
            refuse(f"layer {source} as a source is [yolo], whose output is for no layer.")


def _route(layer: Route, found: list[Shape], refuse: Callable[[str], NoReturn]) -> Shape:
    parts = [found[source] for source in layer.sources]
    if any(part[:2] != parts[0][:2] for part in parts):
        maps = some([f"layer {source} {_text(part)}" for source, part in zip(layer.sources, parts, strict=True)])
        refuse(f"maps of one size expected, but they are {maps}.")
    if layer.groups < 1 or not 0 <= layer.group_id < layer.groups:
        refuse(f"group_id={layer.group_id} of groups={layer.groups}: expected 0 to groups - 1.")
    odd = [source for source, part in zip(layer.sources, parts, strict=True) if part[2] % layer.groups]
    if odd:
        refuse(f"groups={layer.groups} does not divide the {found[odd[0]][2]} channels of layer {odd[0]}.")
    return parts[0][0], parts[0][1], sum(part[2] for part in parts) // layer.groups


def _convolution(layer: Convolutional, before: Shape, refuse: Callable[[str], NoReturn]) -> Shape:
    if not 1 <= layer.filters <= MOST_CHANNELS:
        refuse(f"filters={layer.filters}: expected 1 to {MOST_CHANNELS}.")
    if not 1 <= layer.size <= 64 or not 1 <= layer.stride <= 64 or not 1 <= layer.dilation <= 64:
        refuse(f"size={layer.size}, stride={layer.stride}, dilation={layer.dilation}: expected 1 to 64 each.")
    if not 0 <= layer.padding <= layer.size:
        refuse(f"padding={layer.padding}: expected 0 to its size, {layer.size}.")
    if layer.groups < 1 or before[2] % layer.groups or layer.filters % layer.groups:
        refuse(
            f"groups={layer.groups} does not divide both its {before[2]} input channels and {layer.filters} filters."
        )
    _check_activation(layer.activation, refuse)
    reach, padding = layer.dilation * (layer.size - 1) + 1, 2 * layer.padding * layer.dilation
    height, width = (_steps(side + padding, reach, layer.stride, before, refuse) for side in before[:2])
    return height, width, layer.filters


def _head(cfg: Cfg, layer: YoloHead, index: int, before: Shape, refuse: Callable[[str], NoReturn]) -> Shape:
    if not index or not isinstance(cfg.layers[index - 1], Convolutional):
        refuse("expected a [convolutional] layer right before it.")
    if not 1 <= layer.classes <= MOST_CHANNELS:
        refuse(f"classes={layer.classes}: expected 1 to {MOST_CHANNELS}.")
    if not layer.mask or len(layer.mask) > MOST_SOURCES or any(not 0 <= m < len(layer.anchors) for m in layer.mask):
        refuse(f"mask={some([str(m) for m in layer.mask])}: expected indices of its {len(layer.anchors)} anchors.")
    if any(not 0 < side < 1e6 for anchor in layer.anchors for side in anchor):
        refuse("an anchor's side is not a number of pixels above 0.")
    if not 0 < layer.scale_x_y < 100:
        refuse(f"scale_x_y={layer.scale_x_y}: expected above 0, usually 1 to 2.")
    expected = len(layer.mask) * (5 + layer.classes)
    if before[2] != expected:
        refuse(
            f"{len(layer.mask)} anchors and {layer.classes} classes need {expected} input channels, but layer "
            f"{index - 1} has {before[2]}. Set its filters, or mask and classes here."
        )
    return before


def _check_activation(activation: str, refuse: Callable[[str], NoReturn]) -> None:
    if activation not in ACTIVATIONS:
        refuse(f"activation={activation}: expected one of {', '.join(ACTIVATIONS)}.")


def _steps(padded: int, size: int, stride: int, before: Shape, refuse: Callable[[str], NoReturn]) -> int:
    if padded < size:
        refuse(f"a window of {size} does not fit its input {_text(before)}, {padded} with padding.")
    return (padded - size) // stride + 1


def _volume(shape: Shape) -> int:
    return shape[0] * shape[1] * shape[2]


def _text(shape: Shape) -> str:
    return "x".join(str(side) for side in shape)
