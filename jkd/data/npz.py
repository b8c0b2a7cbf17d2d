"""Arrays in one npz file: `<split>_images`, `<split>_labels` and, if wanted, `classes`. No pickles."""

from pathlib import Path

import numpy as np

from jkd.data.decode import resize
from jkd.data.folder import existing
from jkd.data.npy import read_npz
from jkd.data.sources import LOAD_BYTES, ArraySource, check_pixels, keep
from jkd.errors import UserError, some

MOST = 100_000  # classes that labels alone may claim
EXPECTED = (
    "Expected <split>_images (uint8, [N, H, W] or [N, H, W, C] with C = 1..4) and <split>_labels "
    "(integers, [N], -1 = no label), and optionally classes (text, [K])."
)


def load(
    path: str, splits: tuple[str, str], *, max_pixels: int, image_size: int, limits: tuple[int, int]
) -> tuple[ArraySource, ArraySource]:
    """Training and test source of an npz file; sample ids are `<split>/<row>`.

    Raises:
      UserError: not an npz, pickled objects, missing arrays, wrong types, shapes or labels, too large.
    """
    file = existing(path)

    def wanted(names: list[str]) -> list[str]:
        needed = [f"{split}_{what}" for split in splits for what in ("images", "labels")]
        if missing := [name for name in needed if name not in names]:
            raise UserError(f"{file}: no array {some(missing)}. {EXPECTED} Found: {some(names, 8) or 'none'}.")
        return needed + (["classes"] if "classes" in names else [])

    try:
        arrays = read_npz(file, LOAD_BYTES, wanted)
    except UserError as error:
        raise UserError(f"data.path: {error}") from None
    for name, array in arrays.items():
        _check(name, array, file)
    most = max(int(arrays[f"{split}_labels"].max(initial=-1)) for split in splits)
    if most >= MOST:
        raise UserError(f"{file}: a label is {most}; expected at most {MOST - 1}. {EXPECTED}")
    classes = tuple(str(name) for name in arrays.get("classes", np.arange(most + 1)))
    if len(classes) < 2 or most >= len(classes) or len(set(classes)) < len(classes):
        raise UserError(f"{file}: labels go up to {most}, classes are: {some(classes) or 'none'}. {EXPECTED}")
    train, test = (
        _source(file, split, classes, arrays, max_pixels, image_size, limit)
        for split, limit in zip(splits, limits, strict=True)
    )
    return train, test


def _check(name: str, array: np.ndarray, file: Path) -> None:
    if name == "classes":
        fits = array.ndim == 1 and array.dtype.kind == "U"
    elif name.endswith("_labels"):
        fits = array.ndim == 1 and array.dtype.kind in "iu" and array.min(initial=0) >= -1
    else:
        fits = array.dtype == np.uint8 and (array.ndim == 3 or (array.ndim == 4 and 1 <= array.shape[3] <= 4))
        fits = fits and 0 not in array.shape
    if not fits:
        raise UserError(f"{file}: {name} is {array.dtype} {list(array.shape)}. {EXPECTED}")


def _source(
    file: Path,
    split: str,
    classes: tuple[str, ...],
    arrays: dict[str, np.ndarray],
    max_pixels: int,
    image_size: int,
    limit: int,
) -> ArraySource:
    pixels, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    if len(pixels) != len(labels):
        raise UserError(f"{file}: {len(pixels)} {split}_images, but {len(labels)} {split}_labels.")
    check_pixels(pixels.shape[1], pixels.shape[2], max_pixels, f"{file}: {split}_images")
    ids = [f"{split}/{row:07d}" for row in range(len(pixels))]
    kept = keep(ids, limit)
    pixels = pixels[kept] if pixels.ndim == 4 else pixels[kept][:, :, :, None]
    if image_size:
        pixels = resize(pixels, image_size)
    return ArraySource(f"{file}:{split}", classes, [ids[int(i)] for i in kept], labels[kept], pixels)
