"""The methods in a run: every published one for images, and what is refused of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from jkd import build, run
from jkd import config as configs
from jkd.errors import UserError
from jkd.parts.check import check
from jkd.train import metrics


@pytest.fixture
def ablation(request: pytest.FixtureRequest, root: Path, tmp_path: Path) -> ConfigDict:
    """`configs/ablations/image_methods.py` on 300 images of noise, with networks an eighth as wide."""
    variant = getattr(request, "param", "")
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split in ("train", "test"):
        arrays[f"{split}_labels"] = np.arange(300) % 10
        arrays[f"{split}_images"] = rng.integers(0, 256, (300, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", **arrays)
    config = configs.load(f"{root}/configs/ablations/image_methods.py{variant}")
    config.data.update(source="npz", path=str(tmp_path / "data.npz"), val=0.2)
    config.teacher.width = config.student.width = config.student.width // 8
    config.seeds = (0,)
    for network in (config.teacher, config.student):
        network.train.update(steps=3, epochs=0, batch=16, log_every=1, checkpoint_every=3, eval_every=0)
    return config


@pytest.mark.parametrize("ablation", ["", ":cifar100,resnet32x4_8x4", ":cifar100,wrn_40_2_40_1"], indirect=True)
def test_every_row_of_the_ablation_goes_together(ablation: ConfigDict) -> None:
    config = configs.resolve(ablation)
    assert ("fsp" in config.students) == (config.teacher.model != "wrn_40_2") and len(config.students) > 30
    check(build.open_session(config))


@pytest.mark.slow
def test_all_their_terms_train_together(ablation: ConfigDict, tmp_path: Path) -> None:
    terms: dict[str, Any] = {}
    for student in ablation.students.values():
        terms |= student.objective.to_dict()
    everything = {"objective": terms, "graph": {"edges": "real", "inject": False}}
    ablation.students = ConfigDict({"all": everything}, type_safe=False)
    ablation.report.reference = "all"
    run.distill(ablation, tmp_path / "run", quiet=True)
    lines = metrics.read(tmp_path / "run/replicates/0/students/all/0/metrics.jsonl")
    last = next(line for line in reversed(lines) if "crd" in line)
    assert {"review", "hkd", "fsp", "vid_0", "vid_3", "overhaul_3", "irg_transformation"} <= set(last)
    assert all(np.isfinite(value) for value in last.values())


@pytest.mark.parametrize("term", ["crd", "hkd"])
def test_terms_of_taps_and_logits_are_not_for_objects(term: str, tmp_path: Path, root: Path) -> None:
    config = configs.load(f"{root}/configs/shapes.py:smoke")
    neck = {"student_tap": "neck0", "teacher_tap": "neck0", "weight": 1.0}
    config.students = ConfigDict({"it": {"objective": {"yolo": 1.0, term: neck}}}, type_safe=False)
    config.report.reference = "it"
    with pytest.raises(UserError, match=rf"students\.it\.objective\.{term}: it compares taps of images with logits"):
        run.distill(config, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
