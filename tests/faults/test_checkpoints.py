"""Checkpoints killed while they are written, cut, flipped, altered: never used damaged, never silently forgotten."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jkd.errors import UserError
from jkd.train import checkpoint

INPUTS = "made of this"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _kept(folder: Path) -> Path:
    """A copy beside a folder: a checkpoint that is found to be damaged is removed."""
    return Path(shutil.copytree(folder, folder.with_name("whole")))


def _put_back(whole: Path, folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(whole, folder)


@pytest.mark.fault(1)
@pytest.mark.timeout(300)
def test_killed_anywhere_in_a_save_it_ends_in_the_same_bits(tries: Any, root: Path, tmp_path: Path):
    wanted = tries.count(8, 50)
    command = [sys.executable, str(root / "tests/faults/saver.py"), str(tmp_path), str(wanted), "7"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    trials = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(trials) == wanted
    for trial in trials:
        with tries(trial):
            assert len(trial["digest"]) == 64 and trial["digest"] == trial["whole"]
            assert trial["there"] == ["5", "5.json", "6", "6.json"]  # nothing of the kill stays behind
    assert any("tmp" in name for trial in trials for name in trial["left"])  # the kills did hit


@pytest.mark.fault(3)
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_cut_file_is_found_and_the_checkpoint_before_is_used(tries: Any, two: Path, restored: Any, share: float):
    whole = _kept(two)
    for path in [*_files(two / "2"), two / "2.json"]:
        if not path.stat().st_size:
            continue
        with tries(path.name):
            os.truncate(path, int(path.stat().st_size * share))
            step, warned = restored(two)
            assert step == 1 and len(warned) == 1 and "Going on from step 1." in warned[0]
            assert str(two / "2") in warned[0] and checkpoint.steps(two) == [1]
        _put_back(whole, two)
    assert restored(two) == (2, [])


@pytest.mark.fault(4)
def test_a_flipped_bit_anywhere_is_found(tries: Any, two: Path, restored: Any, flip: Any, chance: Any):
    """Whether or not the file it is in bears on a leaf: each file is as likely as any other."""
    whole = _kept(two)
    for _ in range(tries.count(25, 200)):
        path = chance.choice([path for path in [*_files(two / "2"), two / "2.json"] if path.stat().st_size])
        bit = chance.randrange(8 * path.stat().st_size)
        with tries(f"bit {bit} of {path.name}"):
            flip(path, bit)
            step, warned = restored(two)
            assert step == 1 and len(warned) == 1
        _put_back(whole, two)


@pytest.mark.fault(3)
def test_a_missing_and_an_added_file_are_found(tries: Any, two: Path, restored: Any):
    whole = _kept(two)
    for path in [*_files(two / "2"), two / "2.json"]:
        if path.name == checkpoint.SEALED:
            continue
        with tries(path.name):
            path.unlink()
            assert restored(two)[0] == 1
        _put_back(whole, two)
    with tries("a file more"):
        (two / "2" / "more").write_text("")
        assert restored(two)[0] == 1


@pytest.mark.fault(7)
@pytest.mark.parametrize("how", ["cut", "flipped", "without folders", "empty sidecars", "without sidecars"])
def test_where_all_are_bad_nothing_starts_over(two: Path, restored: Any, flip: Any, how: str):
    for step in ("1", "2"):
        path = _files(two / step)[0]
        if how == "cut":
            os.truncate(path, path.stat().st_size // 2)
        elif how == "flipped":
            flip(path, 11)
        elif how == "without folders":
            shutil.rmtree(two / step)
        elif how == "without sidecars":
            (two / f"{step}.json").unlink()
        else:
            (two / f"{step}.json").write_text("{}")
    with pytest.raises(UserError, match=r"no sound checkpoint in \S+: .*/2\S* .*/1\S* .*Delete the folder to start"):
        restored(two)
    if how != "without folders":
        assert all(_files(two / step) for step in ("1", "2"))


@pytest.mark.fault(8, 9)
def test_leaves_of_another_shape_or_type_missing_and_more_are_all_listed(tmp_path: Path, make_state: Any):
    written, wanted = make_state(3), make_state(3)
    checkpoint.save(tmp_path, written, INPUTS)
    params = {**wanted.params, "layer2": {"bias": np.zeros(4, np.float32)}}
    params["layer0"] = {"kernel": np.zeros((8, 16), np.float32), "bias": np.zeros(16, np.float16)}
    del params["layer1"]
    with pytest.raises(UserError) as caught:
        checkpoint.restore(tmp_path, wanted.replace(params=params), INPUTS)
    said = str(caught.value)
    assert f"checkpoint {tmp_path / '3'} does not fit: " in said
    for problem in (
        "params/layer0/kernel: expected float32[8, 16], got float32[16, 16]",
        "params/layer0/bias: expected float16[16], got float32[16]",
        "params/layer2/bias: expected float32[4], got nothing",
        "params/layer1/kernel: not expected",
        "params/layer1/bias: not expected",
    ):
        assert problem in said
    assert said.count("expected") == 5


@pytest.mark.fault(9)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int32"])
def test_no_type_is_cast(tmp_path: Path, make_state: Any, dtype: str):
    state = make_state(3)
    checkpoint.save(tmp_path, state, INPUTS)
    other = state.replace(params=jax.tree.map(lambda leaf: leaf.astype(np.dtype(dtype)), state.params))
    with pytest.raises(UserError) as caught:
        checkpoint.restore(tmp_path, other, INPUTS)
    assert str(caught.value).count(f"expected {dtype}[") == len(jax.tree.leaves(state.params))
