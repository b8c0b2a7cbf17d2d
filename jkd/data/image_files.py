"""Files of annotated sets: images by stem, lines of a text, names of classes; all bounded, none outside its folder."""

from collections.abc import Sequence

from jkd import files, places
from jkd.data.listing import InFile, is_image
from jkd.errors import UserError, some
from jkd.places import Path

MOST_TEXT = 2**26  # bytes of a list of images
MOST_LABELS = 2**22  # bytes of one image's annotation


def images_in(folder: Path, max_bytes: int) -> dict[str, InFile]:
    """Every image directly in a folder, by file name, sorted.

    Raises:
      UserError: no such folder, or an image larger than `max_bytes`.
    """
    try:
        entries = sorted((entry for entry in folder.iterdir() if is_image(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror or error}). Images are expected there.") from None
    found = {}
    for entry in entries:
        if not entry.is_file():  # a pipe would be waited for without end
            raise UserError(f"{entry} is not a regular file. Remove it, or give it another ending.")
        size = places.size(entry)
        if size > max_bytes:
            raise UserError(f"{entry} has {size} bytes, more than an image of data.max_pixels can have.")
        found[entry.name] = InFile(str(entry), 0, size)
    return found


def by_stem(images: dict[str, InFile], folder: Path) -> dict[str, InFile]:
    """The same by file name without its ending.

    Raises:
      UserError: two images that differ in nothing but the ending.
    """
    found: dict[str, InFile] = {}
    for name, blob in images.items():
        stem = name.rpartition(".")[0]
        if stem in found:
            raise UserError(f"{folder}: two images are called '{stem}'. Which of them is annotated cannot be told.")
        found[stem] = blob
    return found


def lines(path: Path, most: int = MOST_TEXT) -> list[str]:
    """The lines of a text file that hold anything, stripped.

    Raises:
      UserError: missing, unreadable, too large, or no UTF-8.
    """
    try:
        with places.open_read(path) as file:
            data = files.retried(lambda: file.read(most + 1))
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}).") from None
    if len(data) > most:
        raise UserError(f"{path} has over {most} bytes. Is it the right file?")
    return [stripped for line in text.splitlines() if (stripped := line.strip())]


def plain(name: str, where: str) -> str:
    """A name that stays in its folder: no absolute path, no `..`, no separators but `/`.

    Raises:
      UserError: it could lead elsewhere.
    """
    if not name or name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/") or "://" in name:
        raise UserError(f"{where}: '{name}' is not the name of a file within its folder.")
    return name


def folder_of(root: Path, candidates: Sequence[str], what: str) -> Path:
    """The first of some folders or files that is there.

    Raises:
      UserError: none is; says what the root holds.
    """
    for name in candidates:
        if places.exists(root / name):
            return root / name
    found = some(sorted(entry.name for entry in root.iterdir()), 8) or "nothing"
    raise UserError(f"{root}: there is no {what}; looked for {some(candidates)}. Found: {found}.")
