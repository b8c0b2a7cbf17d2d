"""What is done with objects on the host."""

import numpy as np

from jkd.data.objects import ObjectSource
from jkd.evaluate.detection import SHOWN, shown
from jkd.tasks.objects import found, nodes_of


def test_what_is_explained_is_what_is_shown_sample_by_sample() -> None:
    boxes = np.float32([[[0, 0, 9, 9], [1, 1, 8, 8], [2, 2, 2.5, 9]], [[0, 0, 9, 9], [3, 3, 7, 7], [4, 4, 6, 6]]])
    predictions = {
        "boxes": boxes,
        "scores": np.float32([[0.9, SHOWN - 0.01, 0.9], [0.9, SHOWN, 0.5]]),  # unsure; sure enough
        "classes": np.int32([[0, 1, 2], [3, 4, 5]]),
        "mask": np.float32([[1, 1, 1], [0, 1, 1]]),
    }
    kept = shown(predictions)
    assert kept.tolist() == [[True, False, False], [False, True, True]]  # the third is half a pixel wide
    nodes = found(predictions)
    assert nodes.sample.tolist() == [0, 1, 1] and nodes.labels.tolist() == [-1, -1, -1]
    assert nodes.classes is not None and nodes.classes.tolist() == [0, 4, 5]
    np.testing.assert_array_equal(nodes.boxes, boxes[kept])


def test_of_nothing_found_there_is_nothing_to_explain() -> None:
    none = {"boxes": np.zeros((2, 3, 4), np.float32), "scores": np.ones((2, 3), np.float32)}
    none |= {"classes": np.zeros((2, 3), np.int32), "mask": np.ones((2, 3), np.float32)}
    assert not len(found(none).sample)


class Empty(ObjectSource):
    """A source in which nothing is annotated."""

    def __init__(self) -> None:
        self.shape = (32, 32, 3)
        self.image_of = self.object_classes = np.zeros(0, np.int32)
        self.object_boxes = np.zeros((0, 4), np.float32)

    def objects(self, index: np.ndarray) -> np.ndarray:
        return np.zeros(0, np.int32)


def test_what_a_teacher_finds_twice_in_one_place_is_one_node() -> None:
    """Suppression within a class keeps it as both of two classes: two boxes of one class would be learnt."""
    one, moved, other = [0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30]
    look = {
        "boxes": np.float32([[one, moved, other, other], [other, one, one, moved]]),
        "scores": np.float32([[0.9, 0.8, 0.7, 0.3], [0.9, 0.8, 0.0, 0.6]]),
        "classes": np.int32([[0, 1, 1, 0], [2, 1, 1, 0]]),
        "mask": np.float32([[1, 1, 1, 1], [1, 1, 0, 1]]),
    }
    nodes = nodes_of(Empty(), np.int32([4, 7]), np.int32([-1, -1]), lambda index: look)
    assert nodes.boxes is not None and nodes.classes is not None
    assert nodes.sample.tolist() == [4, 4, 7, 7] and nodes.classes.tolist() == [0, 1, 2, 1]
    np.testing.assert_array_equal(nodes.boxes, np.float32([one, other, other, one]))
