"""Reading safetensors files that come from somewhere else: checked, finite, and nothing trusted."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from jkd import files, places
from jkd.errors import UserError
from jkd.places import Path

FLOATS = ("F32", "F16", "BF16")  # all of these fit into float32 without loss
PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".npy", ".npz")
DEEP = 32  # most folders of a name
INTEGERS = ("BOOL", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64")


class Tensors:
    """An open safetensors file: the types and shapes its header claims, and `read(name)`.

    The header was checked on opening (length against the file, offsets against shapes, no gaps), so reading a
    tensor takes at most the file's size in memory, twice that where 16-bit floats are widened.

    Attributes:
      dtypes: name -> type as the format spells it, `F32`.
      shapes: name -> shape.
    """

    def __init__(self, path: str | Path, file: Any):
        self.path = path
        self._file = file
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        self.dtypes: dict[str, str] = {name: part.get_dtype() for name, part in slices.items()}
        self.shapes: dict[str, tuple[int, ...]] = {name: tuple(part.get_shape()) for name, part in slices.items()}

    def read(self, name: str) -> np.ndarray:
        """A tensor by name; 16-bit floats come back as float32.

        Raises:
          UserError: when a value is NaN or infinite, or the type is none that jkd reads.
        """
        if self.dtypes[name] not in (*FLOATS, *INTEGERS):
            raise UserError(f"{self.path}: {name!r} is {self.dtypes[name]}; expected F32, F16, BF16 or integers.")
        array = np.asarray(self._file.get_tensor(name))
        if self.dtypes[name] in FLOATS:
            array = array.astype(np.float32, copy=False)
            bad = int(array.size - np.isfinite(array).sum())
            if bad:
                raise UserError(
                    f"{self.path}: {name!r} has {bad} of {array.size} values that are NaN or infinite. "
                    "Export the weights again."
                )
        return array


@contextmanager
def opened(path: str | Path) -> Iterator[Tensors]:
    """Opens a safetensors file as `Tensors`; whatever is wrong with it is a `UserError` that names it."""
    from safetensors import SafetensorError, safe_open

    if not places.path_of(path).is_file():
        raise UserError(f"{path} is not a file. Give the path of a safetensors file.")
    try:
        with places.local(path) as here:
            _refuse_pickle(here)
            files.check_header(here)
            with safe_open(here, framework="np") as file:
                yield Tensors(path, file)
    except (SafetensorError, OSError, ValueError, TypeError, OverflowError) as error:
        raise UserError(
            f"{path} is not a readable safetensors file ({error}). Copy it again, or make it with the "
            "safetensors package."
        ) from None


def _refuse_pickle(path: Path) -> None:
    """Says of files that hold, or may hold, pickles how to convert them; by their first bytes, whatever the name."""
    with places.open_read(path) as file:
        start = file.read(8)
    # A pickle of protocol 2 and up, a zip (torch.save, npz), an npy; older pickles are known by the file's name only.
    pickled = start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05" and start[2:] != bytes(len(start[2:]))
    if pickled or start[:4] == b"PK\x03\x04" or start[:6] == b"\x93NUMPY" or path.suffix in PICKLED:
        raise UserError(
            f"{path} is not a readable safetensors file but may hold pickled Python objects, which are never loaded: a "
            "pickle can run code. Where you trust the file, convert it: "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'weights.safetensors')."
        )


def read_tree(path: str | Path) -> dict[str, Any]:
    """A file whose names are paths, `params/hidden0/kernel`, as nested dicts of arrays."""
    with opened(path) as tensors:
        return nested({name: tensors.read(name) for name in sorted(tensors.dtypes)}, str(path))


def nested(flat: dict[str, Any], source: str) -> dict[str, Any]:
    """`{"a/b": x}` as `{"a": {"b": x}}`; a name that is a leaf and a folder at once is a `UserError`.

    So is one below over `DEEP` folders: each takes a hundred times as much memory as its two bytes in the name.
    """
    tree: dict[str, Any] = {}
    for name in sorted(flat):
        *folders, leaf = name.split("/")
        if len(folders) > DEEP:
            raise UserError(f"{source}: {name[:80]!r} lies below {len(folders)} others; expected at most {DEEP}.")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
            if not isinstance(node, dict):
                raise UserError(f"{source}: {name!r} lies below a name that holds an array itself.")
        if leaf in node:
            raise UserError(f"{source}: {name!r} is both an array and a folder of arrays.")
        node[leaf] = flat[name]
    return tree
