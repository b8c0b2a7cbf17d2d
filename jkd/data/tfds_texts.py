"""Texts of TFDS sets, such as `glue/sst2` and `ag_news_subset`, by random access and without TensorFlow."""

import hashlib
from collections.abc import Iterator
from typing import Any

from jkd.data.delimited import LABEL, TEXT
from jkd.data.texts import Row
from jkd.data.tfds import open_split
from jkd.errors import UserError, some


def has_texts(name: str, data_dir: str, split: str) -> bool:
    """Whether a set is one of texts: it has a text feature and no image.

    Raises:
      UserError: no such set or split, or a file format without random access.
    """
    features = _features(open_split(name, data_dir, split))
    return "image" not in features and bool(_texts(features))


def rows(
    name: str, data_dir: str, split: str, text: str = "", label: str = "", errors: str = "strict"
) -> tuple[tuple[str, ...], Iterator[Row]]:
    """Class names in label order, and the rows of a split.

    Records lie on disk in a hash-shuffled order, so a key is the digest of the text (a second copy of the same text
    gets `-1`, and so on; they are told apart by their labels) and rows are sorted by it.

    Args:
      name: `NAME`, `NAME/CONFIG`, `NAME:VERSION` or `NAME/CONFIG:VERSION`.
      data_dir: TFDS's data_dir; empty for its default.
      split: its name.
      text: the text feature; empty = the only one, or the first of `delimited.TEXT`.
      label: the class feature; empty = the only one, or the first of `delimited.LABEL`.
      errors: `strict` or `replace`, for bytes that are no UTF-8.

    Raises:
      UserError: no such set or split, a file format without random access, other features, or bytes that are no UTF-8.
    """
    source = open_split(name, data_dir, split)
    features = _features(source)
    labels = [key for key, feature in features.items() if hasattr(feature, "names")]
    text = _pick(text, _texts(features), TEXT, "text", name, features)
    label = _pick(label, labels, LABEL, "label", name, features)
    names = tuple(features[label].names)
    return names, _sorted(source, text, label, names, errors, f"tfds:{name}:{split}")


def _sorted(source: Any, text: str, label: str, names: tuple[str, ...], errors: str, where: str) -> Iterator[Row]:
    found = []
    for index in range(len(source)):
        record = source[index]
        data, number = _bytes(record[text]), int(record[label])
        found.append((hashlib.sha256(data).hexdigest()[:32], number, data))
    found.sort()
    before, copies = "", 0
    for sha, number, data in found:
        copies = copies + 1 if sha == before else 0
        before = sha
        try:
            said = data.decode(errors=errors)
        except UnicodeDecodeError as error:
            raise UserError(
                f"{where}: text {sha}, byte {error.start} is no utf-8. Set data.errors='replace'."
            ) from None
        yield Row(sha + (f"-{copies}" if copies else ""), said, names[number] if number >= 0 else "")


def _bytes(value: Any) -> bytes:
    return value.encode(errors="surrogatepass") if isinstance(value, str) else bytes(value)


def _features(source: Any) -> dict[str, Any]:
    features = source.dataset_info.features
    return dict(features.items()) if hasattr(features, "items") else {}


def _texts(features: dict[str, Any]) -> list[str]:
    import tensorflow_datasets as tfds

    return [key for key, feature in features.items() if isinstance(feature, tfds.features.Text)]


def _pick(wanted: str, there: list[str], known: tuple[str, ...], what: str, name: str, features: Any) -> str:
    if wanted in there:
        return wanted
    if not wanted and len(there) == 1:
        return there[0]
    for key in known:
        if not wanted and key in there:
            return key
    kind = "Text" if what == "text" else "ClassLabel"
    asked = f"'{wanted}' is not" if wanted else "none is named as"
    raise UserError(
        f"tfds:{name}: data.{what}: {asked} a feature to take ({kind}). There are: {some(there) or 'none'}; "
        f"all features: {some(list(features), 8) or 'none'}."
    )
