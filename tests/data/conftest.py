"""Small synthetic image sets in many containers: fixtures that hand out functions."""

import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from jkd.config import default


def _encoded(image: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def _image_files(each: int = 3, side: int = 6, grey: tuple[str, ...] = ()) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    return {
        f"{split}/{name}/{number:02d}.png": _encoded(
            rng.integers(0, 256, (side, side) if split in grey else (side, side, 3), dtype=np.uint8)
        )
        for split in ("train", "test")
        for name in ("cat", "dog")
        for number in range(each)
    }


def _write_tar(path: Path, files: Mapping[str, bytes], extra: tuple[tarfile.TarInfo, ...] = ()) -> Path:
    with tarfile.open(path, "w:" if path.suffix == ".tar" else "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in extra:
            archive.addfile(info)
    return path


def _write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def _settings(source: str = "images", path: object = "", **differs: object) -> ConfigDict:
    data = default().data
    data.source, data.path = source, str(path)
    data.update(differs)
    return data


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    """`(pixels or PIL image, kind="PNG", **options)` -> bytes of an image file."""
    return _encoded


@pytest.fixture
def image_files() -> Callable[..., dict[str, bytes]]:
    """`(each, side, grey splits)` -> `{path: png}` with splits train and test, classes cat and dog."""
    return _image_files


@pytest.fixture
def write_tar() -> Callable[..., Path]:
    """`(path, files, extra empty members)`: a tar, gzipped by its suffix."""
    return _write_tar


@pytest.fixture
def write_folder() -> Callable[..., Path]:
    """`(path, files)`: the same as a folder."""
    return _write_folder


@pytest.fixture
def settings() -> Callable[..., ConfigDict]:
    """`(source, path, **differs)` -> a `config.data` with its defaults."""
    return _settings
