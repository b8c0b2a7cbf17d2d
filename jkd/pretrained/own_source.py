"""Which files a user's function is made of: its module's, and those of the user's own modules that this reaches."""

import ast
import importlib.util
import inspect
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from jkd import digest

STANDARD = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]


def digests(module: ModuleType, function: Callable[..., Any]) -> list[str]:
    """SHA-256 of every file that a user's function is made of, sorted.

    These are the file of its module, the one that it is written in if another, and of all that these import or hold
    something of, and so on, as far as it is the user's own: neither installed nor a part of Python or jkd.

    Which modules the import has added to `sys.modules` would tell less: whatever was imported before is not added.
    """
    paths = {getattr(module, "__file__", None)}
    try:
        paths.add(inspect.getsourcefile(inspect.unwrap(function)))
    except TypeError:  # no Python function: an object with __call__, a compiled one
        paths.add(inspect.getsourcefile(type(function)) if not inspect.isbuiltin(function) else None)
    found = {str(Path(path).resolve()): module.__name__ for path in paths if path and Path(path).is_file()}
    waiting = dict(found)
    while waiting:
        path, name = waiting.popitem()
        for other in _named_in(path, name) | _held_by(name):
            file = _file_of(other)
            if file and file not in found and _is_own(file):
                found[file] = waiting[file] = other
    return sorted(map(digest.of_file, found))


def _named_in(path: str, module: str) -> set[str]:
    """Names that a source file imports, wherever in it; some are of no module, but of what one holds."""
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (SyntaxError, ValueError):  # compiled
        return set()
    package = module if Path(path).name == "__init__.py" else module.rpartition(".")[0]
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            origin = ".".join(filter(None, (above, node.module)))
            names |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                names.add(node.args[0].value)
    return {name.rsplit(".", cut)[0] for name in names if name for cut in range(name.count(".") + 1)}


def _held_by(name: str) -> set[str]:
    """Names of the modules that a module holds, and of those that what it holds was written in."""
    held = list(vars(sys.modules[name]).values()) if name in sys.modules else []
    names = {value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "") for value in held}
    return {name for name in names if isinstance(name, str)}


def _file_of(name: str) -> str | None:
    """The file of a module, also of one that is imported only once the function runs; None where there is none."""
    if name in sys.modules:
        path = getattr(sys.modules[name], "__file__", None)
    else:
        above = name.rpartition(".")[0]
        if above and (_file_of(above) is None or not _is_own(str(_file_of(above)))):
            return None  # to look below a package imports it
        try:
            spec = importlib.util.find_spec(name)
        except Exception:  # no such module; or its package cannot be imported, which the function will tell
            return None
        path = spec.origin if spec and spec.has_location else None
    return str(Path(path).resolve()) if path and Path(path).is_file() else None


def _is_own(path: str) -> bool:
    """Whether a file lies outside the standard library, installed packages and jkd, which the manifest tells of."""
    where = Path(path)
    if {"site-packages", "dist-packages"} & set(where.parts):
        return False
    return not any(where.is_relative_to(folder) for folder in (*STANDARD, Path(__file__).resolve().parents[1]))
