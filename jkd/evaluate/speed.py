"""How long a network takes."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def ms_per_image(function: Callable[..., Any], *arguments: Any, images: int, repeats: int = 20) -> float:
    """Median wall time of a call, in milliseconds per image; one call before, which compiles, does not count.

    Args:
      function: gives arrays, which are waited for.
      arguments: what it is called with each time; already on the device, or their transfer counts.
      images: how many images a call works on.
      repeats: calls that count.

    Raises:
      ValueError: `images` or `repeats` below 1.
    """
    if images < 1 or repeats < 1:
        raise ValueError(f"ms_per_image: expected images and repeats of at least 1, got {images} and {repeats}")
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times)) / images
