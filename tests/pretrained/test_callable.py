import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jkd.errors import UserError
from jkd.pretrained.callable import load

SOURCE = """
import jax
import jax.numpy as jnp

def linear(variables, images, train=False):
    x = images.reshape(images.shape[0], -1)
    return (x @ variables["dense"]["kernel"]).astype(jnp.bfloat16), {"embedding": x}

@jax.jit
def jitted(variables, images, train=False):
    return images.sum((1, 2)) @ jnp.ones((1, 3)), {"embedding": images.mean((1, 2))}

def alone(variables, images, train=False):
    return images.sum((1, 2)) @ jnp.ones((1, 3))

def no_embedding(variables, images, train=False):
    return alone(variables, images), {"hidden": images}

def wide_embedding(variables, images, train=False):
    return alone(variables, images), {"embedding": images}

def integers(variables, images, train=False):
    return jnp.zeros((2, 3), int), {"embedding": images}

def nothing(variables, images, train=False):
    return None, {"embedding": images}

def no_train(variables, images):
    return alone(variables, images), {"embedding": images.mean((1, 2))}

def broken(variables, images, train=False):
    return variables["missing"], {}
"""
SHAPE = (2, 2, 1)
NUMBER = itertools.count()


@pytest.fixture
def name(tmp_path, monkeypatch):
    """A module in the current folder, with a name no other test has imported."""
    made = f"own_teacher_{next(NUMBER)}"
    (tmp_path / f"{made}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield made
    sys.modules.pop(made, None)


@pytest.fixture
def weights(tmp_path):
    kernel = np.arange(12, dtype=np.float32).reshape(4, 3)
    save_file({"dense/kernel": kernel}, tmp_path / "weights.safetensors")
    return str(tmp_path / "weights.safetensors")


def test_a_function_with_a_file_teaches(name, weights):
    teacher = load(f"{name}:linear", weights, classes=3, shape=SHAPE)
    images = jnp.arange(20, dtype=jnp.float32).reshape(5, *SHAPE)
    logits, taps = jax.jit(teacher.apply)(teacher.variables, images)
    assert logits.dtype == taps["embedding"].dtype == jnp.float32
    expected = images.reshape(5, 4) @ np.arange(12, dtype=np.float32).reshape(4, 3)
    np.testing.assert_allclose(logits, expected, rtol=1e-2)


def test_a_jitted_function_without_a_file_teaches(name):
    teacher = load(f"{name}:jitted", "", classes=3, shape=SHAPE)
    assert teacher.variables == {}
    assert teacher.apply({}, jnp.ones((4, *SHAPE)))[0].shape == (4, 3)


def test_digest_covers_source_name_and_variables(name, weights, tmp_path):
    def made(function="linear"):
        return load(f"{name}:{function}", weights, classes=3, shape=SHAPE).digest

    first = made()
    assert made() == first
    assert made("jitted") != first
    save_file({"dense/kernel": np.zeros((4, 3), np.float32)}, weights)
    other_variables = made()
    (tmp_path / f"{name}.py").write_text(SOURCE + "\n# a change\n")
    assert len({first, other_variables, made()}) == 3


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("liner", "has no function 'liner'. Did you mean 'linear'"),
        ("alone", "returned float32 .*expected a pair"),
        ("no_embedding", r"no 'embedding', .*\['hidden'\]"),
        ("wide_embedding", r"'embedding' of .* is float32 \[2, 2, 2, 1\]; expected \[2, D\]"),
        ("integers", r"logits int32 \[2, 3\]; expected floats \[2, 3\]"),
        ("nothing", r"logits NoneType; expected floats"),
        ("no_train", "unexpected keyword argument 'train'"),
        ("broken", "KeyError: 'missing' .*line 32"),
    ],
)
def test_a_function_that_does_not_fit_is_refused(name, function, message):
    with pytest.raises(UserError, match=message):
        load(f"{name}:{function}", "", classes=3, shape=SHAPE)


def test_another_number_of_classes_is_refused(name):
    with pytest.raises(UserError, match=r"logits float32 \[2, 3\]; expected floats \[2, 7\]"):
        load(f"{name}:jitted", "", classes=7, shape=SHAPE)


@pytest.mark.parametrize("fn", ["module", "module:", ":f", "a.b:c.d", "../x:f", "module:f g"])
def test_a_misspelt_name_is_refused(fn):
    with pytest.raises(UserError, match="Write it as 'module:function'"):
        load(fn, "", classes=3, shape=SHAPE)


def test_a_missing_module_is_refused(name):
    with pytest.raises(UserError, match="there is no module 'nowhere_to_be_found'"):
        load("nowhere_to_be_found.inside:f", "", classes=3, shape=SHAPE)


def test_a_module_that_cannot_be_imported_is_refused(name, tmp_path):
    (tmp_path / "needs_more.py").write_text("import not_installed_here\n")
    (tmp_path / "does_not_parse.py").write_text("def f(:\n")
    (tmp_path / "raises.py").write_text("\n1 / 0\n")
    with pytest.raises(UserError, match="needs the module 'not_installed_here', which is not installed"):
        load("needs_more:f", "", classes=3, shape=SHAPE)
    with pytest.raises(UserError, match=r"importing does_not_parse .*SyntaxError"):
        load("does_not_parse:f", "", classes=3, shape=SHAPE)
    with pytest.raises(UserError, match=r"ZeroDivisionError: division by zero \(.*raises\.py, line 2\)"):
        load("raises:f", "", classes=3, shape=SHAPE)


def test_a_missing_file_of_variables_is_refused(name):
    with pytest.raises(UserError, match=r"none\.safetensors is not a file"):
        load(f"{name}:linear", "none.safetensors", classes=3, shape=SHAPE)
