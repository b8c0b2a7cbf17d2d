"""The weights of a Hugging Face folder: one safetensors file, or several and an index. Never a pickle."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from jkd import files, places
from jkd.errors import UserError, some
from jkd.pretrained.tensors import Tensors, opened

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
MOST_SHARDS = 1000
PICKLES = (
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.pt",
    "model.pth",
    "tf_model.h5",
    "flax_model.msgpack",
)


class Shards:
    """Open safetensors files that are read as one. The attributes and `read` of `Tensors`."""

    def __init__(self, path: str | places.Path, parts: list[Tensors]):
        self.path = path
        self._of = {name: part for part in parts for name in part.shapes}
        self.dtypes: dict[str, str] = {name: part.dtypes[name] for name, part in self._of.items()}
        self.shapes: dict[str, tuple[int, ...]] = {name: part.shapes[name] for name, part in self._of.items()}

    def read(self, name: str) -> np.ndarray:
        """A tensor by name, as `Tensors.read` gives it."""
        return self._of[name].read(name)


@contextmanager
def opened_folder(folder: str | places.Path) -> Iterator[Shards]:
    """Opens `model.safetensors`, or the files that `model.safetensors.index.json` names.

    Raises:
      UserError: there is neither, or only pickles; the index is no index; or a file is missing, damaged, or
        holds other tensors than the index says.
    """
    folder = places.path_of(folder)
    if (folder / WEIGHTS).is_file():
        with opened(folder / WEIGHTS) as tensors:
            yield Shards(folder / WEIGHTS, [tensors])
        return
    if not (folder / INDEX).is_file():
        raise _nothing_to_open(folder)
    names = _shard_of(folder / INDEX)
    with ExitStack() as stack:
        parts = {name: stack.enter_context(opened(folder / name)) for name in sorted(set(names.values()))}
        _check_index(folder / INDEX, names, parts)
        yield Shards(folder, list(parts.values()))


def weight_files(folder: str | places.Path) -> list[str]:
    """Names of the files that `opened_folder` would read."""
    folder = places.path_of(folder)
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    return [INDEX, *sorted(set(_shard_of(folder / INDEX).values()))] if (folder / INDEX).is_file() else []


def read_object(path: places.Path) -> dict[str, Any]:
    """A JSON object from a file of at most 16 MiB.

    Raises:
      UserError: it is missing, larger, or holds something else.
    """
    value = files.read_json(path, files.JSON)
    if not isinstance(value, dict):
        raise UserError(f"{path} holds {type(value).__name__}; expected a JSON object. Copy it again.")
    return value


def _shard_of(index: places.Path) -> dict[str, str]:
    """Tensor name -> file name, both checked to be that."""
    names = read_object(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise UserError(f"{index} has no 'weight_map' from tensor names to file names. Copy it again.")
    for tensor, name in names.items():
        plain = isinstance(name, str) and name.endswith(".safetensors") and not set(name) & set("/\\\0:")
        if not plain:
            raise UserError(
                f"{index}: {tensor!r} is to be in {name!r}; expected the name of a safetensors file in the same folder."
            )
    if len(set(names.values())) > MOST_SHARDS:
        raise UserError(f"{index} names {len(set(names.values()))} files; expected at most {MOST_SHARDS}.")
    return names


def _check_index(index: places.Path, names: dict[str, str], parts: dict[str, Tensors]) -> None:
    wrong = [tensor for tensor, name in names.items() if tensor not in parts[name].shapes]
    odd = [tensor for name, part in parts.items() for tensor in part.shapes if names.get(tensor) != name]
    if wrong or odd:
        raise UserError(
            f"{index} and its files differ: not where it says are [{some(wrong)}], not where they should be are "
            f"[{some(odd)}]. Copy the folder again."
        )


def _nothing_to_open(folder: places.Path) -> UserError:
    if not folder.is_dir():
        return UserError(f"{folder} is not a folder. Give one with config.json and {WEIGHTS}, or hf:ORG/NAME@REVISION.")
    pickles = [name for name in PICKLES if (folder / name).is_file()]
    if pickles:
        return UserError(
            f"{folder} has {some(pickles)} but no {WEIGHTS}. Such files may hold pickled Python objects and are never "
            "loaded: a pickle can run code. Where you trust it, convert it: safetensors.torch.save_file({name: "
            "tensor.clone() for name, tensor in torch.load('pytorch_model.bin', weights_only=True).items()}, "
            f"'{WEIGHTS}')."
        )
    return UserError(f"{folder} has neither {WEIGHTS} nor {INDEX}. Give a Hugging Face folder with its weights.")
