"""What a finished network says of new inputs: images, texts, images with objects."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jkd import files, manifest
from jkd.cli import main
from jkd.data import open_dataset
from jkd.errors import Damaged, UserError
from jkd.predict import predict

STUDENT = "knowledge_graph/1"


@pytest.fixture(scope="module")
def pictures(done: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first test digits as PNGs, some of them in a folder below; and one that is none."""
    folder = tmp_path_factory.mktemp("new")
    (folder / "more").mkdir()
    test = open_dataset(manifest.read(done.workdir)[0].data).test
    for number, pixels in enumerate(test.images(np.arange(6))):
        Image.fromarray(pixels[..., 0]).save(folder / ("more" if number > 3 else "") / f"{number}.png")
    (folder / "broken.png").write_bytes(b"not an image")
    (folder / "notes.txt").write_text("no image, either")
    return folder


def test_new_images_get_the_answers_that_the_test_split_got(done: Any, pictures: Path):
    answers = list(predict(done.workdir, STUDENT, pictures, replicate=1))
    assert [each["input"] for each in answers] == [
        *(f"{n}.png" for n in range(4)),
        "more/4.png",
        "more/5.png",
        "broken.png",
    ]
    assert "error" in answers.pop()
    part = done.workdir / "replicates/1/students" / STUDENT
    stored = files.read_arrays(part / "predictions.safetensors")
    logits = stored["logits"][:6]
    beliefs = np.exp(logits - logits.max(-1, keepdims=True))
    beliefs /= beliefs.sum(-1, keepdims=True)
    for each, row in zip(answers, beliefs, strict=True):
        (answer,) = each["answers"]
        assert list(answer["beliefs"]) == [str(digit) for digit in range(10)]
        np.testing.assert_allclose(list(answer["beliefs"].values()), row, rtol=1e-4, atol=1e-7)
        assert answer["class"] == str(row.argmax()) and answer["score"] == max(answer["beliefs"].values())


def test_neighbours_are_those_of_the_test_splits_projection(done: Any, pictures: Path):
    part = done.workdir / "replicates/1/students" / STUDENT
    stored = files.read_arrays(part / "predictions.safetensors")
    answers = list(predict(done.workdir, STUDENT, pictures, replicate=1, neighbours=3))[:6]
    train = open_dataset(manifest.read(done.workdir)[0].data).train
    known = {train.id(index) for index in range(len(train))}
    cosines = stored["projection"][:6] @ stored["nodes"].T
    for each, row in zip(answers, cosines, strict=True):
        (answer,) = each["answers"]
        near = [one["cosine"] for one in answer["neighbours"]]
        np.testing.assert_allclose(near, np.sort(row)[::-1][:3], atol=1e-5)
        assert sum(one["weight"] for one in answer["neighbours"]) == pytest.approx(1)
        assert {one["id"] for one in answer["neighbours"]} <= known and answer["alone"] in answer["beliefs"]
    plain = next(predict(done.workdir, STUDENT, pictures / "0.png", replicate=1, neighbours=0))
    assert plain["input"] == "0.png" and "neighbours" not in plain["answers"][0]


def test_a_projection_that_is_not_what_was_written_is_refused(copied: Path, pictures: Path):
    path = copied / "replicates/1/students" / STUDENT / "projection.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damaged, match=r"projection\.safetensors"):
        list(predict(copied, STUDENT, pictures, replicate=1))


def test_the_command_writes_a_line_for_each_input(done: Any, pictures: Path, tmp_path: Path, capsys: Any):
    where = [f"--workdir={done.workdir}", "--student=teacher", f"--inputs={pictures}"]
    assert main(["predict", *where]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main(["predict", *where, f"--to={tmp_path / 'answers.jsonl'}"]) == 0
    assert [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()] == printed
    assert len(printed) == 7 and "neighbours" not in printed[0]["answers"][0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "there is no .*nowhere"),
        ("notes.txt", "is no image by its ending"),
        ("empty", "there is no image in"),
    ],
)
def test_inputs_that_are_none_are_refused(done: Any, pictures: Path, name: str, message: str):
    if name == "empty":
        (pictures / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        list(predict(done.workdir, "teacher", pictures / name))
