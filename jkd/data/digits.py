"""The embedded data set: 1,797 handwritten digits of 8x8 pixels (origin and licence: digits.txt)."""

from pathlib import Path

import numpy as np

from jkd.data.sources import ArraySource, hash_order, keep

TEST = 600


def load(limit: int = 0, test_limit: int = 0, image_size: int = 0) -> tuple[ArraySource, ArraySource]:
    """Training (1,197) and test (600) source.

    The test images are those whose ids come first by SHA-256, whatever the seed. Pixels 0..16 are scaled to
    0..255.
    """
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        counts, labels = file["images"].astype(np.float64), file["labels"].astype(np.int32)
    pixels = np.round(counts * 255 / 16).astype(np.uint8)[:, :, :, None]
    if image_size:
        from jkd.data.decode import resize  # needs Pillow, which the set as it is does not

        pixels = resize(pixels, image_size)
    ids = [f"digits/{number:04d}" for number in range(len(pixels))]
    whole = ArraySource("digits", [str(digit) for digit in range(10)], ids, labels, pixels)
    order = hash_order(ids, "digits/test")
    test, train = whole.take(np.sort(order[:TEST])), whole.take(np.sort(order[TEST:]))
    train.name, test.name = "digits:train", "digits:test"
    return _limited(train, limit), _limited(test, test_limit)


def _limited(source: ArraySource, limit: int) -> ArraySource:
    return source.take(keep([source.id(i) for i in range(len(source))], limit)) if limit else source
