"""Networks as Linen modules that return `(logits, taps)`.

    logits, taps = module.apply(variables, images, train=False, keys=None)

`images` are normalised floats `[B, H, W, C]`; `logits` float32 `[B, classes]`; `taps` named activations, of
which `taps["embedding"]`, float32 `[B, D]`, always exists. Taps nobody reads cost nothing: XLA deletes them.
Parameters are float32 whatever the compute type. `keys` are one dropout key per sample, needed in training
where dropout is on. With `train=True` and BatchNorm, pass `mutable=["batch_stats"]` and keep the statistics
that come back.

A model knows nothing of teachers, students, losses or data sets.
"""

import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from jkd.errors import UserError, did_you_mean
from jkd.models.mlp import Mlp
from jkd.models.vgg import STAGES, CifarVgg, TorchvisionVgg, channels_of

__all__ = ["CifarVgg", "Mlp", "TorchvisionVgg", "build_model"]


def build_model(network: ConfigDict, classes: int, axis: str | None = None) -> nn.Module:
    """The module that `config.teacher` or a student of `config.students` describes.

    `axis` names the devices that BatchNorm averages over under `pmap`.

    Raises:
      UserError: for an unknown model or layout.
    """
    dtype = jnp.dtype(network.dtype)
    if network.model == "mlp":
        return Mlp(classes, network.width, network.depth, network.batch_norm, network.dropout, dtype, axis)
    if network.model not in STAGES:
        raise UserError(f"model: unknown '{network.model}'.{did_you_mean(network.model, ['mlp', *STAGES])}")
    stages, channels = STAGES[network.model], channels_of(network.width)
    if network.layout == "cifar":
        return CifarVgg(classes, stages, channels, network.dropout, dtype, axis)
    if network.layout == "torchvision":
        hidden = 64 * network.width  # 4096 at the published width
        return TorchvisionVgg(
            classes, stages, channels, hidden, network.batch_norm, 0.5 if network.dropout else 0.0, dtype, axis
        )
    raise UserError(f"layout: unknown '{network.layout}'.{did_you_mean(network.layout, ['cifar', 'torchvision'])}")
