"""New inputs without labels, read as the data of a run are: what a finished network is asked about."""

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jkd import places
from jkd.data.dataset import DataSet
from jkd.data.listing import InFile, Listing, Tree, is_image
from jkd.data.sources import Source
from jkd.errors import UserError
from jkd.places import Path

HERE = "."  # what a folder's images lie in


def open_unlabelled(path: str | Path, dataset: DataSet, data: ConfigDict) -> Source:
    """The inputs at `path`, of the kind, size and classes of a data set; every label is -1.

    - Images, also those with objects: one file, or all below a folder. They are resized as the data set's were, or,
      where these were taken as they are, to their size. Ids are paths below the folder.
    - Texts: a file with a text on each line, under the rules of `jkd.data.texts`. Ids are `FILE/<line>`, from 1.

    Inputs that cannot be read are in `skipped`.

    Args:
      path: of the file or folder.
      dataset: the run's.
      data: its `config.data`.

    Raises:
      UserError: nothing there, nothing that can be read, or images of other channels than the data set's.
    """
    where = places.path_of(path).expanduser()
    if not places.exists(where):
        raise UserError(f"--inputs: there is no {where}.")
    return _texts(where, dataset, data) if dataset.kind == "texts" else _images(where, dataset, data)


def _texts(path: Path, dataset: DataSet, data: ConfigDict) -> Source:
    from jkd.data.lines import read_lines
    from jkd.data.texts import Row, Rules, TextSource, collect

    if not path.is_file():
        raise UserError(f"--inputs: {path} is a folder. Give a file with a text on each line.")
    lines = read_lines(path, data.encoding or "utf-8", data.errors)
    rows = (Row(str(number), line, "", line=number) for number, line in enumerate(lines, 1))
    column = collect(rows, str(path), path.name, Rules(data.max_chars, "skip", 1.0))
    labels = np.full(len(column.ids), -1, np.int32)
    return TextSource(column.name, dataset.classes, column.ids, labels, column.texts, column.skipped, column.counts)


def _images(path: Path, dataset: DataSet, data: ConfigDict) -> Source:
    from jkd.data import images, objects
    from jkd.data.annotations import Annotated
    from jkd.data.decode import Rules

    height, width, channels = dataset.shape
    rules = Rules(data.max_pixels, data.image_size or (height if height == width else 0))
    found = _found(path, rules.max_bytes)
    if not found:
        raise UserError(f"--inputs: there is no image in {path}.")
    ids = sorted(found)
    labels, blobs = np.full(len(ids), -1, np.int32), [found[name] for name in ids]
    listing = Listing(str(path), dataset.classes, ids, labels, blobs)
    if dataset.kind == "objects":
        canvas = objects.Canvas((height, width), data.fit, data.interpolation)
        unknown = Annotated(listing.name, listing.classes, ids, labels, blobs, [None] * len(ids))
        return objects.load(unknown, canvas, max_pixels=data.max_pixels, broken="skip", broken_limit=1.0)
    source = images.load(listing, rules, broken="skip", broken_limit=1.0, limit=0)
    if source.shape[2] < channels:
        source = source.as_rgb()
    if source.shape != dataset.shape:
        raise UserError(
            f"--inputs: images of {path} are {list(source.shape)} (height, width, channels), those of the run "
            f"{list(dataset.shape)}. Bring them into that form."
        )
    return source


def _found(path: Path, max_bytes: int) -> dict[str, Any]:
    from jkd.data.folder import walk

    if path.is_file():
        if not is_image(path.name):
            raise UserError(f"--inputs: {path} is no image by its ending.")
        return {path.name: InFile(str(path), 0, places.size(path))}
    tree: Tree = walk(path, HERE, max_bytes)
    return {name.removeprefix(f"{HERE}/"): blob for name, blob in tree.files.items()}
