"""From a config file and command-line overrides to a checked config in which every student is spelled out."""

import ast
import importlib.util
import inspect
import math
import re
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from jkd import methods
from jkd.config.checks import check
from jkd.config.defaults import AUTO, default
from jkd.config.tree import as_dict, flatten
from jkd.errors import UserError, did_you_mean

RESERVED = ("teacher", "graph")  # what `--only` and `--student` call other parts
# keys whose value may be the word `auto` or a number
AUTO_NUMBERS = ("graph.strength", "graph.mix", "smoothing")


def load(spec: str) -> ConfigDict:
    """Runs `get_config(arg)` of a config file given as `FILE` or `FILE:arg` and returns its result, unchecked."""
    path, _, arg = spec.partition(":")
    if not Path(path).is_file():
        there = sorted(str(file) for file in Path(path).parent.glob("*.py")) if Path(path).parent.is_dir() else []
        hint = did_you_mean(path, there) or " Give a Python file that has get_config(arg)."
        raise UserError(f"--config: there is no file {path}.{hint}")
    module_spec = importlib.util.spec_from_file_location("jkd_config_file", path)
    if module_spec is None or module_spec.loader is None:
        raise UserError(f"--config: {path} is not a Python file. Give a file that has get_config(arg).")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
        config = _called(module, path, arg)
    except UserError:
        raise
    except SyntaxError as error:
        raise UserError(f"--config: {path} does not parse: {error}.") from None
    except Exception as error:
        raise _failed(path, error) from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config: get_config of {path} returned {type(config).__name__}, not a ConfigDict.")
    return config


def _called(module: ModuleType, path: str, arg: str) -> Any:
    """What the file's `get_config` returns."""
    if not hasattr(module, "get_config"):
        raise UserError(f"--config: {path} has no function get_config(arg).")
    if inspect.signature(module.get_config).parameters:
        return module.get_config(arg)
    if arg:
        raise UserError(f"--config: {path} has no variants, but ':{arg}' was given.")
    return module.get_config()


def _failed(path: str, error: Exception) -> UserError:
    """What the config file raised, and at which of its lines."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    where = f"{path}, line {lines[-1]}" if lines else path
    text = " ".join(str(error).split())
    return UserError(f"--config: {where} failed with {type(error).__name__}{f': {text}' if text else ''}.")


def variant(config: ConfigDict, arg: str, variants: Mapping[str, Callable[[ConfigDict], None]]) -> ConfigDict:
    """Applies the named deltas, `a,b` in order, to a config; an unknown name is a `UserError`."""
    for name in filter(None, arg.split(",")):
        if name not in variants:
            raise UserError(f"unknown variant ':{name}'.{did_you_mean(name, variants)}")
        variants[name](config)
    return config


def override(config: ConfigDict, path: str, text: str) -> None:
    """Sets `path` (as in `student.train.batch`) from a command-line text, typed as the default is."""
    keys = path.split(".")
    node: Any = config
    reference: Any = default()
    for depth, key in enumerate(keys[:-1]):
        where = ".".join(keys[:depth])
        reference = _reference(reference, where, key)
        if where == "students" and key not in node:
            raise UserError(f"--config.{path}: there is no student '{key}'.{did_you_mean(key, node)}")
        if key not in node:
            node[key] = ConfigDict(dict(), type_safe=False)
        if where.endswith("objective") and isinstance(node[key], int | float):  # the short form, `term = weight`
            with node.unlocked(), node.ignore_type():
                node[key] = ConfigDict({"weight": float(node[key])}, type_safe=False)
        node = node[key]
        if not isinstance(node, ConfigDict):
            raise UserError(f"--config.{path}: {'.'.join(keys[: depth + 1])} is a value and has no keys below it.")
    where, key = ".".join(keys[:-1]), keys[-1]
    expected = _reference(reference, where, key)
    if isinstance(expected, Mapping | ConfigDict):
        raise UserError(f"--config.{path}: this is a group; set one of its keys: {', '.join(sorted(expected))}.")
    value = _parse(text)
    problem = _type_problem(path, value, expected)
    if problem and isinstance(expected, str):
        value, problem = text, ""
    if problem:
        raise UserError(f"--config.{path}: {problem}")
    with node.unlocked(), node.ignore_type():
        node[key] = _coerce(value, expected)


def resolve(config: ConfigDict) -> ConfigDict:
    """Checks the whole tree and returns a locked copy in which every student is spelled out in full.

    Raises:
      UserError: naming the key, what was expected and what came, for the first unknown key, wrong type, value out of
        range or impossible combination.
    """
    resolved = default()
    _merge(resolved, config, "")
    students = {}
    for name, differs in (config.get("students") or {}).items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
            raise UserError(f"students: '{name}' is not a usable name. Use letters, digits, _ and -.")
        if name in RESERVED:
            raise UserError(f"students: '{name}' is the name of another part of a run. Choose another.")
        student = default().student
        spelled_out = isinstance(differs, Mapping | ConfigDict) and set(student) <= set(differs)
        if not spelled_out:  # as in a resolved config, which resolves to itself
            _merge(student, config.get("student", {}), "student")
        _merge(student, differs, f"students.{name}")
        students[name] = student
    with resolved.unlocked():
        resolved.students = ConfigDict(students)
    check(resolved)
    return resolved.lock()


def from_dict(tree: dict[str, Any]) -> ConfigDict:
    """The config that a manifest holds, checked again."""

    def tuples(value: Any) -> Any:
        if isinstance(value, dict):
            return ConfigDict({key: tuples(item) for key, item in value.items()}, type_safe=False)
        return tuple(tuples(item) for item in value) if isinstance(value, list) else value

    return resolve(tuples(tree))


def difference(config: ConfigDict) -> dict[str, Any]:
    """`{path: value}` of everything that is not the default; students are compared with `config.student`."""
    flat = flatten(as_dict(config))
    base = flatten(as_dict(default()))
    for name in config.students:
        base |= {f"students.{name}.{key}": value for key, value in flatten(as_dict(config.student)).items()}
    return {path: value for path, value in flat.items() if path not in base or base[path] != value}


def show(config: ConfigDict) -> str:
    """One `path = value` a line, those that differ from the default marked with `*`."""
    differs = difference(config)
    return "\n".join(
        f"{'*' if path in differs else ' '} {path} = {value!r}" for path, value in flatten(as_dict(config)).items()
    )


def _reference(reference: Any, where: str, key: str) -> Any:
    """What the default tree has at `where.key`, following students to `student` and objectives to `methods`."""
    if where == "students":
        return default().student
    if where == "graph.files":
        return ""
    if where.endswith("objective"):
        if key not in methods.METHODS:
            raise UserError(f"{where}: unknown objective term '{key}'.{did_you_mean(key, methods.METHODS)}")
        return methods.options(key)
    if key not in reference:
        raise UserError(f"{where + '.' if where else ''}{key}: unknown key.{did_you_mean(key, reference)}")
    return reference[key]


def _merge(into: ConfigDict, differs: Any, where: str) -> None:
    """Writes `differs` over the defaults `into`, checking names and types on the way."""
    if not isinstance(differs, Mapping | ConfigDict):
        raise UserError(f"{where}: expected a group of keys, got {differs!r}.")
    for key in differs:
        path = f"{where}.{key}" if where else key
        value = differs[key]
        if path == "students":
            continue
        expected = _reference(into, where, key)
        if where.endswith("objective"):
            if not value and not isinstance(value, Mapping | ConfigDict):
                if key in into:  # `term = 0` or None in a student drops a term of `config.student`
                    del into[key]
                continue
            term = ConfigDict(dict(into[key]) if key in into else expected, type_safe=False)
            weight = isinstance(value, int | float)
            _merge_values(term, {"weight": value} if weight else value, path, methods.options(key))
            into[key] = term
        elif isinstance(expected, Mapping | ConfigDict):
            _merge(into[key], value, path)
        else:
            _merge_values(into, {key: value}, where, {key: expected})


def _merge_values(into: ConfigDict, values: Any, where: str, reference: Mapping[str, Any]) -> None:
    if not isinstance(values, Mapping | ConfigDict):
        raise UserError(f"{where}: expected a weight or a group of keys, got {values!r}.")
    for key in values:
        path = f"{where}.{key}" if where else key
        if key not in reference:
            raise UserError(f"{path}: unknown key.{did_you_mean(key, reference)}")
        problem = _type_problem(path, values[key], reference[key])
        if problem:
            raise UserError(f"{path}: {problem}")
        with into.ignore_type():
            into[key] = _coerce(values[key], reference[key])


def _parse(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False}.get(text.lower(), text)


def _type_problem(path: str, value: Any, expected: Any) -> str:
    """Empty when `value` fits the type of the default, else what is wrong."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and not math.isfinite(value):
        return f"expected a finite number, got {value}."
    if any(path == key or path.endswith("." + key) for key in AUTO_NUMBERS):
        fits, wanted = number or value == AUTO, f"a number or '{AUTO}'"
    elif isinstance(expected, bool):
        fits, wanted = isinstance(value, bool), "True or False"
    elif isinstance(expected, int):
        fits, wanted = number and float(value).is_integer(), "a whole number"
    elif isinstance(expected, float):
        fits, wanted = number, "a number"
    elif isinstance(expected, tuple):
        wanted = f"a tuple like {expected!r}" if expected else "a tuple of texts"
        number_items = bool(expected) and all(isinstance(item, int | float) for item in expected)
        fits = isinstance(value, tuple | list) and all(
            isinstance(item, int | float) and not isinstance(item, bool) if number_items else isinstance(item, str)
            for item in value
        )
    else:
        fits, wanted = isinstance(value, str), "a text"
    return "" if fits else f"expected {wanted}, got {value!r} ({type(value).__name__})."


def _coerce(value: Any, expected: Any) -> Any:
    if isinstance(expected, tuple):
        return tuple(value)
    if isinstance(expected, float) and not isinstance(value, str):
        return float(value)
    if isinstance(expected, int) and not isinstance(expected, bool):
        return int(value)
    return float(value) if expected == AUTO and isinstance(value, int) else value
