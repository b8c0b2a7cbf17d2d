"""The house: dependencies point down, no circles, no file over 400 lines, no task named outside its place."""

import ast
import re
from collections.abc import Collection
from pathlib import Path

import pytest

# From the top down; a part may import what stands below it, and from its own line.
ORDER = (
    ("cli",),
    ("run", "replay", "predict"),
    ("parts", "report"),
    ("manifest", "share", "interpret", "progress"),
    ("build",),
    ("networks",),
    ("train",),
    ("objective", "compress"),
    ("terms",),
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
        "arguments",
        "places",
        "processes",
        "streams",
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
    found = {
        str(path.relative_to(root)): asked
        for path in (root / "jkd").rglob("*.py")
        if _part(path, root) not in allowed and (asked := _asks_for_a_task(ast.parse(path.read_text())))
    }
    # What reads samples and what shows them know what they are of; `build` is where names become objects.
    kinds = {path: asked - KINDS for path, asked in found.items() if path in KNOW_KINDS}
    assert not {path: asked for path, asked in (found | kinds).items() if asked}


KNOW_KINDS = ("jkd/build.py", "jkd/config/checks.py", "jkd/report/markup.py")
TASKS, KINDS = {"classification", "detection"}, {"images", "texts", "objects"}


def _asks_for_a_task(tree: ast.AST) -> set[str]:
    """Names of tasks, or of kinds of samples, that code imports, compares with, matches or asks texts to begin with."""
    names = TASKS | KINDS
    asked: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            asked += [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            asked.append(node.value)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            asked += node.args if node.func.attr in ("startswith", "endswith", "find", "index", "count") else []
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[:2] == ["jkd", "tasks"]:
            concrete = {*node.module.split(".")[2:], *(alias.name for alias in node.names)}
            asked += [ast.Constant(name.lower()) for name in concrete - {"task"}]
        elif isinstance(node, ast.Import):
            asked += [ast.Constant(part) for alias in node.names for part in alias.name.split(".")[2:]]
    constants = (inner for node in asked for inner in ast.walk(node) if isinstance(inner, ast.Constant))
    return {constant.value for constant in constants if constant.value in names}


@pytest.mark.parametrize(
    "text",
    [
        "if task.name == 'detection': pass",
        "if 'detection' != config.task: pass",
        "if task.name in ('classification', 'other'): pass",
        "match task.name:\n    case 'detection': pass",
        "task.name.startswith('detection')",
        "from jkd.tasks import (\n    detection,\n)",
        "from jkd.tasks.classification import CLASSIFICATION",
        "import jkd.tasks.objects",
        "if dataset.kind == 'objects': pass",
    ],
)
def test_whoever_asks_for_a_task_is_seen(text: str):
    assert _asks_for_a_task(ast.parse(text))


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


RANDOM_OF_JAX = (  # draws, and what is made of keys that jkd.random gave out; all else would make a key
    *("bernoulli", "beta", "bits", "normal", "permutation", "randint", "uniform"),
    *("fold_in", "key_data", "split"),
)
FORBIDDEN = (  # a name, and all below it: global, unrepeatable, or keys without a stream
    *("random", "secrets", "uuid", "flax.nnx"),
    *("jax.random", "jax._src.random", "jax._src.prng", "jax.extend.random"),
)
STAR = "*"  # of an import: what it brings cannot be told
BY_NAME = re.compile(r"random|^rvs$|^rand$")  # a library's own randomness: numpy.random, os.urandom, gnp_random_graph
KEYS_ARE_MADE_IN = ("jkd/random.py", "jkd/ledger.py")
CLOCKS = {f"time.{name}{unit}" for name in ("time", "monotonic", "perf_counter") for unit in ("", "_ns")}
CLOCKS |= {f"datetime.datetime.{name}" for name in ("now", "utcnow", "today")}
CLOCKS |= {"os.getpid", "os.getppid", "threading.get_ident", "id", "hash"}


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


def _wrong(name: str) -> bool:
    """Whether a name, spelled out from its module, is randomness that is not jkd's."""
    first, *rest = name.split(".")
    if first in ("jkd", ""):
        return False
    if name.startswith("jax.random."):
        return rest[1] not in RANDOM_OF_JAX
    listed = any(name == each or name.startswith(f"{each}.") for each in FORBIDDEN)
    return listed or any(BY_NAME.search(part) for part in rest)


def _randomness(source: str) -> list[str]:
    """Every use of randomness that is not jkd's, and every clock that goes into a key or a seed: `line: what`."""
    tree = ast.parse(source)
    names = _names(tree)
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    timed = {  # variables that a clock is in
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and _clocks(node.value, names)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = []
    for node in ast.walk(tree):
        used: list[str] = []
        if isinstance(node, ast.Import):
            used = [alias.name for alias in node.names if alias.name != "jax.random" and _wrong(alias.name)]
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f"{node.module or ''}.{alias.name}"
                if alias.name == STAR or (name != "jax.random" and _wrong(name)):
                    used.append(name)
        elif isinstance(node, ast.Attribute | ast.Name) and id(node) not in inner:
            name = _dotted(node, names)  # a module handed on whole could be used for anything
            imported = name.split(".")[0] in {each.split(".")[0] for each in names.values()}
            method = isinstance(node, ast.Attribute) and node.attr == "rvs"
            used = [name or "rvs"] * (method or (imported and _wrong(name)))
        elif isinstance(node, ast.Call):
            called = _dotted(node.func, names)
            seeds = [word.value for word in node.keywords if word.arg and "seed" in word.arg]
            seeds += node.args if called.startswith("jkd.random.") else []
            used = [name for seed in seeds for name in _clocks(seed, names, timed)]
            if called in ("importlib.import_module", "__import__") and node.args:
                name = getattr(node.args[0], "value", "")
                used += [name] if name and _wrong(str(name)) else []
        found += [f"{node.lineno}: {name}" for name in used]
    return found


def _clocks(value: ast.AST, names: dict[str, str], timed: Collection[str] = ()) -> list[str]:
    """The clocks in an expression, or the variables that hold what one said."""
    called = [_dotted(node.func, names) for node in ast.walk(value) if isinstance(node, ast.Call)]
    held = [node.id for node in ast.walk(value) if isinstance(node, ast.Name)]
    return [name for name in called if name in CLOCKS] + [name for name in held if name in timed]


# Paths of a run may be those of an object store, which these know nothing of.
DISK_ONLY = ("pathlib.Path", "open", "io.open", "os.path.", "shutil.", "numpy.load", "numpy.save", "tempfile.")
DISK_ONLY += tuple(
    f"os.{name}" for name in ("listdir", "mkdir", "makedirs", "remove", "rename", "replace", "stat", "walk")
)
MAY_USE_THE_DISK = {
    "jkd/places.py": "tells the two kinds of paths apart",
    "jkd/files.py": "what is done on the disk alone: drafts, locks",
    "jkd/streams.py": "/dev/null",
    "jkd/xla.py": "the file that XLA_FLAGS may name",
    "jkd/environment.py": "/proc/cpuinfo, and the package's own folder",
    "jkd/config/resolve.py": "config files, which Python loads",
    "jkd/pretrained/own_source.py": "the files of modules, which Python loads",
    "jkd/report/page.py": "a file of the package",
    "jkd/data/digits.py": "a file of the package",
    "jkd/data/trec.py": "files of the package",
    "jkd/methods.py": "the files of losses, read as text",
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
        for folder in ("jkd", "configs")
        for path in (root / folder).rglob("*.py")
        if path.relative_to(root).as_posix() not in KEYS_ARE_MADE_IN and (uses := _randomness(path.read_text()))
    }
    assert not found, f"randomness is jkd.random's to make, from named streams, and a clock is no seed: {found}"


def test_what_may_be_taken_of_jax_makes_no_key():
    import jax

    assert all(hasattr(jax.random, name) for name in RANDOM_OF_JAX)
    assert not {"key", "PRNGKey", "wrap_key_data", "clone"} & set(RANDOM_OF_JAX)


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
        "from jax.random import *",
        "from numpy import *",
        "import jax\njax.random.rbg_key(0)",
        "import jax\njax.random.threefry2x32_key(0)",
        "import jax\nr = jax.random\nr.PRNGKey(0)",
        "import jax\ngetattr(jax.random, 'PRNGKey')(0)",
        "import jax.random as r\nr.key(0)",
        "from jax import random as r\nf = r",
        "from jax._src.random import PRNGKey",
        "from jax._src import random",
        "from jax._src import prng",
        "import jax._src.random",
        "import jax\njax._src.random.PRNGKey(0)",
        "from jax.extend import random",
        "from flax import nnx\nnnx.Rngs(0)",
        "import flax\nflax.nnx.Rngs(0)",
        "from flax.nnx import Rngs",
        "import scipy\nscipy.stats.norm.rvs()",
        "from scipy.stats import norm\nnorm.rvs(3)",
        "from scipy import stats\nstats.norm(0, 1).rvs(3)",
        "import networkx as nx\nnx.gnp_random_graph(5, 0.5)",
        "from networkx import gnp_random_graph",
        "import scipy.sparse as sp\nsp.random(3, 3)",
        "import os\nos.urandom(4)",
        "import os\nos.getrandom(4)",
        "from os import urandom",
        "from secrets import token_bytes",
        "from uuid import uuid4",
        "import importlib\nimportlib.import_module('numpy.random')",
        "import time\nfrom jkd import random\nnow = int(time.time())\nrandom.key('init', now)",
        "from time import time_ns as now\nmake(seed=now())",
        "from datetime import datetime\nmake(seed=datetime.now().second)",
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
        "import jax\njax.vmap(jax.random.bernoulli)(keys)",
        "from jax.random import fold_in, uniform",
        "from jkd.random import key\nkey('init', 0)",
        "import time\nstarted = time.time()\nlog(started)",
        "import networkx as nx\nnx.Graph()",
        "order = random_order(edges='random')",
    ],
)
def test_none_of_these_is_found(text: str):
    assert not _randomness(text)
