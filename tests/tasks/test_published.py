"""Published networks from pixels to detections, with the program that training and evaluation run."""

from pathlib import Path

import jax
import numpy as np
import pytest

from jkd import config as configs
from jkd import run
from jkd.models.yolo import Yolo
from jkd.pretrained import darknet, darknet_weights
from jkd.tasks.detection import detect, heads_of
from jkd.tasks.objects import found_of

MODELS = ("yolo-fastest-1.1", "yolo-fastest-1.1-xl")


@pytest.mark.parametrize("name", MODELS)
def test_pixels_give_the_detections_of_an_independent_implementation(shared: Path, name: str):
    folder = shared / "data" / "yolo_fastest"
    golden = np.load(shared / "golden" / "yolo" / f"{name}.npz", allow_pickle=False)
    cfg = darknet.load(folder / f"{name}.cfg")
    module = Yolo(cfg)
    variables, _ = darknet_weights.load(folder / f"{name}.weights", cfg)
    photos = sorted(key.removesuffix("_input") for key in golden if key.endswith("_input"))
    images = np.concatenate([golden[f"{photo}_input"] for photo in photos]).astype(np.float32) / 255

    def answer(images: jax.Array) -> object:
        heads, _ = module.apply(variables, images)
        return detect(heads, heads_of(module, (320, 320, 3)), (320, 320), score_threshold=0.25, one_class=True)

    for photo, found in zip(photos, found_of(jax.jit(answer)(images)), strict=True):
        wanted = golden[f"{photo}_detections"]
        assert found.classes.tolist() == wanted[:, 0].astype(int).tolist(), photo
        np.testing.assert_allclose(found.scores, wanted[:, 1], atol=1e-3)
        corners = np.concatenate([wanted[:, 2:4], wanted[:, 2:4] + wanted[:, 4:6]], 1) * 320
        np.testing.assert_allclose(found.boxes, corners, atol=1.0)


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "map50"), [("subset", 0.379), ("subset,small", 0.296)])
def test_published_weights_have_the_average_precision_of_an_independent_implementation(
    root: Path, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str, map50: float
):
    """On the 64 validation images, of detections that score 0.2 or more: its reader of such networks drops others."""
    monkeypatch.chdir(root)
    config = configs.load(f"configs/coco.py:{variant}")
    for key in ("data.path", "data.names", "teacher.cfg", "teacher.weights", "student.cfg", "student.init"):
        group, name = key.split(".")
        config[group][name] = config[group][name].replace("../shared", str(shared))
    run.distill(config, tmp_path / "run", only="teacher", quiet=True)
    found = run.evaluate(tmp_path / "run", "teacher", min_score=0.2)
    assert found["map50"] == pytest.approx(map50, abs=0.01)
