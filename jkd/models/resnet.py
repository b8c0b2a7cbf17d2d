"""Residual networks (He et al. 2015, arXiv:1512.03385), and wide ones (Zagoruyko and Komodakis 2016, arXiv:1605.07146).

Names are the field's. For small images: `resnet8` ... `resnet110` of 6 n + 2 layers, `resnet8x4` and `resnet32x4` four
times as wide, `wrn_16_2` of 6 n + 4 layers and twice the width. For large ones: `resnet18` to `resnet152`.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from jkd.models.layers import Conv, batch_norm, dropout, max_pool_3x3


@dataclass(frozen=True)
class Shape:
    """Blocks of each stage, and channels of the stem and the stages as multiples of the config's `width`."""

    blocks: tuple[int, ...]
    stem: int
    stages: tuple[int, ...]
    bottleneck: bool = False
    wide: bool = False


def _small(layers: int, times: int = 1) -> Shape:
    return Shape(((layers - 2) // 6,) * 3, max(1, times // 2), (times, 2 * times, 4 * times))


def _wide(layers: int, times: int) -> Shape:
    return Shape(((layers - 4) // 6,) * 3, 1, (times, 2 * times, 4 * times), wide=True)


def _large(*blocks: int, bottleneck: bool = False) -> Shape:
    return Shape(blocks, 1, (1, 2, 4, 8), bottleneck)


# At the published width: 16 for small images, 64 for large ones.
RESNETS: dict[str, Shape] = {
    **{f"resnet{layers}": _small(layers) for layers in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{layers}x4": _small(layers, 4) for layers in (8, 32)},
    **{
        f"wrn_{layers}_{times}": _wide(layers, times)
        for layers, times in ((16, 1), (16, 2), (40, 1), (40, 2), (28, 10))
    },
    "resnet18": _large(2, 2, 2, 2),
    "resnet34": _large(3, 4, 6, 3),
    "resnet50": _large(3, 4, 6, 3, bottleneck=True),
    "resnet101": _large(3, 4, 23, 3, bottleneck=True),
    "resnet152": _large(3, 8, 36, 3, bottleneck=True),
}
EXPANSION = 4  # a bottleneck's output is so many times wider than its stage


class ResNet(nn.Module):
    """Residual blocks of two 3x3 convolutions, or bottlenecks, with BatchNorm; global average; one dense layer.

    The stem is a 3x3 convolution, or, if `large`, one of 7x7 with stride 2 and a 3x3 max pooling. Every stage but the
    first halves the size in the 3x3 convolution of its first block, whose shortcut is a 1x1 convolution, as published
    weights have it (the paper's CIFAR networks pad with zeros). Convolutions have no bias and start He-normal (fan
    out).

    Taps: `stage0` the stem, `stage1` ... the stages, after their last ReLU and before pooling, `[B, h, w, c]`;
    `preact0` ... the same before that ReLU; `embedding` float32 `[B, c]`, the global average.
    """

    classes: int
    blocks: tuple[int, ...]
    stem: int
    channels: tuple[int, ...]
    bottleneck: bool = False
    large: bool = False
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.dtype(jnp.float32)
    axis: str | None = None

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], train: bool = False, keys: Key[Array, " b"] | None = None
    ) -> tuple[Float[Array, "b k"], dict[str, Float[Array, "b ..."]]]:
        """Returns float32 logits `[B, classes]` and the taps."""
        size, stride = (7, 2) if self.large else (3, 1)
        x = _conv(self.dtype, self.stem, size, stride, "stem_conv")(images)
        taps = {"preact0": batch_norm(x, "stem_norm", train, self.axis)}
        x = taps["stage0"] = nn.relu(taps["preact0"])
        x = max_pool_3x3(x) if self.large else x
        for stage, blocks in enumerate(self.blocks):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                before = self._block(x, self.channels[stage], stride, f"stage{stage}_block{block}", train)
                x = nn.relu(before)
            taps[f"preact{stage + 1}"], taps[f"stage{stage + 1}"] = before, x
        embedding = taps["embedding"] = x.astype(jnp.float32).mean(axis=(1, 2))
        x = dropout(embedding, self.dropout if train else 0.0, keys, 0)
        return nn.Dense(self.classes, dtype=self.dtype, name="classifier")(x).astype(jnp.float32), taps

    def _block(
        self, x: Float[Array, "b h w i"], channels: int, stride: int, name: str, train: bool
    ) -> Float[Array, "b h2 w2 o"]:
        """What the block's last ReLU is given."""
        out = channels * (EXPANSION if self.bottleneck else 1)
        plan: tuple[tuple[int, int, int], ...] = ((channels, 3, stride), (out, 3, 1))
        if self.bottleneck:
            plan = ((channels, 1, 1), (channels, 3, stride), (out, 1, 1))
        y = x
        for layer, (width, size, step) in enumerate(plan):
            y = nn.relu(y) if layer else y
            y = _conv(self.dtype, width, size, step, f"{name}_conv{layer}")(y)
            y = batch_norm(y, f"{name}_norm{layer}", train, self.axis)
        if stride > 1 or x.shape[-1] != out:
            x = _conv(self.dtype, out, 1, stride, f"{name}_short_conv")(x)
            x = batch_norm(x, f"{name}_short_norm", train, self.axis)
        return x + y


class WideResNet(nn.Module):
    """Residual blocks that begin with BatchNorm and ReLU; global average; one dense layer.

    The shortcut of a block that changes the width is a 1x1 convolution of what its first ReLU gives. Convolutions have
    no bias and start He-normal (fan out); `dropout` is between a block's two, as published.

    Taps: `stage0` the stem, `stage1` ... the stages' sums `[B, h, w, c]`; `preact1` ... what the BatchNorm behind them
    makes of these, before its ReLU; `embedding` float32 `[B, c]`, the global average.
    """

    classes: int
    blocks: tuple[int, ...]
    stem: int
    channels: tuple[int, ...]
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.dtype(jnp.float32)
    axis: str | None = None

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], train: bool = False, keys: Key[Array, " b"] | None = None
    ) -> tuple[Float[Array, "b k"], dict[str, Float[Array, "b ..."]]]:
        """Returns float32 logits `[B, classes]` and the taps."""
        x = _conv(self.dtype, self.stem, 3, 1, "stem_conv")(images)
        taps, layer = {"stage0": x}, 0
        for stage, blocks in enumerate(self.blocks):
            for block in range(blocks):
                name, out, stride = f"stage{stage}_block{block}", self.channels[stage], 2 if stage and not block else 1
                normed = batch_norm(x, f"{name}_norm0", train, self.axis)
                if stage and not block:
                    taps[f"preact{stage}"] = normed
                y = nn.relu(normed)
                if x.shape[-1] != out:
                    x = _conv(self.dtype, out, 1, stride, f"{name}_short_conv")(y)
                y = _conv(self.dtype, out, 3, stride, f"{name}_conv0")(y)
                y = nn.relu(batch_norm(y, f"{name}_norm1", train, self.axis))
                y = dropout(y, self.dropout if train else 0.0, keys, layer)
                x, layer = x + _conv(self.dtype, out, 3, 1, f"{name}_conv1")(y), layer + 1
            taps[f"stage{stage + 1}"] = x
        last = taps[f"preact{len(self.blocks)}"] = batch_norm(x, "last_norm", train, self.axis)
        embedding = taps["embedding"] = nn.relu(last).astype(jnp.float32).mean(axis=(1, 2))
        return nn.Dense(self.classes, dtype=self.dtype, name="classifier")(embedding).astype(jnp.float32), taps


def _conv(dtype: jnp.dtype, features: int, size: int, stride: int, name: str) -> Conv:
    """A convolution without bias; to be made in a compact method."""
    return Conv(features, size, stride, False, dtype, name=name)


def build_resnet(
    name: str, classes: int, width: int, large: bool, dropout: float, dtype: jnp.dtype, axis: str | None
) -> ResNet | WideResNet:
    """The network of a name in `RESNETS` whose narrowest stage has `width` times its factor of channels."""
    shape = RESNETS[name]
    stem, channels = width * shape.stem, tuple(width * times for times in shape.stages)
    if shape.wide:
        return WideResNet(classes, shape.blocks, stem, channels, dropout, dtype, axis)
    return ResNet(classes, shape.blocks, stem, channels, shape.bottleneck, large, dropout, dtype, axis)
