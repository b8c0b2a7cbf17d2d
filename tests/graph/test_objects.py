import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.data.object_sets import load
from jkd.graph import build_graph, neighbours
from jkd.graph.objects import (
    RELATIONS,
    class_co_occurrence,
    class_edges,
    co_occurs,
    context_view,
    crop_view,
    image_folds,
    iou,
    spatial,
)


@pytest.fixture(scope="module")
def shapes():
    return load(dict(source="shapes", limit=150, test_limit=1))[0]


@st.composite
def objects(draw):
    """Boxes on a coarse grid (so that distances tie), their images and classes."""
    count = draw(st.integers(0, 14))
    whole = st.integers(0, 4)
    corners = [(draw(whole), draw(whole), draw(st.integers(1, 3)), draw(st.integers(1, 3))) for _ in range(count)]
    boxes = np.asarray([(x, y, x + w, y + h) for x, y, w, h in corners], np.float64).reshape(-1, 4)
    image_of = np.asarray([draw(st.integers(0, 3)) for _ in range(count)], np.int64)
    classes = np.asarray([draw(st.integers(-1, 2)) for _ in range(count)], np.int64)
    return boxes, image_of, classes


@given(objects(), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_spatial_edges_are_the_nearest_within_the_image_in_order(made, k):
    boxes, image_of, _ = made
    edges, relations = spatial(boxes, image_of, k)
    assert edges.ids.shape == edges.weights.shape == (len(boxes), k) and relations.shape[-1] == len(RELATIONS)
    for i in range(len(boxes)):
        centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        far = np.sqrt(((centre - centre[i]) ** 2).sum(1) / size[i].prod())
        weight = (1 / (1 + far)).astype(np.float32)
        others = [j for j in range(len(boxes)) if j != i and image_of[j] == image_of[i]]
        expected = sorted(others, key=lambda j: (-weight[j], j))[:k]
        assert edges.ids[i].tolist() == expected + [-1] * (k - len(expected))
        for rank, j in enumerate(expected):
            dx, dy, log_w, log_h, overlap, distance = relations[i, rank]
            assert edges.weights[i, rank] == weight[j]
            np.testing.assert_allclose((dx, dy), (centre[j] - centre[i]) / size[i], atol=1e-6)
            np.testing.assert_allclose((log_w, log_h), np.log(size[j] / size[i]), atol=1e-6)
            assert 0 <= overlap <= 1 and distance == pytest.approx(far[j], abs=1e-6)
        assert (relations[i, len(expected) :] == 0).all()


@given(objects(), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_co_occurring_objects_are_of_classes_that_go_together(made, k):
    _, image_of, classes = made
    pairs = np.asarray([[0.2, 0.5, -0.1], [0.5, 0.5, 0.0], [-0.1, 0.0, 0.3]], np.float32)
    edges = co_occurs(classes, image_of, pairs, k)
    for i in range(len(classes)):
        others = [
            j for j in range(len(classes)) if j != i and image_of[j] == image_of[i] and min(classes[i], classes[j]) >= 0
        ]
        others = [j for j in others if pairs[classes[i], classes[j]] > 0]
        expected = sorted(others, key=lambda j: (-pairs[classes[i], classes[j]], j))[:k]
        assert edges.ids[i].tolist() == expected + [-1] * (k - len(expected))


def test_co_occurrence_counts_images():
    image_of = np.repeat(np.arange(8), 2)
    classes = np.asarray([0, 1] * 4 + [2, 2] * 4)
    weights = class_co_occurrence(classes, image_of, 4, smoothing=0.0)
    # p(0) = p(1) = p(0, 1) = 1/2: lift 2. 2 is never with 0, and always in pairs. 3 is in no image.
    np.testing.assert_allclose(weights[0], [-1, 0.5, -1, 0])
    np.testing.assert_allclose(weights[2], [-1, -1, 0.5, 0])
    assert (weights[3] == 0).all()
    np.testing.assert_array_equal(weights, weights.T)
    drawn_in = class_co_occurrence(classes, image_of, 4)
    assert 0 < drawn_in[0, 1] < 0.5 and -1 < drawn_in[0, 2] < 0


def test_a_class_that_is_everywhere_tells_nothing():
    image_of = np.repeat(np.arange(5), 3)
    classes = np.tile([0, 0, 1], 5)
    classes[2] = 2
    weights = class_co_occurrence(classes, image_of, 3, smoothing=0.0)
    np.testing.assert_allclose(weights[0], [0, 0, 0], atol=1e-7)


@given(objects())
@settings(max_examples=40, deadline=None)
def test_co_occurrence_is_bounded_and_ignores_names_and_order(made):
    _, image_of, classes = made
    weights = class_co_occurrence(classes, image_of, 3)
    assert np.isfinite(weights).all() and (np.abs(weights) <= 1).all()
    turn = np.random.default_rng(0).permutation(len(classes))
    np.testing.assert_array_equal(weights, class_co_occurrence(classes[turn], 70 - image_of[turn], 3))


def test_class_edges_leave_out_oneself_and_what_is_not_drawn():
    weights = np.asarray([[0.9, 0.2, 0.2], [0.2, 0.9, -0.3], [0.1, -0.3, 0.9]], np.float32)
    edges = class_edges(weights, 2)
    assert edges.ids.tolist() == [[1, 2], [0, -1], [0, -1]]
    np.testing.assert_allclose(edges.weights, [[0.2, 0.2], [0.2, 0], [0.1, 0]])


def test_iou_of_boxes_by_hand():
    one = np.asarray([[0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 1, 1]], np.float64)
    two = np.asarray([[1, 1, 3, 3], [0, 0, 2, 2], [1, 0, 2, 1]], np.float64)
    np.testing.assert_allclose(iou(one, two), [1 / 7, 1, 0])


def test_a_box_without_area_is_named():
    with pytest.raises(ValueError, match="box 1 has no area"):
        spatial(np.asarray([[0, 0, 1, 1], [2, 2, 2, 3]], np.float64), np.zeros(2, np.int64), 2)


def test_surroundings_never_use_an_objects_own_belief(shapes):
    boxes, image_of = shapes.object_boxes, shapes.image_of
    beliefs = np.eye(6, dtype=np.float32)[shapes.object_classes]
    plain = context_view(beliefs, boxes, image_of)
    changed = beliefs.copy()
    changed[7] = 1 / 6
    moved = (context_view(changed, boxes, image_of) != plain).any(1)
    assert not moved[7] and moved.any() and set(image_of[moved]) == {image_of[7]}


def test_alike_surroundings_are_those_of_one_class(shapes):
    classes, image_of = shapes.object_classes, shapes.image_of
    beliefs = np.eye(6, dtype=np.float32)[classes]
    weights = class_co_occurrence(classes, image_of, 6)
    edges = neighbours(context_view(beliefs, shapes.object_boxes, image_of, weights), 8)
    chance = (np.bincount(classes) / len(classes)) @ (np.bincount(classes) / len(classes))
    same = (classes[np.maximum(edges.ids, 0)] == classes[:, None])[edges.ids >= 0].mean()
    assert same > chance + 0.1


def test_cells_of_a_crop_are_means_of_pixels():
    image = np.random.default_rng(0).integers(0, 256, (1, 12, 16, 3), dtype=np.uint8)
    boxes = np.asarray([[2, 1, 10, 9], [-4, -4, 4, 4]], np.float64)
    made = crop_view(image, boxes, np.zeros(2, np.int64), side=4, margin=0.0)
    cells = image[0, 1:9, 2:10].reshape(4, 2, 4, 2, 3).mean((1, 3)) / 255
    other = np.empty((4, 4, 3))  # cells outside the image repeat the pixel at its border
    at = [slice(0, 1), slice(0, 1), slice(0, 2), slice(2, 4)]
    for y, x in np.ndindex(4, 4):
        other[y, x] = image[0, at[y], at[x]].mean((0, 1)) / 255
    expected = np.stack([cells, other])
    expected -= expected.mean((0, 1, 2))
    np.testing.assert_allclose(made[:, :-2], expected.reshape(2, -1), atol=1e-6)
    np.testing.assert_allclose(made[:, -2:], 0, atol=1e-6)  # both boxes have the same sides


def test_crops_of_images_read_one_at_a_time_are_the_same():
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    boxes, rows = np.asarray([[0, 0, 8, 8], [2, 2, 9, 12], [4, 4, 12, 12]], np.float64), np.asarray([0, 2, 2])

    class OneAtATime:
        shape = images.shape

        def __getitem__(self, row: int) -> np.ndarray:
            return images[row]

    np.testing.assert_array_equal(crop_view(OneAtATime(), boxes, rows), crop_view(images, boxes, rows))


def test_crops_know_the_size_of_their_boxes():
    image = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    boxes = np.asarray([[0, 0, 8, 8], [0, 0, 16, 8], [4, 4, 12, 12]], np.float64)
    made = crop_view(image, boxes, np.asarray([0, 1, 1]))
    assert made.dtype == np.float32 and made.shape == (3, 12 * 12 * 3 + 2)
    assert made[1, -2] > made[0, -2] == made[2, -2] == made[1, -1] == 0
    assert crop_view(image, boxes[:0], np.zeros(0, np.int64)).shape == (0, 12 * 12 * 3 + 2)


def test_an_image_is_in_one_fold_and_folds_are_even():
    image_of = np.repeat(np.arange(20), 3)
    labels = np.where(image_of % 4 == 3, -1, image_of % 2)
    fold_of = image_folds(labels, image_of, 5)
    assert (fold_of[labels < 0] == -1).all()
    for image in range(20):
        assert len(set(fold_of[image_of == image])) == 1
    assert np.bincount(fold_of[labels >= 0]).tolist() == [9] * 5
    assert not np.array_equal(fold_of, image_folds(labels, image_of, 5, replicate=1))


def test_the_builder_takes_it_all_as_views(shapes):
    """As a task calls it: nodes are training objects, views are features or edges of width k."""
    some = shapes.objects(np.arange(40))
    boxes, image_of = shapes.object_boxes[some], shapes.image_of[some]
    beliefs = np.full((len(some), 6), 0.1, np.float32)
    beliefs[np.arange(len(some)), shapes.object_classes[some]] = 0.5
    labels = np.where(image_of % 2, shapes.object_classes[some], -1)
    weights = class_co_occurrence(labels, image_of, 6)
    k = 4
    views = {
        "crop": crop_view(shapes.images(np.arange(40)), boxes, image_of),
        "context": context_view(beliefs, boxes, image_of, weights),
        "spatial": spatial(boxes, image_of, k).edges,
        "co_occurs": co_occurs(beliefs.argmax(1), image_of, weights, k),
    }
    graph = build_graph(
        sample=some,
        features=beliefs,
        beliefs=beliefs,
        labels=labels,
        classes=shapes.classes,
        views=views,
        settings=dict(views=("teacher", *views), k=k, temperature=0.1, rounds=5, predicted_as=2, block=64),
    )
    assert graph.neighbours.shape == (5, len(some), k) and graph.views[-1] == "co_occurs"
