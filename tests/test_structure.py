"""The house: dependencies point down, no circles, no file over 400 lines, no task named outside its place."""

import ast
import re
from pathlib import Path

# From the top down; a part may import what stands below it, and from its own line.
ORDER = (
    ("cli",),
    ("run",),
    ("parts", "report"),
    ("manifest", "share", "interpret", "progress"),
    ("build",),
    ("train",),
    ("objective", "compress"),
    ("tasks",),
    ("graph", "pretrained"),
    ("evaluate", "losses", "models", "data"),
    ("environment",),
    ("sharding", "config", "files", "random", "digest", "methods", "errors", "xla", "changes"),
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
    allowed = {"tasks", "data", "models", "pretrained", "losses", "evaluate", "config", "build"}
    named = re.compile(r"task(\.name)?\s*(==|!=|in)\s*[\[\(]?['\"]|CLASSIFICATION|tasks\.classification")
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
