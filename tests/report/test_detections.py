"""Cards of detectors: which images they show, and that a picture stands in the page once."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jkd.report.detections import alike, card, cards


def box(x: float, kind: int = 0, score: float | None = 0.9) -> dict[str, Any]:
    return {"box": [float(x), 0.0, x + 10.0, 10.0], "class": kind, "score": score}


def test_alike_pairs_boxes_of_one_class_that_overlap() -> None:
    assert alike([], []) == 1 and alike([box(0)], []) == 0
    assert alike([box(0), box(40)], [box(1)]) == pytest.approx(1 / 2)
    assert alike([box(0)], [box(0, kind=1)]) == 0 and alike([box(0)], [box(6)]) == 0
    assert alike([box(0), box(0)], [box(0)]) == pytest.approx(1 / 2)


@pytest.fixture
def dataset() -> Any:
    truth = SimpleNamespace(boxes=np.float64([[0, 0, 10, 10]]), classes=np.int32([0]), crowd=np.zeros(1, bool))
    test = SimpleNamespace(
        truth=lambda index: truth,
        placement=lambda index: SimpleNamespace(to_canvas=lambda boxes: boxes),
        id=lambda index: f"<{index}>",
        images=lambda index: np.zeros((len(index), 32, 32, 3), np.uint8),
    )
    return SimpleNamespace(test=test)


def found(places: list[float]) -> dict[str, np.ndarray]:
    boxes = np.float32([[[x, 0, x + 10, 10]] for x in places])
    ones = np.ones((len(places), 1), np.float32)
    return {"boxes": boxes, "scores": ones, "classes": np.zeros((len(places), 1), np.int32), "mask": ones}


def test_cards_show_the_best_the_worst_and_the_strangest(dataset: Any) -> None:
    made = cards(dataset, found([0, 20, 1]), found([0, 20, 40]), 3)
    assert {one["kind"]: one["sample"] for one in made} == {
        "best found": 0,
        "misses or invents": 1,
        "differs from the teacher": 2,
    }
    assert [len(made[0][side]) for side in ("truth", "teacher", "student")] == [1, 1, 1]
    assert len(cards(dataset, found([0, 20, 1]), found([0, 20, 40]), 12)) == 3


def test_a_card_carries_its_picture_once_and_escapes_names(dataset: Any) -> None:
    html = card(cards(dataset, found([0]), found([0]), 1)[0], dataset, ["<b>"])
    assert html.count("data:image/png") == 1 and html.count('<use href="#image0"/>') == 2
    assert html.count("<rect") == 3 and "<b>" not in html and "&lt;0&gt;" in html


def test_the_surest_boxes_are_explained_by_training_objects(dataset: Any) -> None:
    five = np.float32([[[x, 0, x + 4, 4] for x in (0, 5, 10, 15, 20)]] * 2)
    scores = np.float32([[0.4, 0.9, 0.1, 0.5, 0.8]] * 2)  # the third is not shown
    student = {"boxes": five, "scores": scores, "classes": np.ones((2, 5), np.int32), "mask": np.ones((2, 5))}
    asked: list[int] = []

    def explain(row: int) -> dict[str, Any]:
        asked.append(row)
        near = {"sample": 1, "box": [30.2, 30.2, 50.0, 50.0], "class": 0, "edge": "instance_of", "belief": 0.5}
        near |= {"weight": 1.0, "cosine": 0.25, "id": "<i>#0"}
        return {"neighbours": [near], "alone": row % 2, "agrees": bool(row % 2)}

    made = cards(dataset, student, student, 2, explain)
    assert sorted(asked) == [1, 2, 3, 5, 6, 7]  # four boxes are shown of each image, by place; three are explained
    assert all("neighbours" not in box for card in made for box in (*card["truth"], *card["teacher"]))
    dataset.train = dataset.test
    html = card(made[0], dataset, ["<b>", "two"])
    assert html.count('<ul class="neighbours">') == 3 and "&lt;i&gt;#0" in html and "<i>" not in html
    first = made[0]["sample"] * 4
    agreeing = sum((first + place) % 2 for place in (1, 2, 3))
    assert html.count("as the student does") == agreeing and html.count("do not explain") == 3 - agreeing
