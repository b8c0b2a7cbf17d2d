"""What a graph of objects is made of: co-occurrence, relations within an image, surroundings, image crops.

Nodes are objects (boxes), never pixels: relations on feature maps cost (H W)^2 and did not help detectors, those of
pooled instances did (Chen et al. 2021, DSIG). Everything here is NumPy on the host, a function of plain arrays in node
order; sums, products, quotients and square roots only in what is compared, so ties and orders do not hang on a
library's `exp`.

There are two uses, not to be confused:

- **Edges** say what stands with what (`co_occurs`, `spatial`): to look at, to attend over (feature join), to export.
  They lead to other classes as well as to the same one.
- **Views** (`crop_view`, `context_view`) are features whose nearest neighbours are objects that look alike, or stand in
  alike surroundings: `similar_to` edges, along which beliefs may be diffused, because they do lead to the same class.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Int, Int32, UInt8

from jkd import random
from jkd.graph.nearest import Edges

RELATIONS = ("dx", "dy", "log_width", "log_height", "iou", "distance")
RINGS = (1.0, 2.0, 4.0)  # surroundings: distances up to so many sizes of the object
CHUNK = 2**22  # values held at once


@runtime_checkable
class Canvases(Protocol):
    """Images of one size by row: an array, or what reads them one at a time."""

    shape: tuple[int, ...]

    def __getitem__(self, row: int) -> UInt8[np.ndarray, "H W 3"]: ...


class Spatial(NamedTuple):
    """Edges within images, with what they say.

    Attributes:
      edges: nearest first, `[O, K]`; weight = 1 / (1 + distance), in (0, 1].
      relations: of each edge, in the order of `RELATIONS`, float32 `[O, K, 6]`, 0 where there is no edge: offset of the
        centres in widths and heights of the source; log of the target's width and height over the source's; IoU;
        distance of the centres over the source's size (the square root of its area).
    """

    edges: Edges
    relations: Float32[np.ndarray, "O K R"]


def class_co_occurrence(
    classes: Int[np.ndarray, " O"], image_of: Int[np.ndarray, " O"], count: int, smoothing: float = 1.0
) -> Float32[np.ndarray, "C C"]:
    """How much likelier an image with class c holds class d than any image does (another of c, for d = c), `[C, C]`.

    From the lift L = p(c, d) / (p(c) p(d)), whose logarithm is the pointwise mutual information: 1 - 1 / L where it is
    above 1, L - 1 below; 0 is chance, 1 never apart however rare, -1 never together. Unlike a normalised logarithm this
    stays calm where a class is in nearly every image, and so tells nothing. p(c, d) is the share of images that hold
    both, p(c, c) of those with two of c, set against p(c)^2: whether the class comes in groups. Counts of pairs are
    drawn towards chance by `smoothing` imagined images, so a pair seen once is no certainty.

    Args:
      classes: of each object, -1 where not known (such objects are passed over).
      image_of: the image of each object, any whole numbers.
      count: C.
      smoothing: imagined images.
    """
    known = classes >= 0
    images, image = np.unique(image_of, return_inverse=True)
    held = np.zeros((len(images), count), np.int64)
    np.add.at(held, (image[known], classes[known]), 1)
    held = held[held.any(1)]
    present = (held > 0).astype(np.float64)
    both = present.T @ present
    np.fill_diagonal(both, (held > 1).sum(0))
    total = max(len(held), 1)
    alone = present.sum(0) / total
    chance = alone[:, None] * alone[None, :]
    joint = (both + smoothing * chance) / (total + smoothing)
    high, low = np.maximum(joint, chance), np.minimum(joint, chance)
    gain = 1 - np.divide(low, high, out=np.ones_like(high), where=high > 0)
    return np.where(joint >= chance, gain, -gain).astype(np.float32)


def class_edges(weights: Float32[np.ndarray, "C C"], k: int) -> Edges:
    """The k other classes that each class draws most, `[C, k]`: positive weights only, ties to the lower id."""
    count = len(weights)
    given = weights.astype(np.float64) * (1 - np.eye(count))
    source, target = np.nonzero(given > 0)
    return _table(source, target, weights[source, target], count, k)


def co_occurs(
    classes: Int[np.ndarray, " O"],
    image_of: Int[np.ndarray, " O"],
    class_weights: Float32[np.ndarray, "C C"],
    k: int,
) -> Edges:
    """Each object's k others of its image whose classes go best with its own, `[O, k]`.

    Weights are those of the class pair; pairs that are no likelier than by chance get no edge. Heaviest first, ties to
    the lower id.

    Args:
      classes: of each object (label where known, else what is believed); -1 has no edges.
      image_of: the image of each object.
      class_weights: from `class_co_occurrence`, of objects whose classes may be seen.
      k: edges of an object.
    """
    source, target = _pairs(image_of)
    known = (classes[source] >= 0) & (classes[target] >= 0)
    source, target = source[known], target[known]
    weights = class_weights[classes[source], classes[target]]
    wanted = weights > 0
    return _table(source[wanted], target[wanted], weights[wanted], len(classes), k)


def spatial(boxes: Float[np.ndarray, "O 4"], image_of: Int[np.ndarray, " O"], k: int) -> Spatial:
    """Each object's k nearest others of its image, and how they lie.

    Distance is that of the centres in sizes of the source, so an edge and its reverse differ where sizes do.

    Args:
      boxes: xyxy, of one unit within an image, sides > 0.
      image_of: the image of each object.
      k: edges of an object.

    Raises:
      ValueError: a box without area.
    """
    boxes = boxes.astype(np.float64)
    sides = boxes[:, 2:] - boxes[:, :2]
    if not (sides > 0).all():
        raise ValueError(f"box {int(np.flatnonzero(~(sides > 0).all(1))[0])} has no area")
    source, target = _pairs(image_of)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    apart = centre[target] - centre[source]
    distance = np.sqrt((apart * apart).sum(1) / sides[source].prod(1))
    edges = _table(source, target, (1 / (1 + distance)).astype(np.float32), len(boxes), k)
    there = edges.ids >= 0
    at = np.repeat(np.arange(len(boxes)), there.sum(1))
    to = edges.ids[there]
    relations = np.zeros((*edges.ids.shape, len(RELATIONS)), np.float32)
    apart = (centre[to] - centre[at]) / sides[at]
    length = np.sqrt(((centre[to] - centre[at]) ** 2).sum(1) / sides[at].prod(1))
    overlap = iou(boxes[at], boxes[to])
    relations[there] = np.column_stack([apart, np.log(sides[to] / sides[at]), overlap, length])
    return Spatial(edges, relations)


def iou(one: Float[np.ndarray, "n 4"], two: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
    """Intersection over union of boxes xyxy, pair by pair."""
    low, high = np.maximum(one[:, :2], two[:, :2]), np.minimum(one[:, 2:], two[:, 2:])
    shared = np.maximum(high - low, 0).prod(1)
    total = (one[:, 2:] - one[:, :2]).prod(1) + (two[:, 2:] - two[:, :2]).prod(1) - shared
    return shared / total


def context_view(
    beliefs: Float[np.ndarray, "O C"],
    boxes: Float[np.ndarray, "O 4"],
    image_of: Int[np.ndarray, " O"],
    class_weights: Float[np.ndarray, "C C"] | None = None,
) -> Float32[np.ndarray, "O D"]:
    """What surrounds each object, as features: alike surroundings have a high cosine.

    For each class and each ring of distance (up to 1, 2, 4 sizes of the object, and beyond), how much of the class is
    believed to be there, and how much to the left, right, above and below; square roots, so that many of one class do
    not drown the rest. Also the object's size relative to the mean of its image, its aspect, and, with `class_weights`,
    for each class how well it goes with the image's other objects. Uses the beliefs of the others, never its own.

    Args:
      beliefs: rows sum to 1: the teacher's softmax, or the label where one may be seen.
      boxes: xyxy, sides > 0.
      image_of: the image of each object.
      class_weights: from `class_co_occurrence`.
    """
    boxes, beliefs = boxes.astype(np.float64), beliefs.astype(np.float64)
    count, classes = beliefs.shape
    source, target = _pairs(image_of)
    centre, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    apart = centre[target] - centre[source]
    distance = np.sqrt((apart * apart).sum(1) / sides[source].prod(1))
    ring = np.searchsorted(np.asarray(RINGS), distance)
    wide = np.abs(apart[:, 0]) >= np.abs(apart[:, 1])
    side = np.where(wide, (apart[:, 0] > 0).astype(int), 2 + (apart[:, 1] > 0).astype(int))
    near = 1 / (1 + distance)
    around, beside = np.zeros((count, len(RINGS) + 1, classes)), np.zeros((count, 4, classes))
    for start in range(0, len(source), CHUNK // max(classes, 1)):
        part = slice(start, start + CHUNK // max(classes, 1))
        np.add.at(around, (source[part], ring[part]), beliefs[target[part]])
        np.add.at(beside, (source[part], side[part]), near[part, None] * beliefs[target[part]])
    image = np.unique(image_of, return_inverse=True)[1]
    size = np.sqrt(sides.prod(1))
    usual = np.bincount(image, size) / np.bincount(image)
    relative = size / usual[image]
    own = np.column_stack([relative / (1 + relative), 1 / (1 + relative), *(sides / sides.sum(1, keepdims=True)).T])
    parts = [np.sqrt(around).reshape(count, -1), np.sqrt(beside).reshape(count, -1), own]
    if class_weights is not None:
        others = around.sum(1)
        share = others / np.maximum(others.sum(1, keepdims=True), 1e-12)
        parts.append(np.maximum(share @ class_weights.astype(np.float64).T, 0.0))
    return np.concatenate(parts, axis=1).astype(np.float32)


def crop_view(
    images: Canvases,
    boxes: Float[np.ndarray, "O 4"],
    row_of: Int[np.ndarray, " O"],
    side: int = 12,
    margin: float = 0.1,
    like: int | None = None,
) -> Float32[np.ndarray, "O D"]:
    """The image inside each box, as features that can be compared: `side` x `side` x 3 in 0..1, mean colour taken off.

    Cells are the means of the pixels they cover (at least the one at their centre), so a large box is not sampled by
    chance. The mean colour over all crops is subtracted: otherwise everything bright is alike. The logs of the box's
    width and height, relative to the median, are added as two features, each of which weighs, at a factor of e, a tenth
    of what all pixels together do: a crop alone has lost its size. Mean and median are those of the boxes given: make
    the views of a pool and of held-out objects in one call, and part them afterwards.

    Args:
      images: canvases, uint8 `[N, H, W, 3]`, or what gives one by its row.
      boxes: xyxy in pixels of the canvases, sides > 0.
      row_of: the row in `images` of each box.
      side: cells an axis.
      margin: how much more than the box is seen, as a share of its sides, on each side.
      like: mean colour, median and weight are those of the first so many boxes; default: of all.
    """
    if not len(boxes):
        return np.zeros((0, side * side * 3 + 2), np.float32)
    boxes = boxes.astype(np.float64)
    sides = boxes[:, 2:] - boxes[:, :2]
    wide = np.concatenate([boxes[:, :2] - margin * sides, boxes[:, 2:] + margin * sides], axis=1)
    crops = np.empty((len(boxes), side, side, 3), np.float32)
    for row in np.unique(row_of).tolist():
        sums = np.zeros((images.shape[1] + 1, images.shape[2] + 1, 3), np.int64)
        sums[1:, 1:] = images[row].cumsum(0, dtype=np.int64).cumsum(1)
        for index in np.flatnonzero(row_of == row):
            crops[index] = _cells(sums, wide[index], side)
    crops /= np.float32(255)
    pixels = (crops - crops[:like].mean((0, 1, 2), dtype=np.float64).astype(np.float32)).reshape(len(boxes), -1)
    logs = np.log(sides)
    logs -= np.median(logs[:like], axis=0)
    usual = np.sqrt((pixels[:like].astype(np.float64) ** 2).sum(1).mean())
    return np.concatenate([pixels, (logs * usual * 0.1**0.5).astype(np.float32)], axis=1)


def _cells(sums: np.ndarray, box: np.ndarray, side: int) -> np.ndarray:
    """Mean colours of a grid of cells over a box, from sums of all pixels above and to the left."""
    height, width = sums.shape[0] - 1, sums.shape[1] - 1
    (left, right), (top, bottom) = (
        _bounds(box[axis], box[axis + 2], side, length) for axis, length in ((0, width), (1, height))
    )
    total = sums[bottom][:, right] - sums[top][:, right] - sums[bottom][:, left] + sums[top][:, left]
    return total / ((bottom - top)[:, None] * (right - left)[None, :])[..., None]


def _bounds(low: float, high: float, side: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last + 1 pixel of each cell; each has at least one, and all are inside."""
    edges = low + (high - low) * np.arange(side + 1) / side
    first = np.clip(np.floor(edges[:-1] + 0.5), 0, length - 1).astype(np.int64)
    last = np.clip(np.floor(edges[1:] + 0.5), 1, length).astype(np.int64)
    return first, np.maximum(last, first + 1)


def image_folds(
    labels: Int[np.ndarray, " O"], image_of: Int[np.ndarray, " O"], folds: int, seed: int = 0, replicate: int = 0
) -> Int32[np.ndarray, " O"]:
    """The fold of each labelled object, -1 where there is no label: all objects of an image are in one fold.

    A detector is trained on whole images, so a fold teacher that has seen one object of an image has seen them all.
    """
    known = labels >= 0
    images = np.unique(image_of[known])
    order = random.permutation("folds", seed, replicate, size=len(images))
    fold = np.empty(len(images), np.int32)
    fold[order] = np.arange(len(images)) % folds
    fold_of = np.full(len(labels), -1, np.int32)
    fold_of[known] = fold[np.searchsorted(images, image_of[known])]
    return fold_of


def _pairs(image_of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every ordered pair of different objects of one image, sorted by (source, target)."""
    order = np.argsort(image_of, kind="stable")
    _, first, counts = np.unique(image_of[order], return_index=True, return_counts=True)
    sources, targets = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start, count in zip(first, counts, strict=True):
        members = order[start : start + count]
        one, two = np.repeat(members, count), np.tile(members, count)
        sources.append(one[one != two])
        targets.append(two[one != two])
    source, target = np.concatenate(sources), np.concatenate(targets)
    by = np.lexsort((target, source))
    return source[by], target[by]


def _table(source: np.ndarray, target: np.ndarray, weights: np.ndarray, nodes: int, k: int) -> Edges:
    """The k heaviest edges of each source as a padded table, ties to the lower id."""
    weights = weights.astype(np.float32)
    order = np.lexsort((target, -weights, source))
    source, target, weights = source[order], target[order], weights[order]
    rank = np.arange(len(source)) - np.searchsorted(source, source)
    kept = rank < k
    table = Edges(np.full((nodes, k), -1, np.int32), np.zeros((nodes, k), np.float32))
    table.ids[source[kept], rank[kept]] = target[kept]
    table.weights[source[kept], rank[kept]] = weights[kept]
    return table
