"""VGG (Simonyan and Zisserman 2014, arXiv:1409.1556) in the two layouts whose weights people have."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from jkd.errors import UserError
from jkd.models.layers import Conv, adaptive_average_pool, batch_norm, dropout, max_pool_2x2

# Convolutions per stage. vgg8 is not in the paper; it is the usual CIFAR student.
STAGES = {
    "vgg8": (1, 1, 1, 1, 1),
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}


def channels_of(width: int) -> tuple[int, ...]:
    """Channels of the five stages when the first has `width`; published: 64, 128, 256, 512, 512."""
    return (width, 2 * width, 4 * width, 8 * width, 8 * width)


class CifarVgg(nn.Module):
    """VGG for small images: convolution, BatchNorm and ReLU; global average; one dense layer.

    2x2 max pooling follows stages 0, 1 and 2, and stage 3 too where the image is 64 pixels high. Convolutions
    start He-normal (fan out), the dense layer LeCun-normal, biases at zero. Images have sides of at least 8
    pixels.
    Taps: `stage0` ... `stage4` `[B, h, w, c]` after the ReLU, before the pooling; `preact0` ... `preact4`, the same
    before the ReLU; `embedding` float32
    `[B, c]`, the global average.
    """

    classes: int
    stages: tuple[int, ...]
    channels: tuple[int, ...] = channels_of(64)
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.dtype(jnp.float32)
    axis: str | None = None

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], train: bool = False, keys: Key[Array, " b"] | None = None
    ) -> tuple[Float[Array, "b k"], dict[str, Float[Array, "b ..."]]]:
        """Returns float32 logits `[B, classes]` and the taps."""
        pooled = (0, 1, 2, 3) if images.shape[1] == 64 else (0, 1, 2)
        _check_size(images, 2 ** len(pooled))
        x, taps = images.astype(self.dtype), {}
        for stage in range(5):
            taps[f"preact{stage}"], x = _stage(self, x, stage, train, with_norm=True)
            taps[f"stage{stage}"] = x
            x = max_pool_2x2(x) if stage in pooled else x
        embedding = taps["embedding"] = x.astype(jnp.float32).mean(axis=(1, 2))
        x = dropout(embedding, self.dropout if train else 0.0, keys, 0)
        return nn.Dense(self.classes, dtype=self.dtype, name="classifier")(x).astype(jnp.float32), taps


class TorchvisionVgg(nn.Module):
    """VGG as ImageNet weights have it: five poolings, 7x7 average pooling, three dense layers.

    Convolutions start He-normal (fan out), dense layers LeCun-normal, biases at zero. Images have sides of at
    least 32 pixels. Taps: `stage0` ... and `preact0` ... as in `CifarVgg`; `hidden0` and `hidden1` `[B, hidden]`, the
    dense layers after their ReLU and before dropout; `embedding`, the second of them in float32.
    """

    classes: int
    stages: tuple[int, ...]
    channels: tuple[int, ...] = channels_of(64)
    hidden: int = 4096
    batch_norm: bool = False
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.dtype(jnp.float32)
    axis: str | None = None

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], train: bool = False, keys: Key[Array, " b"] | None = None
    ) -> tuple[Float[Array, "b k"], dict[str, Float[Array, "b ..."]]]:
        """Returns float32 logits `[B, classes]` and the taps."""
        _check_size(images, 32)
        x, taps = images.astype(self.dtype), {}
        for stage in range(5):
            taps[f"preact{stage}"], x = _stage(self, x, stage, train, with_norm=self.batch_norm)
            taps[f"stage{stage}"] = x
            x = max_pool_2x2(x)
        x = adaptive_average_pool(x, 7)
        x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)  # channels first, the order of the published weights
        for layer in range(2):
            x = nn.Dense(self.hidden, dtype=self.dtype, name=f"classifier{layer}")(x)
            x = taps[f"hidden{layer}"] = nn.relu(x)
            x = dropout(x, self.dropout if train else 0.0, keys, layer)
        taps["embedding"] = taps["hidden1"].astype(jnp.float32)
        return nn.Dense(self.classes, dtype=self.dtype, name="classifier2")(x).astype(jnp.float32), taps


def _stage(
    model: CifarVgg | TorchvisionVgg, x: Float[Array, "b h w i"], stage: int, train: bool, with_norm: bool
) -> tuple[Float[Array, "b h w o"], Float[Array, "b h w o"]]:
    """What the last ReLU of a stage is given, and what it makes of it."""
    for layer in range(model.stages[stage]):
        x = Conv(model.channels[stage], dtype=model.dtype, name=f"block{stage}_conv{layer}")(x)
        if with_norm:
            x = batch_norm(x, f"block{stage}_norm{layer}", train, model.axis)
        before, x = x, nn.relu(x)
    return before, x


def _check_size(images: Float[Array, "b h w c"], least: int) -> None:
    height, width = images.shape[1:3]
    if min(height, width) < least:
        raise UserError(
            f"model: this vgg makes images {least} times smaller, so they need {least} pixels a side, but "
            f"these are {height}x{width}. Set data.image_size to {least} or more, or use an mlp."
        )
