"""Small graphs that several tests look at."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jkd.graph import Folds, HoldOut, KnowledgeGraph, assign_folds, build_graph
from jkd.graph.taxonomy import Taxonomy

NODES, CLASSES, LABELLED, FOLDS = 60, 3, 30, 3
SETTINGS: dict[str, Any] = dict(
    views=("teacher", "input"),
    k=4,
    temperature=0.1,
    rounds=20,
    predicted_as=2,
    block=64,
    diagnosis="folds",
    folds=3,
)


def beliefs_near(rng: np.random.Generator, classes: np.ndarray, noise: float) -> np.ndarray:
    """A teacher that is right as often as `noise` lets it be."""
    logits = 2 * np.eye(CLASSES)[classes] + noise * rng.standard_normal((len(classes), CLASSES))
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return (raised / raised.sum(1, keepdims=True)).astype(np.float32)


def make(
    seed: int = 0, by: str = "folds", names: tuple[str, ...] = ("cat", "dog", "car"), noise: float = 1.5
) -> KnowledgeGraph:
    """A graph whose `input` view knows the classes far better than its teacher, unless `noise` is small."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, CLASSES, NODES + 20)
    features = (4 * np.eye(CLASSES, 8)[truth] + rng.standard_normal((len(truth), 8))).astype(np.float32)
    labels = np.full(NODES, -1, np.int32)
    labels[:LABELLED] = truth[:LABELLED]
    inside, outside = slice(0, NODES), slice(NODES, None)
    beliefs, embeddings = (
        beliefs_near(rng, truth, noise),
        rng.standard_normal((len(truth), 6)).astype(np.float32),
    )
    held_back: Folds | HoldOut | None = None
    if by == "folds":
        held_back = Folds(
            assign_folds(labels, FOLDS, seed),
            [beliefs_near(rng, truth[inside], noise) for _ in range(FOLDS)],
            [rng.standard_normal((NODES, 6)).astype(np.float32) for _ in range(FOLDS)],
        )
    elif by == "holdout":
        held_back = HoldOut(truth[outside], beliefs[outside], embeddings[outside], {"input": features[outside]})
    return build_graph(
        sample=np.arange(NODES) * 2,
        features=embeddings[inside],
        beliefs=beliefs[inside],
        labels=labels,
        classes=names,
        views={"input": features[inside]},
        settings=SETTINGS,
        taxonomy=Taxonomy(("animal", "vehicle", "thing"), np.asarray([[0, 3], [1, 3], [2, 4], [4, 5]], np.int32)),
        provenance={"teacher": "t" * 64, "split": "s" * 64},
        held_back=held_back,
    )


@pytest.fixture(scope="session")
def graph() -> KnowledgeGraph:
    return make()


@pytest.fixture(scope="session")
def holdout_graph() -> KnowledgeGraph:
    return make(by="holdout")


@pytest.fixture(scope="session")
def make_graph() -> Callable[..., KnowledgeGraph]:
    return make


@pytest.fixture(scope="session")
def golden(shared: Path) -> Mapping[str, np.ndarray]:
    """The graph's stages on 300 digits, by an independent float64 implementation."""
    with np.load(shared / "golden" / "graph" / "digits.npz", allow_pickle=False) as content:
        return {name: content[name] for name in content.files}
