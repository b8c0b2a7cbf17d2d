"""`launch/repeat.py`: which student it kills."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def repeat(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("repeat", root / "launch" / "repeat.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("variant", "student"), [("", "cnn"), (":plain", "cnn"), (":text", "bert"), (":objects", "yolo")]
)
def test_of_each_variant_one_of_a_step_a_call_is_killed(repeat: ModuleType, root: Path, variant: str, student: str):
    assert repeat.killed_student(f"{root}/configs/repeat.py{variant}") == student


def test_another_must_be_one_too(repeat: ModuleType, root: Path):
    assert repeat.killed_student(f"{root}/configs/repeat.py", "mlp") == "mlp"
    for name in ("mlp_chunks", "nobody"):
        with pytest.raises(SystemExit, match=f"--student={name}: expected a student of .* with steps_per_call = 1"):
            repeat.killed_student(f"{root}/configs/repeat.py", name)
