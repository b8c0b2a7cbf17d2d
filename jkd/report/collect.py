"""Reads what a run has written so far, and says what is not there yet. Nothing is computed here."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from jkd import files
from jkd.errors import UserError
from jkd.places import Path
from jkd.train import metrics

Key = tuple[int, int]  # replicate, seed


@dataclass(frozen=True)
class Part:
    """A finished teacher, or a finished student of one replicate and seed."""

    folder: Path
    result: dict[str, Any]

    def predictions(self) -> dict[str, np.ndarray]:
        """What the task stores, such as `logits` float32 [T, C]; `projection` [T, d] and `nodes` [N, d] where the
        student has them."""
        path = self.folder / "predictions.safetensors"
        arrays = files.read_arrays(path, self.result.get("predictions", ""))
        if ("logits" not in arrays or arrays["logits"].ndim != 2) and "boxes" not in arrays:
            raise UserError(f"{path}: expected 'logits' [T, C], got {sorted(arrays)}. Delete it and run again.")
        return arrays

    @cached_property
    def size(self) -> int:
        """Test inputs that there are predictions of."""
        arrays = self.predictions()
        return len(next(arrays[name] for name in ("logits", "boxes") if name in arrays))

    def replayed(self) -> dict[str, Any]:
        """`replay`, what `jkd replay` found of this very training last; nothing where it was not asked."""
        path = self.folder / "replay.json"
        found = files.read_json(path) if path.is_file() else {}
        same = isinstance(found, dict) and "code" in found and found.get("chain") == self.result.get("chain")
        return {"replay": found} if same else {}

    def curve(self) -> list[metrics.Line]:
        """The lines of metrics.jsonl; none where there is no such file."""
        return metrics.read(self.folder / "metrics.jsonl")


@dataclass(frozen=True)
class Results:
    """All finished parts of a run.

    Attributes:
      manifest: manifest.json.
      teachers: by replicate.
      students: by name, in the order of the config, then by (replicate, seed).
      missing: one line for each kind of part that is not there yet.
      digests: by folder below the workdir, what each part was made from (`inputs`) and what it is (`params`, or
        `sha256` of a graph): the chain from teacher to student; and what a replay of it found.
    """

    manifest: dict[str, Any]
    teachers: dict[int, Part]
    students: dict[str, dict[Key, Part]]
    missing: tuple[str, ...]
    digests: dict[str, dict[str, Any]]

    @property
    def config(self) -> dict[str, Any]:
        return self.manifest["config"]

    @property
    def seeds(self) -> list[int]:
        return self.config["seeds"]

    @property
    def replicates(self) -> int:
        return self.config["replicates"]

    @property
    def unit(self) -> str:
        """What intervals and pairs are over: `replicate` where there are several, else `seed`."""
        return "replicate" if self.replicates > 1 else "seed"


def collect(workdir: Path) -> Results:
    """Reads a workdir: finished parts and the list of those that are missing.

    Raises:
      UserError: there is no manifest, or a result file is broken.
    """
    manifest = files.read_json(workdir / "manifest.json")
    for key in ("config", "environment", "data"):
        if not isinstance(manifest, dict) or key not in manifest:
            raise UserError(f"{workdir / 'manifest.json'}: expected the key '{key}'. Give the --workdir of a run.")
    config = manifest["config"]
    root = workdir / "replicates"
    teachers: dict[int, Part] = {}
    students: dict[str, dict[Key, Part]] = {name: {} for name in config["students"]}
    absent: dict[str, list[str]] = {}
    for replicate in range(config["replicates"]):
        teacher = _part(root / str(replicate) / "teacher")
        if teacher:
            teachers[replicate] = teacher
        else:
            absent.setdefault("teacher", []).append(str(replicate))
        for name in students:
            for seed in config["seeds"]:
                part = _part(root / str(replicate) / "students" / name / str(seed))
                if part:
                    students[name][replicate, seed] = part
                else:
                    absent.setdefault(name, []).append(f"{replicate}/{seed}")
    return Results(manifest, teachers, students, tuple(_missing(absent)), _digests(workdir, teachers, students))


def _digests(
    workdir: Path, teachers: dict[int, Part], students: dict[str, dict[Key, Part]]
) -> dict[str, dict[str, Any]]:
    graphs = [_graph(workdir / "replicates" / str(replicate) / "graph") for replicate in teachers]
    every = [*teachers.values(), *filter(None, graphs), *(part for some in students.values() for part in some.values())]
    keys = ("inputs", "params", "sha256", "chain", "changes")
    return {
        part.folder.relative_to(workdir).as_posix(): {
            **{key: part.result[key] for key in keys if key in part.result},
            **part.replayed(),
        }
        for part in every
    }


def _graph(folder: Path) -> Part | None:
    path = folder / "result.json"
    return Part(folder, files.read_signed(path)) if path.is_file() else None


def _part(folder: Path) -> Part | None:
    path = folder / "result.json"
    if not path.is_file():
        return None
    result = files.read_signed(path)
    for key in ("params", "metrics", "labels", "receipt"):
        if key not in result:
            raise UserError(f"{path}: expected the key '{key}'. Delete the file and run again.")
    if not re.fullmatch(r"[0-9a-f]{64}", str(result["params"])):
        raise UserError(f"{path}: 'params' is not a SHA-256. Delete the file and run again.")
    return Part(folder, result)


def _missing(absent: dict[str, list[str]], most: int = 6) -> list[str]:
    lines = []
    for name, parts in absent.items():
        what = "the teacher of replicate" if name == "teacher" else f"{name} of replicate/seed"
        more = f" and {len(parts) - most} more" if len(parts) > most else ""
        lines.append(f"{what} {', '.join(parts[:most])}{more}")
    return lines
