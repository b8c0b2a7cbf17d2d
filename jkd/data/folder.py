"""Image folders `<split>/<class>/<file>`, and folders or single files of tars with that layout inside."""

import os
import stat

from jkd import places
from jkd.data import tar
from jkd.data.listing import LAYOUT, InFile, Listing, Tree, is_image, listing
from jkd.errors import UserError, some
from jkd.places import Path


def listings(path: str, splits: tuple[str, ...], max_bytes: int) -> list[Listing]:
    """The samples of each split of `data.path`.

    Args:
      path: a folder with `<split>/<class>/<file>`; a folder with `<split>.tar.gz` (or .tgz, .tar), each with
        that layout inside; or one tar with it.
      splits: names of the splits.
      max_bytes: most bytes of one image.

    Raises:
      UserError: a missing path, a file that is no tar, or a layout that is not the expected one.
    """
    root = existing(path)
    if root.is_file():
        if not tar.is_tar(root):
            raise UserError(f"data.path: {root} is a file, but no .tar, .tar.gz or .tgz. {LAYOUT}")
        tree = tar.scan(root, splits, max_bytes)
        return [listing(tree, split) for split in splits]
    return [listing(_split_tree(root, split, max_bytes), split) for split in splits]


def existing(path: str) -> Path:
    """`data.path` as a path that is there, or a `UserError` that says where it breaks off."""
    if not path:
        raise UserError("data.path is empty. Give the folder or file that data.source reads.")
    root = places.path_of(path).expanduser()
    if places.exists(root):
        return root
    if places.is_remote(root):
        raise UserError(f"data.path: there is no {root}.")
    above = next(parent for parent in root.parents if parent.exists())
    if above.is_file():
        raise UserError(f"data.path: {root} lies below {above}, which is a file. Give {above} itself?")
    found = some(sorted(entry.name for entry in above.iterdir()), 8) or "nothing"
    raise UserError(f"data.path: there is no {root}. In {above} there is: {found}.")


def _split_tree(root: Path, split: str, max_bytes: int) -> Tree:
    if (root / split).is_dir():
        return walk(root, split, max_bytes)
    for suffix in tar.SUFFIXES:
        if (root / f"{split}{suffix}").is_file():
            return tar.scan(root / f"{split}{suffix}", (split,), max_bytes)
    found = some(sorted(entry.name for entry in root.iterdir()), 8) or "nothing"
    raise UserError(
        f"data.path: {root} has neither a folder '{split}' nor '{split}.tar.gz' (.tgz, .tar). {LAYOUT} Found: {found}."
    )


def walk(root: Path, split: str, max_bytes: int) -> Tree:
    """Every image below `root/split`. Links are followed to files, not to folders above the class folders."""
    tree = Tree(str(root), top={entry.name for entry in root.iterdir()})
    if places.is_remote(root):
        return _walk_store(tree, root, split, max_bytes)
    for folder, names, files in os.walk(root / split, onerror=_refuse):
        names[:] = sorted(name for name in names if not name.startswith("."))
        place = os.path.relpath(folder, root).replace(os.sep, "/")
        tree.folders.update(f"{place}/{name}" for name in names)
        for file in filter(is_image, files):
            full = os.path.join(folder, file)
            try:
                found = os.stat(full)
            except OSError as error:
                raise UserError(f"{full}: cannot be read ({error.strerror or error}).") from None
            size = found.st_size
            if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for without end
                raise UserError(f"{full} is not a regular file. Remove it, or give it another ending.")
            if size > max_bytes:
                raise UserError(f"{full} has {size} bytes, more than an image of data.max_pixels can have.")
            tree.files[f"{place}/{file}"] = InFile(full, 0, size)
    return tree


def _walk_store(tree: Tree, root: Path, split: str, max_bytes: int) -> Tree:
    """The same in an object store, which has no links and no pipes."""
    for folder, names, files in (root / split).walk():  # type: ignore[attr-defined]  # new in pathlib of Python 3.12
        names[:] = sorted(name for name in names if not name.startswith("."))
        tree.folders.update((folder / name).relative_to(root).as_posix() for name in names)
        for file in filter(is_image, files):
            size = places.size(folder / file)
            if size > max_bytes:
                raise UserError(f"{folder / file} has {size} bytes, more than an image of data.max_pixels can have.")
            tree.files[(folder / file).relative_to(root).as_posix()] = InFile(str(folder / file), 0, size)
    return tree


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot be read ({error.strerror or error}).")
