"""Bring your own teacher: a Python function, and a file of variables for it.

    def teacher(variables, images, train=False):
        ...
        return logits, {"embedding": features}

`images` are float32 `[B, H, W, C]`, `logits` `[B, classes]` and `embedding` `[B, D]`; other taps are welcome.
The function must be traceable by jax.
"""

import importlib
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jkd import digest
from jkd.errors import UserError, did_you_mean
from jkd.pretrained import own_source
from jkd.pretrained.tensors import read_tree

EXAMPLE = "Write it as 'module:function', for example 'my_teachers:resnet50'"


@dataclass(frozen=True)
class CallableTeacher:
    """A user's function with the signature of a model's `apply`.

    Attributes:
      function: `(variables, images, train=...) -> (logits, taps)`.
      variables: what it is called with, a tree of arrays (`{}` where no file was given).
      digest: SHA-256 over the name, the variables, and the files of the function's module and of all that it reaches
        and that is the user's own.
    """

    function: Callable[..., tuple[Array, dict[str, Array]]]
    variables: dict[str, Any]
    digest: str

    def apply(
        self,
        variables: dict[str, Any],
        images: Float[Array, "b h w c"],
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b k"], dict[str, Array]]:
        """Returns float32 logits and the taps, `embedding` in float32. `keys` are not handed on."""
        logits, taps = self.function(variables, images, train=train)
        return logits.astype(jnp.float32), taps | {"embedding": taps["embedding"].astype(jnp.float32)}


def load(fn: str, variables: str | Path, classes: int, shape: tuple[int, ...]) -> CallableTeacher:
    """Finds the function, reads its variables and checks, without running it, that the two can teach.

    Args:
      fn: `module:function`; the module is looked for wherever Python finds modules and in the current folder.
      variables: a safetensors file whose names are paths, `params/dense/kernel`, which become nested dicts;
        or "", for none.
      classes: how many logits are expected.
      shape: height, width and channels of an image.

    Raises:
      UserError: saying which of these does not fit, and what was expected.
    """
    module_name, function = _find(fn)
    tree = read_tree(variables) if variables else {}
    _check(fn, function, tree, classes, shape)
    made = digest.of_json(
        {
            "fn": fn,
            "source": own_source.digests(sys.modules[module_name], function),
            "variables": digest.of_leaves(tree),
        }
    )
    return CallableTeacher(function, jax.tree.map(jnp.asarray, tree), made)


def _find(fn: str) -> tuple[str, Callable[..., Any]]:
    module_name, colon, name = fn.partition(":")
    if not colon or not name.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise UserError(f"teacher.fn: '{fn}' is no name of a function. {EXAMPLE}.")
    module = _import(fn, module_name)
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(f"teacher.fn: {module_name} has no function '{name}'.{did_you_mean(name, known)}")
    return module_name, function


def _import(fn: str, name: str) -> ModuleType:
    folder = str(Path.cwd())
    if folder not in sys.path:  # `python -m` does this; an installed command does not
        sys.path.append(folder)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise UserError(
                f"teacher.fn: there is no module '{error.name}' in {folder} or on Python's path. Run jkd in "
                f"the module's folder or set PYTHONPATH. {EXAMPLE}."
            ) from None
        raise UserError(f"teacher.fn: {name} needs the module '{error.name}', which is not installed.") from None
    except Exception as error:
        raise UserError(f"teacher.fn: importing {name} for '{fn}' failed: {_short(error)}.") from error


def _check(fn: str, function: Callable[..., Any], variables: Any, classes: int, shape: tuple[int, ...]) -> None:
    """Traces the function on two images: shapes and types, no arithmetic."""
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    wanted = f"It is called as f(variables, images, train=False) with images float32 {list(images.shape)}"
    try:
        result = jax.eval_shape(lambda tree, images: function(tree, images, train=False), variables, images)
    except Exception as error:
        raise UserError(f"teacher.fn: '{fn}' failed: {_short(error)}. {wanted}.") from error
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
        raise UserError(f"teacher.fn: '{fn}' returned {_spell(result)}; expected a pair (logits, taps), taps a dict.")
    logits, taps = result
    if getattr(logits, "shape", None) != (2, classes) or not jnp.issubdtype(logits.dtype, jnp.floating):
        raise UserError(
            f"teacher.fn: '{fn}' returned logits {_spell(logits)}; expected floats [2, {classes}]. {wanted}."
        )
    if "embedding" not in taps:
        raise UserError(
            f"teacher.fn: the taps of '{fn}' have no 'embedding', from which the graph is built; they are "
            f"{sorted(map(str, taps))}. Add one [B, D], such as the input of the last layer."
        )
    embedding = taps["embedding"]
    if len(getattr(embedding, "shape", ())) != 2 or embedding.shape[0] != 2:
        raise UserError(f"teacher.fn: the 'embedding' of '{fn}' is {_spell(embedding)}; expected [2, D]. {wanted}.")


def _spell(value: Any) -> str:
    if hasattr(value, "shape"):
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__


def _short(error: Exception) -> str:
    """Type, first line of the message, and the last place in a file that is not jax's own."""
    message = (str(error).splitlines() or [""])[0]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {message}{where}"
