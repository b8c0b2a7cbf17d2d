"""What is done with objects on the host."""

import numpy as np

from jkd.tasks.objects import SHOWN, found, shown


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
