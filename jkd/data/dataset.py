"""From `config.data` to a training and a test source: of images, of texts, or of images with objects."""

from dataclasses import dataclass

from ml_collections import ConfigDict

from jkd import digest
from jkd.data.sources import Source
from jkd.errors import UserError, did_you_mean, some

KINDS = ("digits", "images", "npz", "texts", "trec", "trec:fine", "shapes", "voc", "coco", "yolo", "tfds:NAME")
OBJECTS = ("shapes", "voc", "coco", "yolo")


@dataclass(frozen=True)
class DataSet:
    """A training and a test source of one kind and shape with the same classes; the test source only evaluates.

    Attributes:
      name: as the config has it.
      train: what pools are drawn from, and behind it the samples of a validation split that was named.
      test: what evaluates.
      aside: how many samples of `train`, its last, are that validation split's.
    """

    name: str
    train: Source
    test: Source
    aside: int = 0

    @property
    def kind(self) -> str:
        """`images`, `texts` or `objects` (images with boxes)."""
        return self.train.kind

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in label order."""
        return self.train.classes

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width, channels; `()` of texts."""
        return self.train.shape

    @property
    def fingerprint(self) -> str:
        """SHA-256 of both sources' fingerprints and the class names."""
        parts = [list(self.classes), self.train.fingerprint, self.test.fingerprint]
        return digest.of_json([*parts, self.aside] if self.aside else parts)


def open_dataset(data: ConfigDict) -> DataSet:
    """Opens what `config.data` names.

    Args:
      data: the `data` group of a resolved config.

    Raises:
      UserError: an unknown kind, a path or layout that is not as expected, broken images (see
        `jkd.data.images`), or a training and a test split that do not fit each other.
    """
    if data.source == "digits":
        from jkd.data import digits

        return _fitting("digits", *digits.load(data.limit, data.test_limit, data.image_size), data)
    if data.source in ("texts", "trec", "trec:fine"):
        return _texts(data)
    if data.source in OBJECTS:
        return _objects(data)
    if data.train == data.test:
        raise UserError(f"data.train and data.test are both '{data.train}'. The test split must be another one.")
    if data.source == "npz":
        from jkd.data import npz

        options = dict(max_pixels=data.max_pixels, image_size=data.image_size)
        limits = (data.limit, data.test_limit)
        return _fitting("npz", *npz.load(data.path, (data.train, data.test), limits=limits, **options), data)
    if data.source.startswith("tfds:"):
        from jkd.data import tfds_objects, tfds_texts

        if tfds_texts.has_texts(data.source.removeprefix("tfds:"), data.path, data.train):
            return _texts(data)
        if tfds_objects.has_objects(data.source.removeprefix("tfds:"), data.path, data.train):
            return _objects(data)
    if data.source == "images" or data.source.startswith("tfds:"):
        return _fitting(data.source, *_images(data), data)
    raise UserError(f"data.source: expected {', '.join(KINDS)}, got '{data.source}'.{did_you_mean(data.source, KINDS)}")


def _texts(data: ConfigDict) -> DataSet:
    from jkd.data import textset

    return DataSet(data.source, *textset.load(data))


def _objects(data: ConfigDict) -> DataSet:
    from jkd.data import object_sets

    if data.noise != "none":
        raise UserError(f"data.noise: '{data.noise}' is for one label a sample, not for objects. Use 'none'.")
    train, test = object_sets.load(data)
    return DataSet(data.source, train, test)


def _images(data: ConfigDict) -> tuple[Source, Source]:
    from jkd.data import folder, images, tfds
    from jkd.data.decode import Rules

    rules = Rules(data.max_pixels, data.image_size)
    splits = (data.train, data.test)
    if data.source == "images":
        found = folder.listings(data.path, splits, rules.max_bytes)
    else:
        found = tfds.listings(data.source.removeprefix("tfds:"), data.path, splits)
    # Labels count within one split's own folders: refuse a mismatch before anything is decoded.
    _same_classes(*(each.classes for each in found))
    limits = (data.limit, data.test_limit)
    train, test = (
        images.load(each, rules, broken=data.broken, broken_limit=data.broken_limit, limit=limit)
        for each, limit in zip(found, limits, strict=True)
    )
    if train.shape[2] != test.shape[2]:  # one split is all grey, the other is not
        train, test = train.as_rgb(), test.as_rgb()
    return train, test


def _same_classes(train: tuple[str, ...], test: tuple[str, ...]) -> None:
    if train != test:
        only_train, only_test = (some(sorted(set(a) - set(b))) or "none" for a, b in ((train, test), (test, train)))
        raise UserError(
            f"the splits have different classes: only in train: {only_train}; only in test: {only_test}. "
            "Give both the same class folders."
        )


def _fitting(name: str, train: Source, test: Source, data: ConfigDict) -> DataSet:
    if train.shape != test.shape:
        raise UserError(
            f"training images are {list(train.shape)} (height, width, channels), test images "
            f"{list(test.shape)}. "
            "Set data.image_size to resize both."
        )
    if (test.labels < 0).any():
        raise UserError(f"{test.name}: {int((test.labels < 0).sum())} test samples have no label. All need one.")
    for key in ("mean", "std"):
        if len(data[key]) not in (1, train.shape[2]):
            raise UserError(
                f"data.{key}: expected 1 or {train.shape[2]} numbers, one per channel, got {len(data[key])}."
            )
    return DataSet(name, train, test)
