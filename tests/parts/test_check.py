"""What is refused before anything is made, and what is not."""

from pathlib import Path

import numpy as np

from jkd import build
from jkd import config as configs
from jkd.parts.check import check


def test_every_row_of_the_ablation_over_image_methods_goes_together(root: Path, tmp_path: Path) -> None:
    labels = np.arange(300, dtype=np.int64) % 10
    images = np.zeros((300, 32, 32, 3), np.uint8)
    arrays = {
        f"{split}_{name}": it for split in ("train", "test") for name, it in (("images", images), ("labels", labels))
    }
    np.savez(tmp_path / "data.npz", **arrays)
    config = configs.load(f"{root}/configs/ablations/image_methods.py")
    config.data.update(source="npz", path=str(tmp_path / "data.npz"), val=0.2)
    config.teacher.width = config.student.width = 8
    config = configs.resolve(config)
    assert "fsp" in config.students and len(config.students) > 30
    check(build.open_session(config))
