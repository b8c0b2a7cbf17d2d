"""Darknet weights files (`.weights`), read and written to the byte.

A header (major, minor, revision: int32; images seen: uint64 from version 0.2 on, uint32 before) is followed by float32,
layer after layer: of a convolution its biases, with BatchNorm scales, running means and variances, and its kernel as
`[O, I / groups, k, k]`, which in jkd is `[k, k, I / groups, O]`. All little-endian. With BatchNorm, Darknet's biases
are those of the norm.
"""

import struct
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from jkd import digest, files, places
from jkd.errors import UserError, some
from jkd.models.darknet import Cfg, Convolutional, channels_in, shapes, weight_counts
from jkd.places import Path
from jkd.pretrained.tensors import nested

# Darknet's name -> the leaf it is, with and without BatchNorm.
NORMED = {
    "biases": "params/norm{}/bias",
    "scales": "params/norm{}/scale",
    "means": "batch_stats/norm{}/mean",
    "variances": "batch_stats/norm{}/var",
    "kernel": "params/conv{}/kernel",
}
PLAIN = {"biases": "params/conv{}/bias", "kernel": "params/conv{}/kernel"}


@dataclass(frozen=True)
class Header:
    """The start of a weights file; `seen` is the number of images that training has seen."""

    major: int = 0
    minor: int = 2
    revision: int = 5
    seen: int = 0

    @property
    def layout(self) -> str:
        """For `struct`: the count is of 64 bits from version 0.2 on."""
        return "<iiiQ" if self.major * 10 + self.minor >= 2 else "<iiiI"


@dataclass(frozen=True)
class _Block:
    """A run of floats in the file and the leaf that it is."""

    layer: int
    name: str
    leaf: str
    shape: tuple[int, ...]  # as in the file
    count: int


def load(path: str | Path, cfg: Cfg) -> tuple[dict[str, Any], Header]:
    """Reads the variables of `Yolo(cfg)`.

    Returns:
      `{"params": ..., "batch_stats": ...}` of float32 arrays, as `Yolo(cfg).init` would give, and the header.

    Raises:
      UserError: the file is not as long as the network needs, naming the layer where it ends and the counts; its header
        is none; or a value is NaN, infinite, or a variance below zero, naming the layer.
    """
    path, blocks = places.path_of(path), _blocks(cfg)
    if not path.is_file():
        raise UserError(f"{path} is not a file. Give the path of Darknet .weights.")
    size = places.size(path)
    try:
        with places.open_read(path) as file:
            header, start = _header(file.read(20), path)
            _check_length(path, size, start, blocks)
            file.seek(start)
            data = file.read(size - start)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}). Check its permissions.") from None
    _check_length(path, start + len(data), start, blocks)  # it may have changed meanwhile
    floats, flat, at = np.frombuffer(data, "<f4"), {}, 0
    for block in blocks:
        part = floats[at : at + block.count]
        _check_values(path, cfg, block, part)
        flat[block.leaf] = jnp.asarray(_to_jkd(part.reshape(block.shape)))
        at += block.count
    return nested(flat, str(path)), header


def save(path: str | Path, variables: dict[str, Any], cfg: Cfg, header: Header | None = None) -> None:
    """Writes variables of `Yolo(cfg)` for Darknet, atomically. What `load` read comes out byte for byte."""
    header, flat, blocks = header or Header(), digest.flatten(variables), _blocks(cfg)
    odd = sorted({block.leaf for block in blocks} ^ set(flat))
    if odd:
        raise UserError(f"cannot write {path}: variables and cfg differ in {some(odd)}. Pass the cfg they are of.")
    parts = []
    for block in blocks:
        array = _to_darknet(np.asarray(flat[block.leaf], np.float32))
        if array.shape != block.shape:
            raise UserError(
                f"cannot write {path}: layer {block.layer} {block.name} is {list(array.shape)}, the cfg says "
                f"{list(block.shape)}. Pass the cfg they are of."
            )
        parts.append(np.ascontiguousarray(array, "<f4").tobytes())
    start = struct.pack(header.layout, header.major, header.minor, header.revision, header.seen)
    files.write_bytes(places.path_of(path), b"".join([start, *parts]))


def _blocks(cfg: Cfg) -> list[_Block]:
    found, blocks = shapes(cfg), []
    for index, layer in enumerate(cfg.layers):
        if isinstance(layer, Convolutional):
            inputs, leaves = channels_in(cfg, index, found), NORMED if layer.batch_normalize else PLAIN
            kernel = (layer.filters, inputs // layer.groups, layer.size, layer.size)
            for name, count in weight_counts(layer, inputs):
                shape = kernel if name == "kernel" else (count,)
                blocks.append(_Block(index, name, leaves[name].format(index), shape, count))
    return blocks


def _header(start: bytes, path: Path) -> tuple[Header, int]:
    if len(start) < 16:
        raise UserError(f"{path} has {len(start)} bytes: expected Darknet .weights, of which the header alone has 16.")
    major, minor, revision = struct.unpack("<iii", start[:12])
    if not 0 <= major < 1000 or not 0 <= minor < 1000:
        raise UserError(
            f"{path}: version {major}.{minor} in its header, expected 0.1 to 999.999. It is not Darknet .weights, or "
            "of a Darknet that stored matrices transposed."
        )
    header = Header(major, minor, revision)
    length = struct.calcsize(header.layout)
    if len(start) < length:
        raise UserError(f"{path} has {len(start)} bytes: expected a header of {length}. Copy it again.")
    return Header(*struct.unpack(header.layout, start[:length])), length


def _check_length(path: Path, size: int, start: int, blocks: list[_Block]) -> None:
    needed, there = sum(block.count for block in blocks), (size - start) // 4
    if size == start + 4 * needed:
        return
    counts = f"{path} holds {there:,} numbers, but its cfg needs {needed:,}"
    if (size - start) % 4:
        counts = (
            f"{path} holds {there:,} numbers and {(size - start) % 4} bytes more, but its cfg needs {needed:,} numbers"
        )
    if there >= needed:
        last = f"{there - needed:,} numbers are left after layer {blocks[-1].layer}, the last" if there > needed else ""
        raise UserError(f"{counts}{last and '; ' + last}. Check that the two belong together.")
    for block in blocks:
        if there < block.count:
            raise UserError(
                f"{counts}; it ends in the {block.name} of layer {block.layer} [convolutional], of which {there:,} of "
                f"{block.count:,} are there. Copy it again, or check that the two belong together."
            )
        there -= block.count


def _check_values(path: Path, cfg: Cfg, block: _Block, values: np.ndarray) -> None:
    bad = int(values.size - np.isfinite(values).sum())
    if bad:
        problem = f"{bad} of {values.size} {block.name} are NaN or infinite"
    elif block.name == "variances" and (values < 0).any():
        problem = f"{int((values < 0).sum())} of {values.size} variances are below zero"
    else:
        return
    raise UserError(
        f"{path}: in layer {block.layer} [convolutional], {problem}. The file is damaged, or is not of this cfg."
    )


def _to_jkd(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def _to_darknet(array: np.ndarray) -> np.ndarray:
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
