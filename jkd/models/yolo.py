"""YOLO as a Darknet cfg has it: any network of the families of YOLOv3 and YOLOv4.

YOLOv3: Redmon and Farhadi 2018, arXiv:1804.02767. YOLOv4: Bochkovskiy et al. 2020, arXiv:2004.10934.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Key

from jkd.errors import UserError
from jkd.models.convolution import convolve
from jkd.models.darknet import (
    AvgPool,
    Cfg,
    Convolutional,
    Dropout,
    Layer,
    MaxPool,
    Route,
    Shortcut,
    Upsample,
    YoloHead,
    shapes,
)
from jkd.models.layers import max_pool_2x2
from jkd.models.norm import BatchNorm

# To the variance, as OpenCV's importer; Darknet adds it to the deviation, its later releases 1e-5 to the variance.
EPSILON = 1e-6
OBJECTNESS = 0.01  # at the start: most cells have no object, and their loss should not drown that of the others

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "linear": lambda x: x,
    "leaky": lambda x: jnp.where(x > 0, x, x * jnp.asarray(0.1, x.dtype)),
    "relu": nn.relu,
    "relu6": nn.relu6,
    "mish": lambda x: x * jnp.tanh(nn.softplus(x)),
    "swish": nn.swish,
    "logistic": nn.sigmoid,
}

kernel_init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")  # He-normal, as Darknet but for the shape


class Yolo(nn.Module):
    """The network that a Darknet cfg describes.

    Layer i of the cfg has its parameters in `conv{i}` (`kernel` `[k, k, I / groups, O]`, and `bias` where it has no
    BatchNorm) and `norm{i}`. Kernels start He-normal (fan in); those right before a head normal with deviation 0.01,
    biases there at zero but for objectness, which starts at a probability of 0.01.

    BatchNorm has the epsilon of OpenCV's Darknet importer, 1e-6 (with the 1e-5 of Darknet's later releases, some large
    boxes of the published networks differ by 0.03 of the image), and Darknet's running share, 0.9 (its CPU code;
    cuDNN's is 0.99), but takes the biased variance of the batch, where Darknet divides by one less than the number of
    values.

    Taps: `neck{n}` `[B, h, w, c]`, the map that enters the last convolution of head n; `head{n}`, its raw output.

    Attributes:
      cfg: the network; images of another size than its own are fine where all maps still fit.
      dropout: whether the cfg's dropout layers drop in training.
      dtype: of the computation; parameters and heads are float32.
      axis: devices that BatchNorm averages over under `pmap`.
    """

    cfg: Cfg
    dropout: bool = True
    dtype: jnp.dtype = jnp.dtype(jnp.float32)
    axis: str | None = None

    @property
    def depth(self) -> int:
        """Heads: what terms over layers, such as `neck*`, count."""
        return len(self.cfg.heads)

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], train: bool = False, keys: Key[Array, " b"] | None = None
    ) -> tuple[tuple[Float[Array, "b _ _ _ _"], ...], dict[str, Float[Array, "b ..."]]]:
        """Returns raw heads, float32 `[B, h, w, A, 5 + C]` (tx, ty, tw, th, objectness, classes), and the taps.

        Args:
          images: 0 to 1, RGB, as they are.
          train: whether BatchNorm takes the batch's statistics and dropout drops.
          keys: one dropout key per sample, needed in training where the cfg has dropout.

        Raises:
          UserError: images of a size or number of channels for which the network makes no sense.
        """
        _check_images(self.cfg, images)
        x, found, heads, taps = images.astype(self.dtype), list[Array](), list[Array](), dict[str, Array]()
        kept = self._kept(images, keys) if train and self.dropout else {}
        for index, layer in enumerate(self.cfg.layers):
            if isinstance(layer, YoloHead):
                number = len(heads)
                rows = x.astype(jnp.float32).reshape(*x.shape[:3], len(layer.mask), 5 + layer.classes)
                heads.append(rows)
                taps[f"neck{number}"] = found[index - 2] if index > 1 else images
                taps[f"head{number}"] = rows
            else:
                x = _apply(self, index, layer, x, found, train, kept.get(index))
            found.append(x)
        return tuple(heads), taps

    def _kept(
        self, images: Float[Array, "b h w c"], keys: Key[Array, " b"] | None
    ) -> dict[int, Bool[Array, "b _ _ _"]]:
        """Which units each dropout layer keeps. All of a sample's in one draw: a draw each takes long to compile."""
        drops = {i: layer.probability for i, layer in enumerate(self.cfg.layers) if isinstance(layer, Dropout)}
        drops = {index: rate for index, rate in drops.items() if rate > 0}
        if not drops:
            return {}
        if keys is None:
            raise ValueError("this cfg's dropout needs one key per sample in training: pass keys=sample_keys(...)")
        found = shapes(self.cfg.at_size(*images.shape[1:3]))
        total = sum(math.prod(found[index]) for index in drops)
        words = jax.vmap(lambda key: jax.random.bits(key, (total,), jnp.uint16))(keys)
        kept, at = {}, 0
        for index, rate in drops.items():
            end = at + math.prod(found[index])
            # The least word that keeps; a share is exact to 1 in 65,536.
            kept[index] = (words[:, at:end] >= round(rate * 2**16)).reshape(-1, *found[index])
            at = end
        return kept


class _Conv(nn.Module):
    """Convolution with zero padding, and a bias where no norm follows."""

    layer: Convolutional
    head: YoloHead | None
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        layer, inputs = self.layer, x.shape[-1]
        init = nn.initializers.normal(0.01) if self.head else kernel_init
        shape = (layer.size, layer.size, inputs // layer.groups, layer.filters)
        kernel = self.param("kernel", init, shape, jnp.float32).astype(self.dtype)
        padding = layer.padding * layer.dilation
        x = convolve(x, kernel, layer.stride, padding, layer.dilation, layer.groups)
        if layer.batch_normalize:
            return x
        head = self.head
        bias_init = nn.initializers.zeros if head is None else lambda *_: head_bias(head)
        bias = self.param("bias", bias_init, (layer.filters,), jnp.float32)
        dtype = self.dtype if head is None else jnp.dtype(jnp.float32)  # a head's biases are too large for 16 bits
        return x.astype(dtype) + bias.astype(dtype).reshape(1, 1, 1, -1)


def head_bias(head: YoloHead) -> Float[Array, " o"]:
    """Where the biases of a head's convolution start: zero, and the logit of `OBJECTNESS`."""
    row = jnp.zeros((5 + head.classes,), jnp.float32).at[4].set(math.log(OBJECTNESS / (1 - OBJECTNESS)))
    return jnp.tile(row, len(head.mask))


def max_pool(x: Float[Array, "b h w c"], size: int, stride: int, padding: int) -> Float[Array, "b h2 w2 c"]:
    """Largest of each window; `padding` cells of minus infinity in all, the smaller half of them first, as Darknet.

    Rows, then columns, each by maxima of two maps that double the window: a gradient that adds in a fixed order, and
    far fewer operations than windows have cells.
    """
    if size == stride == 2 and padding <= 1 and not (x.shape[1] % 2 or x.shape[2] % 2):
        return max_pool_2x2(x)
    first = padding // 2
    for axis in (1, 2):
        edges = [(0, 0, 0)] * 4
        edges[axis] = (first, padding - first, 0)
        x = lax.pad(x, jnp.asarray(-jnp.inf, x.dtype), edges)
        x = _largest(x, size, axis)
        x = lax.slice_in_dim(x, 0, None, stride, axis)
    return x


def _largest(x: Float[Array, "b h w c"], size: int, axis: int) -> Float[Array, "b h2 w2 c"]:
    """Largest of `size` neighbours along an axis, stride 1, which is `size - 1` shorter then."""
    reach = 1
    while reach < size:
        step = min(reach, size - reach)
        length = x.shape[axis] - step
        x = jnp.maximum(lax.slice_in_dim(x, 0, length, 1, axis), lax.slice_in_dim(x, step, step + length, 1, axis))
        reach += step
    return x


def upsample(x: Float[Array, "b h w c"], stride: int) -> Float[Array, "b h2 w2 c"]:
    """Every cell `stride` times, in both directions."""
    b, height, width, channels = x.shape
    wide = jnp.broadcast_to(x[:, :, None, :, None], (b, height, stride, width, stride, channels))
    return wide.reshape(b, height * stride, width * stride, channels)


def _apply(
    model: Yolo, index: int, layer: Layer, x: Array, found: list[Array], train: bool, kept: Array | None
) -> Array:
    """Output of a layer from that of the one before, `x`, those of all before, `found`, and what dropout keeps."""
    if isinstance(layer, Convolutional):
        after = model.cfg.layers[index + 1 : index + 2]
        head = after[0] if after and isinstance(after[0], YoloHead) else None
        x = _Conv(layer, head, model.dtype, name=f"conv{index}")(x)
        if layer.batch_normalize:
            x = BatchNorm(EPSILON, axis=model.axis, name=f"norm{index}")(x, train)
        return ACTIVATIONS[layer.activation](x)
    if isinstance(layer, Shortcut):
        for source in layer.sources:
            x = _add(x, found[source])
        return ACTIVATIONS[layer.activation](x)
    if isinstance(layer, Route):
        return jnp.concatenate([_part(found[source], layer) for source in layer.sources], -1)
    if isinstance(layer, Upsample):
        x = upsample(x, layer.stride)
        return x if layer.scale == 1 else x * jnp.asarray(layer.scale, x.dtype)
    if isinstance(layer, MaxPool):
        return max_pool(x, layer.size, layer.stride, layer.padding)
    if isinstance(layer, AvgPool):
        return x.mean((1, 2), keepdims=True)
    assert isinstance(layer, Dropout)
    if kept is None:
        return x
    return jnp.where(kept, x / jnp.asarray(1 - layer.probability, x.dtype), jnp.zeros((), x.dtype))


def _add(x: Float[Array, "b h w c"], other: Float[Array, "b h w d"]) -> Float[Array, "b h w c"]:
    both, channels = min(x.shape[-1], other.shape[-1]), x.shape[-1]
    if both < channels:
        other = jnp.pad(other, ((0, 0), (0, 0), (0, 0), (0, channels - both)))
    return x + other[..., :channels]


def _part(x: Float[Array, "b h w c"], route: Route) -> Float[Array, "b h w d"]:
    channels = x.shape[-1] // route.groups
    return x[..., route.group_id * channels : (route.group_id + 1) * channels]


def _check_images(cfg: Cfg, images: Float[Array, "b h w c"]) -> None:
    height, width, channels = images.shape[1:]
    if channels != cfg.net.channels:
        raise UserError(f"model: this yolo takes images of {cfg.net.channels} channels, but these have {channels}.")
    if (height, width) != (cfg.net.height, cfg.net.width):
        try:
            shapes(cfg.at_size(height, width))
        except UserError as error:
            raise UserError(
                f"model: this yolo is for images of {cfg.net.height}x{cfg.net.width}, and those of {height}x{width} do "
                f"not fit: {error} Set the image size to a multiple of its largest stride, usually 32."
            ) from None
