"""Teachers that are not trained here, end to end: a user's own function, and VGG weights in torch's layout."""

import importlib
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jkd import config as configs
from jkd import files, replay, run
from jkd.errors import UserError
from jkd.models import build_model
from jkd.pretrained import callable as callable_teacher
from jkd.pretrained import torch_images

OWN = """
import jax.numpy as jnp

def teacher(variables, images, train=False):
    rows = images.reshape(images.shape[0], -1)
    hidden = jnp.maximum(rows @ variables["hidden"]["kernel"], 0.0)
    return hidden @ variables["out"]["kernel"], {"embedding": hidden}
"""
GIVEN = {"graph__diagnosis": "none", "student__graph__view": "mean", "student__graph__strength": 0.8}
GIVEN |= {"student__graph__mix": 0.5}
AVERAGED = {"batch_norm": True, "train__steps": 4, "train__steps_per_call": 2}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A module and a file of variables; the changes to a config that name them."""
    (tmp_path / "own_teacher.py").write_text(OWN)
    rng = np.random.default_rng(0)
    kernels = {"hidden/kernel": rng.normal(size=(64, 24)), "out/kernel": rng.normal(size=(24, 10))}
    files.write_arrays(tmp_path / "own.safetensors", {key: it.astype(np.float32) for key, it in kernels.items()})
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_teacher", raising=False)
    importlib.invalidate_caches()
    return {"teacher__fn": "own_teacher:teacher", "teacher__variables": str(tmp_path / "own.safetensors")}


@pytest.mark.long
def test_a_users_own_function_teaches_with_a_hold_out(
    tiny: Any, own: dict[str, Any], tmp_path: Path, compilations: Any
):
    config = tiny.config(**own, graph__diagnosis="holdout", data__val=0.2, seeds=(0,))
    for name in ("cross_entropy", "kd"):
        del config.students[name]
    with compilations() as compiled:
        summary = run.distill(config, tmp_path / "run", quiet=True)
    assert summary is not None
    assert compiled.count("train_steps") == 1 and compiled.count("forward") == 2  # not once per replicate
    assert summary["teacher"]["metrics"]["accuracy"]["n"] == 2
    assert summary["labels"] == {"train": 40, "choose": 60}
    folder = tmp_path / "run" / "replicates" / "0" / "teacher"
    result = files.read_json(folder / "result.json")
    assert summary["teacher"]["digests"] == {"0/0": result["params"], "1/0": result["params"]}
    assert not (folder / "variables.safetensors").exists()
    assert run.evaluate(tmp_path / "run", "teacher")["accuracy"] == result["metrics"]["accuracy"]


def test_a_users_own_function_teaches_without_a_diagnosis(tiny: Any, own: dict[str, Any], tmp_path: Path):
    run.distill(tiny.config(**own, **GIVEN), tmp_path / "run", only="kd/0", replicate=0, quiet=True)
    result = files.read_json(tmp_path / "run/replicates/0/students/kd/0/result.json")
    assert result["labels"] == {"train": 40, "choose": 0} and result["metrics"]["agreement"] is not None


def test_a_changed_function_is_another_teacher(tiny: Any, own: dict[str, Any], tmp_path: Path):
    config = tiny.config(**own, **GIVEN, seeds=(0,), replicates=1)
    run.distill(config, tmp_path / "run", only="graph", quiet=True)
    with (tmp_path / "own_teacher.py").open("a") as file:
        file.write("# the same, but who would know\n")
    with pytest.raises(UserError, match=r"replicates/0/teacher holds a part made from other inputs; .* loaded: "):
        run.distill(config, tmp_path / "run", only="graph", quiet=True)


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("import own_helper", "own_helper.py"),
        ("from own_helper import SCALE", "own_helper.py"),
        ("from own_package.below import SCALE", "own_package/__init__.py"),
        ("from own_package.below import SCALE", "own_package/below.py"),
        ("import own_package.below", "own_package/beside.py"),
        ("def late():\n    import own_helper", "own_helper.py"),
        ("import importlib\nSCALE = importlib.import_module('own_helper').SCALE", "own_helper.py"),
    ],
)
def test_what_a_function_imports_is_part_of_it(
    own: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, file: str
):
    (tmp_path / "own_helper.py").write_text("SCALE = 1.0\n")
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").write_text("")
    (tmp_path / "own_package" / "below.py").write_text("from .beside import SCALE\n")
    (tmp_path / "own_package" / "beside.py").write_text("import jax\nSCALE = 1.0\n")
    (tmp_path / "own_teacher.py").write_text(f"{OWN}\n{line}\n")
    for name in ("own_helper", "own_package", "own_package.below", "own_package.beside"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    def made() -> str:
        return callable_teacher.load("own_teacher:teacher", own["teacher__variables"], 10, (8, 8, 1)).digest

    before = made()
    (tmp_path / "apart.py").write_text("a = 1\n")
    assert made() == before  # again, with all of it imported
    with (tmp_path / file).open("a") as source:
        source.write("# changed\n")
    assert made() != before


def test_raw_images_are_what_the_function_asked_for(tiny: Any, own: dict[str, Any], tmp_path: Path):
    """Where `fn` normalises by itself, it sees pixels in 0..1."""
    source = OWN.replace("rows = images", "images = (images - 0.3) / 0.37\n    rows = images")
    (tmp_path / "own_raw.py").write_text(source)
    common = dict(own, **GIVEN, seeds=(0,), replicates=1)
    run.distill(tiny.config(**common), tmp_path / "a", only="graph", quiet=True)
    common |= {"teacher__fn": "own_raw:teacher", "teacher__normalize": False}
    run.distill(tiny.config(**common), tmp_path / "b", only="graph", quiet=True)
    logits = [files.read_arrays(tmp_path / x / "replicates/0/teacher/predictions.safetensors")["logits"] for x in "ab"]
    np.testing.assert_allclose(*logits, rtol=1e-3, atol=1e-3)


def test_vgg_weights_in_torch_layout_teach_from_an_npz(tiny: Any, tmp_path: Path):
    rng = np.random.default_rng(1)
    labels = {split: np.arange(count) % 3 for split, count in (("train", 48), ("test", 24))}
    arrays = {f"{split}_labels": it for split, it in labels.items()}
    for split, it in labels.items():
        arrays[f"{split}_images"] = (rng.integers(0, 90, (len(it), 8, 8)) + 70 * it[:, None, None]).astype(np.uint8)
    np.savez(tmp_path / "three.npz", **arrays)
    weights = tmp_path / "vgg8.safetensors"
    changes = {"data__source": "npz", "data__path": str(tmp_path / "three.npz"), "teacher__weights": str(weights)}
    changes |= {f"data__{key}": 0 for key in ("limit", "test_limit", "pool", "labels")}
    changes |= {"student__train__steps": 4, "student__train__steps_per_call": 1}
    config = tiny.config(**changes, **GIVEN, teacher__model="vgg8", teacher__width=1)
    module = build_model(config.teacher, 3)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    torch_images.save(
        weights, jax.tree.map(lambda leaf: np.abs(0.3 * rng.normal(size=leaf.shape)).astype(np.float32), shapes), module
    )
    run.distill(configs.resolve(config), tmp_path / "run", only="kd/1", replicate=1, quiet=True)
    teacher, student = (
        files.read_json(tmp_path / "run" / "replicates" / "1" / part / "result.json")
        for part in ("teacher", "students/kd/1")
    )
    assert teacher["steps"] == 0 and student["steps"] == 4 and student["metrics"]["agreement"] is not None
    assert run.evaluate(tmp_path / "run", "teacher", replicate=1)["nll"] == teacher["metrics"]["nll"]
    weights.write_bytes(b"not weights")
    with pytest.raises(UserError, match=r"vgg8\.safetensors is not a readable"):
        run.distill(config, tmp_path / "other", quiet=True)
    assert not (tmp_path / "other").exists()


def test_pmap_trains_networks_that_average_over_a_batch_and_is_replayed(tiny: Any, tmp_path: Path):
    changes = {f"{network}__{key}": value for network in ("teacher", "student") for key, value in AVERAGED.items()}
    config = tiny.config(**changes, parallelism="pmap", devices=2)
    run.distill(config, tmp_path / "run", only="kd/0", replicate=0, quiet=True)
    found = list(replay.replay(tmp_path / "run", quiet=True))
    assert len(found) == 2 and not any(each.code for each in found)


@pytest.mark.long
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"devices": 2}, marks=pytest.mark.slow),
        {"devices": 4},
        pytest.param({"devices": 2, "parallelism": "pmap"}, marks=pytest.mark.slow),
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_more_devices_give_the_same_to_tolerance(tiny: Any, done: Any, tmp_path: Path, changes: dict[str, Any]):
    run.distill(tiny.config(**changes), tmp_path, only="knowledge_graph/0", replicate=0, quiet=True)
    for part in ("teacher", "students/knowledge_graph/0"):
        one, many = (root / "replicates" / "0" / part for root in (done.workdir, tmp_path))
        outputs = [files.read_arrays(folder / "predictions.safetensors")["logits"] for folder in (one, many)]
        np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-3, atol=1e-3)
        lines = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (one, many)]
        assert len(lines[0]) == len(lines[1]) == 4
