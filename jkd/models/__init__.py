"""Networks as Linen modules that return `(logits, taps)`.

    logits, taps = module.apply(variables, inputs, train=False, keys=None)

`inputs` are images, normalised floats `[B, H, W, C]`, or texts, int32 token ids `[B, L]` filled up with the
module's `pad`; `logits` float32 `[B, classes]`; `taps` named activations, of which `taps["embedding"]`, float32
`[B, D]`, always exists. Taps nobody reads cost nothing: XLA deletes them.
Parameters are float32 whatever the compute type. `keys` are one dropout key per sample, needed in training
where dropout is on. With `train=True` and BatchNorm, pass `mutable=["batch_stats"]` and keep the statistics
that come back.

A model knows nothing of teachers, students, losses or data sets.
"""

import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from jkd.errors import UserError, did_you_mean
from jkd.models.bert import Bert
from jkd.models.bigru import BiGru
from jkd.models.fasttext import FastText
from jkd.models.mlp import Mlp
from jkd.models.resnet import RESNETS, ResNet, WideResNet, build_resnet
from jkd.models.vgg import STAGES, CifarVgg, TorchvisionVgg, channels_of

__all__ = [
    "DETECTORS",
    "TEXT_MODELS",
    "Bert",
    "BiGru",
    "CifarVgg",
    "FastText",
    "Mlp",
    "ResNet",
    "TorchvisionVgg",
    "WideResNet",
    "build_model",
]
LAYOUTS = ("cifar", "torchvision")
TEXT_MODELS = ("bert", "bigru", "fasttext")
DETECTORS = ("yolo",)  # made of a Darknet cfg: see `jkd.models.yolo`


def build_model(
    network: ConfigDict, classes: int, axis: str | None = None, vocab: int = 0, pad: int = 0, longest: int = 512
) -> nn.Module:
    """The module that `config.teacher` or a student of `config.students` describes.

    `axis` names the devices that BatchNorm averages over under `pmap`. `vocab` and `pad` are of the tokenizer, and
    `longest` is the longest text in tokens, for models of text.

    Raises:
      UserError: for an unknown model or layout.
    """
    dtype = jnp.dtype(network.dtype)
    if network.model == "mlp":
        return Mlp(classes, network.width, network.depth, network.batch_norm, network.dropout, dtype, axis)
    if network.model in TEXT_MODELS:
        return _text_model(network, classes, vocab, pad, longest)
    if network.model not in (*STAGES, *RESNETS):
        known = ["mlp", *STAGES, *RESNETS, *TEXT_MODELS]
        raise UserError(f"model: unknown '{network.model}'.{did_you_mean(network.model, known)}")
    if network.layout not in LAYOUTS:
        raise UserError(f"layout: unknown '{network.layout}'.{did_you_mean(network.layout, LAYOUTS)}")
    large = network.layout == "torchvision"
    if network.model in RESNETS:
        return build_resnet(network.model, classes, network.width, large, network.dropout, dtype, axis)
    stages, channels = STAGES[network.model], channels_of(network.width)
    if not large:
        return CifarVgg(classes, stages, channels, network.dropout, dtype, axis)
    hidden = 64 * network.width  # 4096 at the published width
    return TorchvisionVgg(
        classes, stages, channels, hidden, network.batch_norm, 0.5 if network.dropout else 0.0, dtype, axis
    )


def _text_model(network: ConfigDict, classes: int, vocab: int, pad: int, longest: int) -> nn.Module:
    if vocab < 1:
        raise UserError(f"model: '{network.model}' reads token ids, but the data are no texts. Use a resnet or vgg.")
    common = dict(
        classes=classes, width=network.width, dropout=network.dropout, pad=pad, dtype=jnp.dtype(network.dtype)
    )
    if network.model == "fasttext":
        return FastText(buckets=network.rows, vocab=vocab, ngrams=network.ngrams, hidden=network.hidden, **common)
    common |= dict(vocab=vocab, depth=network.depth)
    if network.model == "bigru":
        pooling = "max" if network.pooling == "auto" else network.pooling
        return BiGru(pooling=pooling, embedding_width=network.embedding_width or network.width, **common)
    return Bert(
        heads=network.attention_heads,
        feed_forward=network.feed_forward or 4 * network.width,
        positions=longest,
        embedding_width=network.embedding_width,
        pooling="cls" if network.pooling == "auto" else network.pooling,
        activation=network.activation,
        **common,
    )
