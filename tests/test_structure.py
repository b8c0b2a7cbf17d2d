"""The house: dependencies point down, no circles, no file over 400 lines, no task named outside its place."""

import ast
import re
from pathlib import Path

import pytest

# From the top down; a part may import what stands below it, and from its own line.
ORDER = (
    ("cli",),
    ("run", "replay"),
    ("parts", "report"),
    ("manifest", "share", "interpret", "progress"),
    ("build",),
    ("networks",),
    ("train",),
    ("objective", "compress"),
    ("tasks",),
    ("graph", "pretrained"),
    ("evaluate", "losses", "models", "data"),
    ("environment",),
    (
        "sharding",
        "config",
        "files",
        "random",
        "digest",
        "methods",
        "errors",
        "xla",
        "changes",
        "layer_map",
        "ledger",
        "places",
        "processes",
    ),
)
RANK = {name: rank for rank, line in enumerate(reversed(ORDER)) for name in line}


def _part(path: Path, root: Path) -> str:
    return path.relative_to(root / "jkd").parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "jkd":
            below = node.module.split(".")[1:]
            found |= {below[0]} if below else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("jkd.")}
    return found - {"__version__"}


def test_dependencies_point_down_and_there_is_no_circle(root: Path):
    wrong = []
    edges: dict[str, set[str]] = {}
    for path in (root / "jkd").rglob("*.py"):
        part = _part(path, root)
        if part == "__init__":
            continue
        assert part in RANK, f"{part} has no place in the order; add it to ORDER"
        for other in _imports(path) - {part}:
            edges.setdefault(part, set()).add(other)
            if RANK[other] > RANK[part]:
                wrong.append(f"{path.relative_to(root)} imports jkd.{other}")
    assert not wrong
    done: set[str] = set()

    def visit(part: str, above: tuple[str, ...]) -> None:
        assert part not in above, f"circle: {' -> '.join((*above, part))}"
        if part not in done:
            for other in sorted(edges.get(part, ())):
                visit(other, (*above, part))
            done.add(part)

    for part in sorted(edges):
        visit(part, ())


def test_losses_import_nothing_of_jkd_and_models_no_teacher(root: Path):
    for path in (root / "jkd" / "losses").glob("*.py"):
        assert _imports(path) <= {"losses"}, path
    for path in (root / "jkd" / "models").glob("*.py"):
        assert _imports(path) <= {"models", "errors"}, path


def test_no_file_is_over_400_lines(root: Path):
    long = {
        str(path.relative_to(root)): len(path.read_text().splitlines())
        for folder in ("jkd", "tests", "configs", "launch")
        for path in (root / folder).rglob("*.py")
    }
    assert not {name: lines for name, lines in long.items() if lines > 400}


def test_no_concrete_task_outside_its_place(root: Path):
    """The engine sees a `Task`; whoever asks which one it is has the seam in the wrong place."""
    allowed = {"tasks", "data", "models", "pretrained", "losses", "evaluate"}
    named = re.compile(
        r"task(\.name)?['\"]?\]?\s*(==|!=|in)\s*[\[\(\{]?['\"]|CLASSIFICATION|tasks\.(classification|detection)"
        r"|from jkd\.tasks import .*\b(classification|detection)\b"
    )
    found = [
        str(path.relative_to(root))
        for path in (root / "jkd").rglob("*.py")
        if _part(path, root) not in allowed and named.search(path.read_text())
    ]
    assert not found


def test_every_folder_says_what_it_is(root: Path):
    for folder in {path.parent for path in (root / "jkd").rglob("*.py")}:
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text())), folder


def test_top_level_is_as_agreed(root: Path):
    there = {path.name for path in root.iterdir() if not path.name.startswith(".")}
    there -= {"build", "dist", "runs", "jkd.egg-info", "__pycache__"}
    assert there == {"pyproject.toml", "README.md", "LICENSE", "jkd", "configs", "tests", "launch"}


def test_no_index_addresses_in_the_constraints(root: Path):
    text = (root / "launch" / "constraints.txt").read_text()
    assert "://" not in text and "--" not in text
    assert all("==" in line for line in text.splitlines() if line and not line.startswith("#"))


FORBIDDEN = {
    "numpy.random": "NumPy's generators differ between releases; use jkd.random.bits, permutation, uniform",
    "random": "the standard library's generator is global; use jkd.random",
    "secrets": "unrepeatable; use jkd.random",
    "uuid": "unrepeatable; use a digest",
    "jax.random.PRNGKey": "an untyped key; use jkd.random.key",
    "jax.random.key": "a key without a stream; use jkd.random.key",
    "jax.random.wrap_key_data": "a key without a stream; use jkd.random.key",
}
KEYS_ARE_MADE_IN = ("jkd/random.py", "jkd/ledger.py")
CLOCKS = {"time.time", "time.time_ns", "datetime.datetime.now", "os.getpid", "os.urandom", "id", "hash"}


def _dotted(node: ast.AST, names: dict[str, str]) -> str:
    """`np.random.rand` as `numpy.random.rand`, by what the file's imports call things; '' for anything else."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (left := _dotted(node.value, names)):
        return f"{left}.{node.attr}"
    return ""


def _names(tree: ast.AST) -> dict[str, str]:
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {
                alias.asname or alias.name.split(".")[0]: (alias.asname and alias.name) or alias.name.split(".")[0]
                for alias in node.names
            }
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _randomness(source: str) -> list[str]:
    """Every use of randomness that is not jkd's, and every clock that goes into a key or a seed: `line: what`."""
    tree = ast.parse(source)
    names = _names(tree)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            if isinstance(node, ast.ImportFrom):
                modules += [f"{node.module}.{alias.name}" for alias in node.names]
            used = [module for module in modules if module in FORBIDDEN]
        elif isinstance(node, ast.Attribute):
            used = [name for name in FORBIDDEN if "." in name and _dotted(node, names) == name]
        elif isinstance(node, ast.Call):
            seeds = [word.value for word in node.keywords if word.arg and "seed" in word.arg]
            if _dotted(node.func, names).startswith("jkd.random."):
                seeds += node.args
            inside = [call for seed in seeds for call in ast.walk(seed) if isinstance(call, ast.Call)]
            used = [name for call in inside if (name := _dotted(call.func, names)) in CLOCKS]
        else:
            continue
        found += [f"{node.lineno}: {name}" for name in used]
    return found


# Paths of a run may be those of an object store, which these know nothing of.
DISK_ONLY = ("pathlib.Path", "open", "io.open", "os.path.", "shutil.", "numpy.load", "numpy.save", "tempfile.")
DISK_ONLY += tuple(
    f"os.{name}" for name in ("listdir", "mkdir", "makedirs", "remove", "rename", "replace", "stat", "walk")
)
MAY_USE_THE_DISK = {
    "jkd/places.py": "tells the two kinds of paths apart",
    "jkd/files.py": "what is done on the disk alone: drafts, locks",
    "jkd/cli.py": "/dev/null, and the package's own folder",
    "jkd/environment.py": "/proc/cpuinfo, and the package's own folder",
    "jkd/config/resolve.py": "config files, which Python loads",
    "jkd/pretrained/callable.py": "modules, which Python loads",
    "jkd/report/page.py": "a file of the package",
    "jkd/data/digits.py": "a file of the package",
    "jkd/data/trec.py": "files of the package",
    "jkd/data/folder.py": "walks a folder of the disk; a store is walked beside it",
    "jkd/data/listing.py": "the ending of a name",
}


def _disk_only(source: str) -> list[str]:
    """Calls that take a path of the disk only, `line: what`."""
    tree = ast.parse(source)
    names = _names(tree)
    calls = [(node.lineno, _dotted(node.func, names)) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        f"{line}: {name}"
        for line, name in calls
        if any(name == it or (it.endswith(".") and name.startswith(it)) for it in DISK_ONLY)
    ]


def test_paths_of_a_run_may_be_those_of_a_store(root: Path):
    found = {
        name: calls
        for path in (root / "jkd").rglob("*.py")
        if (name := path.relative_to(root).as_posix()) not in MAY_USE_THE_DISK
        and (calls := _disk_only(path.read_text()))
    }
    assert not found, f"use jkd.places or jkd.files, or say in MAY_USE_THE_DISK why not: {found}"
    used = {name for name in MAY_USE_THE_DISK if _disk_only((root / name).read_text())}
    assert used == set(MAY_USE_THE_DISK), "these no longer need to be in MAY_USE_THE_DISK"


def test_no_randomness_but_that_of_named_streams(root: Path):
    found = {
        str(path.relative_to(root)): uses
        for path in (root / "jkd").rglob("*.py")
        if path.relative_to(root).as_posix() not in KEYS_ARE_MADE_IN and (uses := _randomness(path.read_text()))
    }
    assert not found, {
        name: FORBIDDEN.get(uses[0].split(": ")[1], "a clock is no seed") for name, uses in found.items()
    }


@pytest.mark.parametrize(
    "text",
    [
        "import numpy as np\nnp.random.rand(3)",
        "import numpy\nrng = numpy.random.default_rng(0)",
        "from numpy.random import default_rng",
        "from numpy import random",
        "import random",
        "from random import choice",
        "import jax\njax.random.PRNGKey(0)",
        "from jax import random as r\nr.key(0)",
        "from jax.random import key",
        "import time\nfrom jkd import random\nrandom.key('init', int(time.time()))",
        "import os\nmake(seed=os.getpid())",
    ],
)
def test_each_of_these_would_be_found(text: str):
    assert _randomness(text)


@pytest.mark.parametrize(
    "text",
    [
        "import time\nstarted = time.time()",
        "from jkd import random\nrandom.key('init', 0)",
        "import jax\njax.random.uniform(key)\njax.random.fold_in(key, 1)",
    ],
)
def test_none_of_these_is_found(text: str):
    assert not _randomness(text)
