"""Arrays in one npz file: `<split>_images`, `<split>_labels` and, if wanted, `classes`. No pickles."""

import math
import zipfile
import zlib

import numpy as np

from jkd import places
from jkd.data.decode import resize
from jkd.data.folder import existing
from jkd.data.sources import LOAD_BYTES, ArraySource, check_pixels, keep, some
from jkd.errors import UserError
from jkd.places import Path

EXPECTED = (
    "Expected <split>_images (uint8, [N, H, W] or [N, H, W, C] with C = 1..4) and <split>_labels "
    "(integers, [N], -1 = no label), and optionally classes (text, [K])."
)


def load(
    path: str, splits: tuple[str, str], *, max_pixels: int, image_size: int, limits: tuple[int, int]
) -> tuple[ArraySource, ArraySource]:
    """Training and test source of an npz file; sample ids are `<split>/<row>`.

    Every array's header is read and bounded before its body is, so a small file cannot claim all memory.

    Raises:
      UserError: not an npz, pickled objects, missing arrays, wrong types, shapes or labels, too large.
    """
    file = existing(path)
    try:
        with places.open_read(file) as raw, zipfile.ZipFile(raw) as archive:
            arrays = _arrays(archive, file, splits)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, SyntaxError) as error:
        raise UserError(f"data.path: {file} is not a readable npz file ({error}). Write it with np.savez.") from None
    except OSError as error:
        raise UserError(f"data.path: {file} cannot be read ({error.strerror or error}).") from None
    most = max(int(arrays[f"{split}_labels"].max(initial=-1)) for split in splits)
    classes = tuple(str(name) for name in arrays.get("classes", np.arange(most + 1)))
    if len(classes) < 2 or most >= len(classes) or len(set(classes)) < len(classes):
        raise UserError(f"{file}: labels go up to {most}, classes are: {some(classes) or 'none'}. {EXPECTED}")
    train, test = (
        _source(file, split, classes, arrays, max_pixels, image_size, limit)
        for split, limit in zip(splits, limits, strict=True)
    )
    return train, test


def _arrays(archive: zipfile.ZipFile, file: Path, splits: tuple[str, str]) -> dict[str, np.ndarray]:
    names = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    needed = [f"{split}_{what}" for split in splits for what in ("images", "labels")]
    missing = [name for name in needed if name not in names]
    if missing:
        raise UserError(f"{file}: no array {some(missing)}. {EXPECTED} Found: {some(sorted(names), 8) or 'none'}.")
    wanted = needed + (["classes"] if "classes" in names else [])
    total = sum(_claimed(archive, names[name], file) for name in wanted)
    if total > LOAD_BYTES:
        raise UserError(f"{file}: its arrays claim {total} bytes, over {LOAD_BYTES >> 30} GiB. Use an image folder.")
    arrays = {}
    for name in wanted:
        with archive.open(names[name]) as stream:
            arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
        _check(name, arrays[name], file)
    return arrays


def _claimed(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: Path) -> int:
    """Bytes of an array by its header, which must agree with the size in the zip's directory."""
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
        start = stream.tell()
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject:
        raise UserError(f"{file}: {info.filename} holds pickled Python objects, which are never loaded. {EXPECTED}")
    if min(shape, default=0) < 0 or info.file_size != start + size:
        raise UserError(f"{file}: {info.filename} claims {size} bytes, but has {info.file_size - start}.")
    return size


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
