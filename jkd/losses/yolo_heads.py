"""What a YOLO network's raw outputs mean. It stands among the losses because they need it and may import nothing else.

Raw heads are a tuple of float32 `[B, h, w, A, 5 + C]`: tx, ty, tw, th, objectness logit, C class logits. Flattened,
all heads of an image are N rows, in the order (head, row, column, anchor).

References: Redmon, Farhadi 2018, arXiv 1804.02767 (YOLOv3); Bochkovskiy, Wang, Liao 2020, arXiv 2004.10934 (YOLOv4,
`scale_x_y`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jkd.losses.boxes import from_centre

LARGEST_LOG = 8.0  # tw and th above it count as it: a box of 2981 anchors, where exp would go on to infinity
NEAR_ZERO = 1e-7  # least distance of a probability from 0 and 1 when its logit is taken


@dataclass(frozen=True)
class Head:
    """One output map.

    Attributes:
      anchors: width and height of each, in pixels of the network's input.
      stride: pixels of the input per cell.
      scale_x_y: how far a centre may leave its cell: sigmoid times it, around the cell's centre. 1 is YOLOv3.
      new_coords: all raw values have gone through a sigmoid already, and sizes are (2 t)^2 anchor (scaled YOLOv4).
    """

    anchors: tuple[tuple[float, float], ...]
    stride: int
    scale_x_y: float = 1.0
    new_coords: bool = False


@dataclass(frozen=True)
class Heads:
    """All heads of a network, in the order of its outputs. Hashable: a static argument of a jitted function.

    Attributes:
      heads: one per output.
      classes: C.
    """

    heads: tuple[Head, ...]
    classes: int

    def size(self, raw: Sequence[Float[Array, "b _ _ _ _"]]) -> tuple[int, int]:
        """Height and width of the input that gave these raw heads, in pixels.

        Raises:
          ValueError: the outputs are not those of such heads: their number, anchors, classes or sizes differ.
        """
        shapes = [output.shape[1:] for output in raw]
        sizes = {
            (shape[0] * head.stride, shape[1] * head.stride) for shape, head in zip(shapes, self.heads, strict=False)
        }
        wanted = [(len(head.anchors), 5 + self.classes) for head in self.heads]
        if [shape[2:] for shape in shapes] != wanted or len(sizes) != 1:
            raise ValueError(
                f"raw heads: expected (anchors, 5 + classes) of {wanted} at strides "
                f"{[head.stride for head in self.heads]}, got maps of {shapes} (height, width, anchors, 5 + classes)"
            )
        return sizes.pop()


@runtime_checkable
class DarknetLayer(Protocol):
    """The lines of a cfg's `[yolo]` section that give its output meaning; `mask` picks from `anchors`."""

    @property
    def mask(self) -> tuple[int, ...]: ...
    @property
    def anchors(self) -> tuple[tuple[float, float], ...]: ...
    @property
    def classes(self) -> int: ...
    @property
    def scale_x_y(self) -> float: ...
    @property
    def new_coords(self) -> bool: ...


def describe(layers: Sequence[DarknetLayer], strides: Sequence[int]) -> Heads:
    """The heads of a Darknet network from its `[yolo]` layers, each with the stride of its map.

    Raises:
      ValueError: no layer, layers that disagree about the number of classes, or not one stride for each.
    """
    if len({layer.classes for layer in layers}) != 1 or len(strides) != len(layers):
        raise ValueError(
            f"yolo layers: expected at least one, all of the same classes, and a stride for each; got classes "
            f"{[layer.classes for layer in layers]} and strides {list(strides)}"
        )
    heads = [
        Head(tuple(layer.anchors[at] for at in layer.mask), stride, layer.scale_x_y, layer.new_coords)
        for layer, stride in zip(layers, strides, strict=True)
    ]
    return Heads(tuple(heads), layers[0].classes)


class Rows(NamedTuple):
    """Raw heads as rows. Boxes are `x1, y1, x2, y2` in pixels; they may reach out of the image."""

    boxes: Float[Array, "b n 4"]
    objectness: Float[Array, "b n"]  # logits
    classes: Float[Array, "b n c"]  # logits


class Decoded(NamedTuple):
    """What a network says of an image. `objectness[..., None] * classes` are the scores of detections."""

    boxes: Float[Array, "b n 4"]  # x1, y1, x2, y2, pixels, not clipped
    objectness: Float[Array, "b n"]  # in [0, 1]
    classes: Float[Array, "b n c"]  # in [0, 1], each class for itself


class Cells(NamedTuple):
    """Where each of the N rows comes from, as constants."""

    head: np.ndarray  # int32 [N]
    row: np.ndarray  # int32 [N]
    column: np.ndarray  # int32 [N]
    anchor: np.ndarray  # float32 [N, 2], pixels
    stride: np.ndarray  # float32 [N]


def rows(raw: Sequence[Float[Array, "b _ _ _ _"]], description: Heads) -> Rows:
    """Decoded boxes, and the logits as they are; what losses start from.

    x = (sigmoid(tx) s - (s - 1) / 2 + column) stride, width = exp(tw) anchor, and y and height alike, s = scale_x_y.

    Raises:
      ValueError: the outputs are not those of such heads.
    """
    description.size(raw)
    each = [_rows(output.astype(jnp.float32), head) for output, head in zip(raw, description.heads, strict=True)]
    return Rows(*(jnp.concatenate(parts, axis=1) for parts in zip(*each, strict=True)))


def decode(raw: Sequence[Float[Array, "b _ _ _ _"]], description: Heads, size: tuple[int, int]) -> Decoded:
    """Boxes, objectness and class probabilities, as Darknet decodes them.

    Args:
      raw: the network's outputs.
      description: what they mean.
      size: height and width of the network's input, in pixels.

    Raises:
      ValueError: the outputs are not those of such heads on an input of that size.
    """
    if description.size(raw) != tuple(size):
        raise ValueError(f"raw heads: these belong to an input of {description.size(raw)} pixels, not of {size}")
    boxes, objectness, classes = rows(raw, description)
    return Decoded(boxes, jax.nn.sigmoid(objectness), jax.nn.sigmoid(classes))


def cells(description: Heads, size: tuple[int, int]) -> Cells:
    """Head, row, column, anchor and stride of each of the N rows for an input of `size` (height, width)."""
    parts = []
    for index, head in enumerate(description.heads):
        shape = (size[0] // head.stride, size[1] // head.stride, len(head.anchors))
        row, column, which = (grid.reshape(-1).astype(np.int32) for grid in np.indices(shape))
        anchors = np.asarray(head.anchors, np.float32).reshape(-1, 2)[which]
        parts.append((np.full_like(row, index), row, column, anchors, np.full(row.shape, head.stride, np.float32)))
    return Cells(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _rows(output: Float[Array, "b h w a k"], head: Head) -> Rows:
    batch, height, width, anchors, _ = output.shape
    row, column = (jnp.asarray(grid, jnp.float32) for grid in np.indices((height, width)))
    corner = jnp.stack([column, row], axis=-1)[None, :, :, None, :]
    shapes = jnp.asarray(head.anchors, jnp.float32).reshape(1, 1, 1, anchors, 2)
    place, extent, logits = output[..., :2], output[..., 2:4], output[..., 4:]
    if head.new_coords:
        extent, logits = (2 * extent) ** 2, jax.scipy.special.logit(jnp.clip(logits, NEAR_ZERO, 1 - NEAR_ZERO))
    else:
        place, extent = jax.nn.sigmoid(place), jnp.exp(jnp.minimum(extent, LARGEST_LOG))
    centre = (place * head.scale_x_y - (head.scale_x_y - 1) / 2 + corner) * head.stride
    boxes = from_centre(jnp.concatenate([centre, extent * shapes], axis=-1))
    many = height * width * anchors
    return Rows(
        boxes.reshape(batch, many, 4), logits[..., 0].reshape(batch, many), logits[..., 1:].reshape(batch, many, -1)
    )
