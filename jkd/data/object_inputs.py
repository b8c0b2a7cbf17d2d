"""Images with objects as a detector is fed them: in 0..1, augmented inside jit with their boxes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Integer, Key

from jkd.data.augment_boxes import Boxed, augment_boxes
from jkd.data.inputs import Batch, alone
from jkd.data.objects import ObjectSource

SETTINGS = ("flip", "jitter", "hue", "saturation", "exposure", "mosaic")  # of `train.augment`


@dataclass(frozen=True)
class Objects:
    """Canvases of one size as they are, divided by 255.

    Attributes:
      shape: height, width, channels.
      together: images of one forward pass in evaluation; non-maximum suppression compares all pairs of candidates.
    """

    shape: tuple[int, ...]
    together: int = 16

    @property
    def lengths(self) -> tuple[int, ...]:
        return ()

    @property
    def made_of(self) -> list[Any]:
        return []

    def example(self, count: int) -> np.ndarray:
        return np.zeros((count, *self.shape), np.float32)

    def sizes(self, source: ObjectSource, index: Integer[np.ndarray, " n"]) -> Int32[np.ndarray, " n"]:
        return np.zeros(len(index), np.int32)

    def read(self, source: ObjectSource, index: Integer[np.ndarray, " n"], size: int) -> np.ndarray:
        return source.images(index)

    def fed(self, raw: Array) -> Array:
        return raw.astype(jnp.float32) / 255.0

    def augmented(
        self, batch: Batch, keys: Key[Array, " b"], batch_key: Key[Array, ""], settings: Mapping[str, Any]
    ) -> tuple[Batch, Int32[Array, " b"], Float[Array, " b"]]:
        images = self.fed(batch["input"])
        boxed = Boxed(images, batch["boxes"], batch["classes"], batch["object"])
        boxed = augment_boxes(boxed, keys, {key: settings[key] for key in SETTINGS}, batch["label"] >= 0)
        moved = {"input": boxed.images, "boxes": boxed.boxes, "classes": boxed.classes, "object": boxed.object}
        return batch | moved, *alone(len(images))
