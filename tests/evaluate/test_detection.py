"""Average precision: equal to golden pycocotools figures, by hand in small cases, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from jkd.evaluate import agreement_of_boxes, coco, ms_per_image, voc_ap50, voc_map50
from jkd.evaluate.detection import COCO_FIGURES, Found, Truth

NOTHING = Found(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
EMPTY = Truth(np.zeros((0, 4)), np.zeros(0, int))
BOX = np.array([[10.0, 10.0, 60.0, 60.0]])
FAR = BOX + 200


def found(*rows: tuple[np.ndarray, float, int]) -> Found:
    boxes = np.concatenate([box for box, _, _ in rows])
    return Found(boxes, np.array([score for _, score, _ in rows]), np.array([kind for _, _, kind in rows]))


def truth(*rows: tuple[np.ndarray, int], **flags: np.ndarray) -> Truth:
    return Truth(np.concatenate([box for box, _ in rows]), np.array([kind for _, kind in rows]), **flags)


@pytest.fixture(scope="module")
def golden(shared: Path) -> tuple[dict, list[Found], list[Truth]]:
    content = json.loads((shared / "golden" / "map" / "bccd_val.json").read_text())
    images = [image["id"] for image in content["ground_truth"]["images"]]

    def arrays(notes: list[dict], image: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        own = [note for note in notes if note["image_id"] == image]
        boxes = np.array([note["bbox"] for note in own]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        kinds = np.array([note["category_id"] - 1 for note in own], int)
        return boxes, np.array([note.get("score", 0) for note in own]), kinds

    there = [arrays(content["ground_truth"]["annotations"], image) for image in images]
    return content, [Found(*arrays(content["detections"], it)) for it in images], [Truth(it[0], it[2]) for it in there]


def test_equals_golden_figures(golden: tuple, capsys: pytest.CaptureFixture) -> None:
    content, detections, there = golden
    result = coco(detections, there, 3)
    np.testing.assert_allclose([result.figures[name] for name in COCO_FIGURES], content["coco_stats"], atol=1e-6)
    np.testing.assert_allclose(np.mean(result.classes), result.figures["map"], atol=1e-9)
    np.testing.assert_allclose(np.mean(result.classes50), result.figures["map50"], atol=1e-9)
    assert capsys.readouterr().out == ""


def test_voc_equals_golden(golden: tuple) -> None:
    content, detections, there = golden
    np.testing.assert_allclose(voc_ap50(detections, there, 3), list(content["voc_ap50"].values()), atol=1e-6)
    np.testing.assert_allclose(voc_map50(detections, there, 3), content["voc_map50"], atol=1e-6)
    # Eleven points look at the same curve, more coarsely.
    assert abs(voc_map50(detections, there, 3, eleven_point=True) - content["voc_map50"]) < 0.03


def test_all_found_once_is_one_and_an_unseen_class_is_none() -> None:
    images = [found((BOX, 0.9, 0)), NOTHING, found((FAR, 0.8, 2), (BOX, 0.8, 2))]
    there = [truth((BOX, 0)), EMPTY, truth((BOX, 2), (FAR, 2))]
    result = coco(images, there, 3)
    one = pytest.approx(1)
    assert result.classes == [one, None, one] and result.figures["map"] == one
    assert result.figures["map_small"] is None and result.figures["recall_1"] == pytest.approx(0.75)
    assert voc_ap50(images, there, 3) == voc_ap50(images, there, 3, eleven_point=True) == [one, None, one]


@pytest.mark.parametrize("images", [[NOTHING, NOTHING], [found((FAR, 0.9, 0)), found((BOX, 0.9, 1))]])
def test_nothing_right_is_zero(images: list[Found]) -> None:
    there = [truth((BOX, 0)), EMPTY]
    result = coco(images, there, 2)
    assert result.figures["map50"] == 0 and result.classes == [0.0, None] and voc_map50(images, there, 2) == 0


@pytest.mark.parametrize("images", [[NOTHING], [found((BOX, 0.9, 0))]])
def test_no_true_box_anywhere_is_none(images: list[Found]) -> None:
    assert set(coco(images, [EMPTY], 1).figures.values()) == {None}
    assert voc_map50(images, [EMPTY], 1) is None


def test_duplicates_are_wrong_and_the_first_of_equal_scores_counts_first() -> None:
    twice = found((BOX, 0.9, 0), (BOX, 0.8, 0), (FAR, 0.7, 0))
    there = [truth((BOX, 0), (FAR, 0))]
    area = 0.5 + 0.5 * 2 / 3
    assert voc_ap50([twice], there, 1) == [pytest.approx(area)]
    assert voc_ap50([twice], there, 1, eleven_point=True) == [pytest.approx((6 + 5 * 2 / 3) / 11)]
    for order, wanted in (((BOX, FAR), 1.0), ((FAR, BOX), 0.5)):
        assert voc_ap50([found(*((box, 0.5, 0) for box in order))], [truth((BOX, 0))], 1) == [wanted]
        assert coco([found(*((box, 0.5, 0) for box in order))], [truth((BOX, 0))], 1).classes50 == [
            pytest.approx(wanted, abs=1e-6)
        ]


def test_difficult_boxes_count_neither_way_and_crowds_forgive_many() -> None:
    images, yes = [found((FAR, 0.9, 0), (BOX, 0.8, 0))], np.array([False, True])
    there = [truth((BOX, 0), (FAR, 0), difficult=yes)]
    assert voc_ap50(images, there, 1) == [1.0]
    assert voc_ap50([found((BOX, 0.8, 0))], there, 1) == [1.0]
    crowd = [truth((BOX, 0), (FAR, 0), crowd=yes)]
    low, high = FAR + np.array([0, 0, -30, -30]), FAR + np.array([30, 30, 0, 0])
    inside = [found((low, 0.9, 0), (high, 0.9, 0), (BOX, 0.8, 0))]
    assert coco(inside, crowd, 1).figures["map"] == pytest.approx(1) and voc_ap50(inside, crowd, 1) == [1.0]


def test_agreement_pairs_boxes_of_a_class_once() -> None:
    one = [found((BOX, 0.9, 0), (BOX, 0.8, 0), (FAR, 0.7, 1), (FAR, 0.1, 0)), NOTHING]
    other = [found((BOX + 1, 0.5, 0), (FAR, 0.6, 2)), found((BOX, 0.9, 0))]
    assert agreement_of_boxes(one, other) == agreement_of_boxes(other, one) == 1 / 5
    assert agreement_of_boxes(one, one) == agreement_of_boxes([NOTHING], [NOTHING]) == 1


def test_given_areas_decide_about_sizes() -> None:
    images = [found((BOX, 0.9, 0))]
    assert coco(images, [truth((BOX, 0))], 1).figures["map_medium"] == pytest.approx(1)
    assert coco(images, [truth((BOX, 0), area=np.array([100.0]))], 1).figures["map_small"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("images", "there", "message"),
    [
        ([], [], "at least 1; got 0 and 0"),
        ([NOTHING], [EMPTY, EMPTY], "got 1 and 2"),
        ([found((BOX, 0.9, 2))], [EMPTY], r"image 0, found: expected classes in \[0, 2\), got \[2\]"),
        ([found((BOX, np.nan, 0))], [EMPTY], "image 0, found: expected finite"),
        ([NOTHING], [Truth(BOX, np.array([0, 1]))], "image 0, truth: expected boxes"),
    ],
)
def test_refuses_what_does_not_belong_together(images: list, there: list, message: str) -> None:
    for figures in (coco, voc_ap50):
        with pytest.raises(ValueError, match=message):
            figures(images, there, 2)


def test_speed_is_the_median_and_the_first_call_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, took = [0.0], iter([100.0, 0.3, 0.1, 0.2])

    def work(scale: int) -> np.ndarray:
        clock[0] += scale * next(took)
        return np.zeros(1)

    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    assert ms_per_image(work, 2, images=4, repeats=3) == pytest.approx(100)
    with pytest.raises(ValueError, match="got 0 and 3"):
        ms_per_image(work, 2, images=0, repeats=3)
