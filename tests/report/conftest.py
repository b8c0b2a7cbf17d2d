"""A workdir as a run leaves it, made of small random arrays: nothing is trained."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from jkd import config as configs
from jkd import digest, evaluate, files
from jkd.graph.diagnosis import Diagnosis, Row
from jkd.graph.knowledge_graph import KnowledgeGraph, confusion, top_classes
from jkd.graph.nearest import Edges
from jkd.report import write_report

CLASSES = ("zero", "one", "two", "three", "four", "five")
TESTS, NODES = 120, 60
QUALITY = {"teacher": 2.2, "cross_entropy": 1.6, "kd": 2.2, "random_edges": 2.4, "knowledge_graph": 2.9}


class FakeSource:
    """Pictures that look like their class: a fixed pattern per class, with noise."""

    kind = "images"

    def __init__(self, prefix: str, size: int, classes: tuple[str, ...], seed: int) -> None:
        rng = np.random.default_rng(seed)
        patterns = np.random.default_rng(99).integers(0, 256, (len(classes), 8, 8, 1))
        self.labels = rng.integers(0, len(classes), size).astype(np.int32)
        noise = rng.integers(-60, 60, (size, 8, 8, 1))
        self._images = np.clip(patterns[self.labels] + noise, 0, 255).astype(np.uint8)
        self._prefix = prefix

    def __len__(self) -> int:
        return len(self.labels)

    def id(self, index: int) -> str:
        return f"{self._prefix}/{index:04d}.png"

    def images(self, index: np.ndarray) -> np.ndarray:
        return self._images[index]


@dataclass
class Run:
    """A made-up run: its workdir, its data set, its graph."""

    workdir: Path
    dataset: Any
    graph: KnowledgeGraph
    config: ConfigDict


def _config(replicates: int, seeds: tuple[int, ...], name: str) -> ConfigDict:
    config = configs.default()
    config.name = name
    config.replicates, config.seeds = replicates, seeds
    config.students = ConfigDict(
        {
            "cross_entropy": {"objective": {"cross_entropy": 1.0}},
            "kd": {"objective": {"kd": {"weight": 1.0, "temperature": 1.0}}},
            "random_edges": {
                "objective": {"joined_beliefs": 0.9},
                "graph": {"edges": "random", "gate": False},
            },
            "knowledge_graph": {
                "objective": {"joined_beliefs": 0.9, "projection": 0.1},
                "graph": {"edges": "real"},
            },
        }
    )
    return configs.resolve(config)


def _graph(classes: tuple[str, ...], train: FakeSource, rng: np.random.Generator) -> KnowledgeGraph:
    sample = np.arange(0, 2 * NODES, 2, dtype=np.int32)
    truth = train.labels[sample]
    logits = 2.0 * np.eye(len(classes))[truth] + rng.normal(size=(NODES, len(classes)))
    beliefs = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)
    neighbours = np.stack([rng.permuted(np.tile(np.arange(NODES), (NODES, 1)), axis=1)[:, :4] for _ in range(2)])
    rows = [Row("none", 0.0, 0.0, 0.8, 0.9, 0.84, 1.4)]
    for view, gain in (("teacher", 0.26), ("input", 0.43), ("mean", 0.4)):
        for strength in (0.5, 0.8, 0.9):
            for mix in (0.5, 0.8):
                score = round(0.84 - gain * strength * (0.6 + mix / 2) + 0.1 * strength, 6)
                rows.append(Row(view, strength, mix, 0.85, score + 0.1, score, 1.2))
    return KnowledgeGraph(
        classes=classes,
        concepts=("even", "odd"),
        views=("teacher", "input"),
        sample=sample,
        features=rng.normal(size=(NODES, 4)).astype(np.float32),
        beliefs=beliefs,
        labels=np.where(np.arange(NODES) % 3 == 0, truth, -1).astype(np.int32),
        similar_to=Edges(neighbours.astype(np.int32), np.full((2, NODES, 4), 0.5, np.float32)),
        predicted_as=top_classes(beliefs, 2),
        confused_with=confusion(beliefs),
        is_a=np.array([[c, len(classes) + c % 2] for c in range(len(classes))], np.int32),
        settings={"k": 4},
        provenance={"teacher": "0" * 64},
        diagnosis=Diagnosis("folds", tuple(rows), {"teacher": 0.71, "input": 0.86}, 20, 0),
    )


def _write_part(
    folder: Path, name: str, dataset: Any, rng: np.random.Generator, teacher: np.ndarray | None
) -> np.ndarray:
    classes, labels = len(dataset.classes), dataset.test.labels
    logits = QUALITY[name] * np.eye(classes)[labels] + rng.normal(size=(TESTS, classes))
    if teacher is not None:
        logits = logits + 0.5 * teacher
    logits = logits.astype(np.float32)
    arrays = {"logits": logits}
    if name == "knowledge_graph":
        places = np.random.default_rng(5).normal(size=(classes, 6))
        arrays["projection"] = (places[labels] + 0.8 * rng.normal(size=(TESTS, 6))).astype(np.float32)
        truth = dataset.train.labels[np.arange(0, 2 * NODES, 2)]
        arrays["nodes"] = (places[truth] + 0.8 * rng.normal(size=(NODES, 6))).astype(np.float32)
    metrics = {
        "accuracy": evaluate.accuracy(logits, labels),
        "nll": evaluate.nll(logits, labels),
        "ece": evaluate.ece(logits, labels, bins=15),
        "agreement": None if teacher is None else evaluate.agreement(logits, teacher),
        "kl": None if teacher is None else evaluate.kl(teacher, logits),
    }
    size = 120_000 if name == "teacher" else 3_400
    result = {
        "inputs": digest.of_json(name),
        "params": digest.of_array(logits),
        "predictions": digest.of_tree(arrays),
        "metrics": metrics,
        "choices": {"gate_open": True, "view": "input"} if name == "knowledge_graph" else {},
        "labels": {"train": 20, "choose": 0},
        "receipt": {
            "params": size // 4,
            "bytes": size,
            "macs": size // 4,
            "latency_ms": 0.1 + rng.random() / 50,
        },
        "steps": 500,
        "seconds": 3.0,
    }
    files.write_signed(folder / "result.json", result)
    files.write_arrays(folder / "predictions.safetensors", arrays)
    lines = [
        {"step": step, "loss": 2.5 * float(np.exp(-step / 150)) + 0.1 + 0.02 * rng.random()}
        for step in range(50, 501, 50)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return logits


def _write_run(
    workdir: Path,
    replicates: int = 3,
    seeds: tuple[int, ...] = (0,),
    classes: tuple[str, ...] = CLASSES,
    name: str = "made-up",
) -> Run:
    train, test = FakeSource("train", 4 * NODES, classes, 0), FakeSource("test", TESTS, classes, 1)
    dataset = SimpleNamespace(name="made-up", train=train, test=test, classes=classes, shape=(8, 8, 1))
    config = _config(replicates, seeds, name)
    data = {"name": "patterns", "fingerprint": "f" * 64, "classes": list(classes), "train": len(train)}
    manifest = {
        "config": configs.as_dict(config),
        "name": config.name,
        "environment": {"versions": {"jkd": "0.1.0", "jax": "0.10.2"}},
        "data": data | {"test": len(test), "skipped": []},
    }
    files.write_json(workdir / "manifest.json", manifest)
    run = Run(workdir, dataset, _graph(classes, train, np.random.default_rng(2)), config)
    for replicate in range(replicates):
        root = workdir / "replicates" / str(replicate)
        teacher = _write_part(root / "teacher", "teacher", dataset, np.random.default_rng(replicate), None)
        for place, student in enumerate(sorted(config.students)):
            for seed in seeds:
                folder = root / "students" / student / str(seed)
                _write_part(folder, student, dataset, np.random.default_rng([replicate, place, seed]), teacher)
    return run


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """`make_run(replicates=3, seeds=(0,), classes=CLASSES)` writes a whole workdir."""
    return lambda **settings: _write_run(tmp_path / f"run{len(list(tmp_path.iterdir()))}", **settings)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, Any]]:
    """A whole run with its report, to look at and not to change: the run and its summary."""
    run = _write_run(tmp_path_factory.mktemp("report") / "run")
    return run, write_report(run.workdir, run.dataset, run.graph)
