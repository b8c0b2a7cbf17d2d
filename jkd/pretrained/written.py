"""Weights of any module of ours, in the form that its family has elsewhere."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jkd import digest, files
from jkd.models import Bert, CifarVgg, TorchvisionVgg
from jkd.models.yolo import Yolo
from jkd.places import Path
from jkd.pretrained import bert, darknet, darknet_weights, vgg


def write(folder: Path, module: Any, variables: dict[str, Any], classes: Sequence[str], shape: tuple[int, ...]) -> None:
    """Writes a network's weights into a folder; `jkd` reads all of them back (`teacher.weights`, `teacher.cfg`).

    bert            `config.json` and `model.safetensors` of Hugging Face (see `jkd.pretrained.bert.save`)
    vgg             `model.safetensors`, names and axes as torch has them
    yolo            `model.cfg`, `model.weights` and `model.names` of Darknet
    all others      `model.safetensors`, names being paths in Flax, `params/hidden0/kernel`

    Args:
      folder: to write to; what it holds by these names is replaced.
      module: of the network.
      variables: its `{"params": ..., "batch_stats": ...}`.
      classes: their names, in order.
      shape: height, width and channels of an image; not read of texts.
    """
    if isinstance(module, Bert):
        bert.save(folder, variables, module, dict(enumerate(classes)))
    elif isinstance(module, CifarVgg | TorchvisionVgg):
        vgg.save(folder / "model.safetensors", variables, module)
    elif isinstance(module, Yolo):
        cfg = module.cfg.at_size(*shape[:2])
        files.write_bytes(folder / "model.cfg", darknet.dump(cfg).encode())
        darknet_weights.save(folder / "model.weights", variables, cfg)
        files.write_bytes(folder / "model.names", "".join(f"{name}\n" for name in classes).encode())
    else:
        flat = {name: np.asarray(leaf) for name, leaf in digest.flatten(variables).items()}
        files.write_arrays(folder / "model.safetensors", flat)
