"""A network taken out of its run: other programs read its weights, and its program needs no jkd."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jax import export

from jkd import build, cli, digest, files, parts, random
from jkd import config as configs
from jkd.errors import UserError
from jkd.parts import export as exporting
from jkd.pretrained import bert, darknet, darknet_weights, torch_images
from jkd.pretrained.tensors import read_tree

# What runs an exported program where there is no jkd: it prints the logits' digest.
ALONE = """
import hashlib, sys, jax, numpy as np
from jax import export
program = export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
logits = np.asarray(program.call(np.load(sys.argv[2]))["logits"])
assert not any(name.split(".")[0] in ("jkd", "flax") for name in sys.modules)
print(logits.shape, hashlib.sha256(logits.tobytes()).hexdigest())
"""
DIGITS = {"data": {"source": "digits", "limit": 40, "test_limit": 12, "mean": (0.3,), "std": (0.4,)}}
TREC = {"data": {"source": "trec", "limit": 60, "test_limit": 12, "max_length": 12, "vocabulary": 200}}
SHAPES = {"task": "detection", "data": {"source": "shapes", "image_size": 64, "limit": 12, "test_limit": 6}}
SHAPES |= {"graph": {"views": ("teacher", "crop")}}
NETWORKS = {
    "mlp": (DIGITS, {"model": "mlp", "width": 8, "depth": 1, "batch_norm": True}),
    "vgg": (DIGITS, {"model": "vgg8", "width": 4}),
    "resnet": (DIGITS, {"model": "resnet8", "width": 4}),
    "bert": (TREC, {"model": "bert", "width": 16, "depth": 1, "attention_heads": 2, "embedding_width": 8}),
    "bigru": (TREC, {"model": "bigru", "width": 8, "depth": 1}),
    "fasttext": (TREC, {"model": "fasttext", "width": 8, "rows": 64, "hidden": 8}),
    "yolo": (SHAPES, {"model": "yolo", "cfg": "small", "cfg_width": 0.5}),
}


@pytest.fixture(scope="module", autouse=True)
def unchecked() -> Iterator[None]:
    """jaxtyping cannot check sizes that are symbols, such as the number of samples of an exported program."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def _merge(config: Any, changes: dict[str, Any]) -> None:
    with config.unlocked():
        for key, value in changes.items():
            if isinstance(value, dict):
                _merge(config[key], value)
            else:
                config[key] = value


def _filled(module: Any, example: np.ndarray) -> Any:
    """Variables of a module, without the seconds that its `init` takes to compile; variances are positive."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), example)
    drawn = jax.tree.map(lambda leaf: np.float32(0.3 * rng.normal(size=leaf.shape)), shapes)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.abs(leaf) + 0.5 if path[-1].key == "var" else jnp.asarray(leaf), drawn
    )


@pytest.fixture(scope="module", params=NETWORKS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Session, module, drawn variables and the folder they were written to, of a network of each family."""
    changes, network = NETWORKS[request.param]
    config = configs.default()
    _merge(config, changes)
    _merge(config, {"teacher": network | {"embedding_width": 0} if "width" in network else network, "student": network})
    config.students = {"only": {"objective": {"yolo" if changes is SHAPES else "cross_entropy": 1.0}}}
    session = build.open_session(configs.resolve(config))
    network = session.config.students["only"]
    module, inputs = session.module(network), session.inputs_of(network)
    variables = _filled(module, inputs.example(1))
    folder = tmp_path_factory.mktemp("exported") / "out"
    said = parts.export_network(session, network, session.apply_of(network), variables, {"run": "test"}, folder)
    assert f"wrote {folder}: " in said and "test samples the program's answers are within " in said
    return session, network, variables, folder


def test_the_program_answers_any_number_of_samples_as_the_network_does(written: Any):
    session, network, variables, folder = written
    program = export.deserialize(bytearray((folder / "program.jax").read_bytes()))
    inputs, test = session.inputs_of(network), session.dataset.test
    ours = session.predictor(session.apply_of(network), network)(variables, test, np.arange(5))
    for count in (1, 5):
        read = inputs.read(test, np.arange(count), max(inputs.lengths, default=0))
        theirs = program.call(read)
        assert set(theirs) == set(ours)
        for name, array in theirs.items():
            np.testing.assert_allclose(np.float32(array), np.float32(ours[name][:count]), rtol=1e-4, atol=1e-4)
    if inputs.lengths:  # how far a text is filled up is no matter
        filled = np.full_like(read, inputs.tokenizer.pad)
        filled[:, :8] = read[:, :8]
        short, long = program.call(read[:, :8])["logits"], program.call(filled)["logits"]
        np.testing.assert_allclose(short, long, rtol=1e-4, atol=1e-5)
    assert program.platforms == ("cpu", "cuda", "tpu")


def test_what_is_written_about_it_is_true(written: Any):
    session, network, _, folder = written
    about = files.read_signed(folder / "network.json")
    assert {path.name for path in folder.iterdir()} == {"network.json", *about["files"]}
    assert all(digest.of_file(folder / name) == sha for name, sha in about["files"].items())
    assert about["classes"] == list(session.dataset.classes) and about["model"] == network.model
    inputs = session.inputs_of(network)
    read = inputs.read(session.dataset.test, np.arange(1), max(inputs.lengths, default=0))
    assert about["input"] == {
        "dtype": read.dtype.name,
        "shape": ["b", "l"] if inputs.lengths else ["b", *read.shape[1:]],
    }
    keys = {"images": {"image_size", "mean", "std"}, "texts": {"max_length"}}
    keys["objects"] = {"image_size", "fit", "interpolation"}
    assert about["data"].keys() == {"kind"} | keys[about["data"]["kind"]] and about["run"] == "test"


def test_the_weights_are_read_back_by_their_family(written: Any):
    session, network, variables, folder = written
    module, flat = session.module(network), digest.flatten(variables)
    if network.model == "bert":  # its factorised word table is multiplied out, which is the same network
        wide = bert.module_of(folder, len(session.dataset.classes))
        back = digest.flatten(bert.load(folder, wide, random.key("init", 0)).variables)
        table = np.asarray(flat["params/word/embedding"]) @ np.asarray(flat.pop("params/projection/kernel"))
        flat["params/word/embedding"] = table
        names = files.read_json(folder / "config.json")["id2label"]
        assert list(names.values()) == list(session.dataset.classes)
    elif network.model == "yolo":
        cfg = darknet.load(folder / "model.cfg")
        assert (cfg.net.height, cfg.net.width) == session.dataset.shape[:2]
        back = digest.flatten(darknet_weights.load(folder / "model.weights", cfg)[0])
        assert (folder / "model.names").read_text().split() == list(session.dataset.classes)
    elif network.model.startswith(("vgg", "resnet")):
        back = digest.flatten(torch_images.load(folder / "model.safetensors", module, session.dataset.shape))
    else:
        back = digest.flatten(read_tree(folder / "model.safetensors"))
    assert set(back) == set(flat)
    for name, array in flat.items():
        np.testing.assert_allclose(np.asarray(back[name]), np.asarray(array), rtol=1e-6, atol=1e-7, err_msg=name)


def test_a_program_that_answers_otherwise_is_not_written(written: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    session, network, variables, _ = written
    made = exporting._program
    changed = jax.tree.map(lambda leaf: leaf * 1.5 + 0.1, variables)
    monkeypatch.setattr(exporting, "_program", lambda a, b, c, _: made(a, b, c, changed))
    with pytest.raises(UserError, match=r"the program gives other .* so nothing was written"):
        parts.export_network(session, network, session.apply_of(network), variables, {}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_student_of_a_run_answers_alike_where_there_is_no_jkd(done: Any, tmp_path: Path):
    out = tmp_path / "out"
    assert cli.main(["export", f"--workdir={done.workdir}", "--student=kd/0", "--replicate=1", f"--to={out}"]) == 0
    about, folder = files.read_signed(out / "network.json"), parts.Place(done.workdir, 1).student("kd", 0)
    result = files.read_signed(folder / "result.json")
    assert (about["student"], about["replicate"]) == ("kd/0", 1)
    assert about["params"] == result["params"] and about["metrics"] == result["metrics"]
    shape = about["input"]["shape"]
    images = np.random.default_rng(0).integers(0, 256, (3, *shape[1:]), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    arguments = ["-P", "-c", ALONE, str(out / "program.jax"), str(tmp_path / "images.npy")]
    process = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    here = export.deserialize(bytearray((out / "program.jax").read_bytes())).call(images)["logits"]
    assert here.shape == (3, len(about["classes"]))
    assert process.stdout.split()[-1] == hashlib.sha256(np.asarray(here).tobytes()).hexdigest()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--student=kd/9"], "kd has no seed 9"),
        (["--student=kd"], "expected NAME/SEED or 'teacher'"),
        (["--student=kd/0", "--replicate=7"], "holds no finished part"),
        (["--student=kd/0", "--to=."], "is there and not empty"),
    ],
)
def test_mistakes_are_one_message(done: Any, tmp_path: Path, capsys: Any, flags: list[str], words: str):
    (tmp_path / "mine").write_text("")
    flags = [flag.replace("--to=.", f"--to={tmp_path}") for flag in flags]
    to = [] if any("--to" in flag for flag in flags) else [f"--to={tmp_path / 'out'}"]
    assert cli.main(["export", f"--workdir={done.workdir}", *flags, *to]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "out").exists()
