"""Attacks on a graph, each refused by name."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from jkd.errors import UserError
from jkd.graph import Edges, KnowledgeGraph, check


def changed(array: np.ndarray, where: Any, value: Any) -> np.ndarray:
    copy = array.copy()
    copy[where] = value
    return copy


def table(ids: Any = None, weights: Any = None) -> Callable[[KnowledgeGraph], KnowledgeGraph]:
    def attack(graph: KnowledgeGraph) -> KnowledgeGraph:
        old = graph.similar_to
        new_ids = old.ids if ids is None else changed(old.ids, *ids)
        new_weights = old.weights if weights is None else changed(old.weights, *weights)
        return replace(graph, similar_to=Edges(new_ids, new_weights))

    return attack


def array(name: str, where: Any, value: Any) -> Callable[[KnowledgeGraph], KnowledgeGraph]:
    return lambda graph: replace(graph, **{name: changed(getattr(graph, name), where, value)})


ATTACKS: dict[str, tuple[Callable[[KnowledgeGraph], KnowledgeGraph], str]] = {
    "self loop": (
        table(ids=((0, 7, 0), 7)),
        "similar_to/teacher: an edge leads to itself in 1 rows, the first is 7",
    ),
    "dangling id": (table(ids=((1, 3, 0), 60)), "similar_to/input: an id is outside -1 to 59"),
    "huge id": (table(ids=((0, 0, 0), 2**31 - 1)), "an id is outside"),
    "negative id": (table(ids=((0, 0, 0), -2)), "an id is outside"),
    "double edge": (
        lambda graph: table(ids=((0, 5, 1), graph.neighbours[0, 5, 0]))(graph),
        "similar_to/teacher: an edge comes up twice in 1 rows, the first is 5",
    ),
    "NaN weight": (table(weights=((0, 2, 3), np.nan)), "a weight is not finite in 1 rows, the first is 2"),
    "unsorted": (table(weights=((0, 2, 3), 9.0)), "not sorted"),
    "gap": (table(ids=((0, 2, 0), -1), weights=((0, 2, 0), 0)), "an edge stands after a gap"),
    "weight without edge": (table(ids=((0, 2, 3), -1), weights=((0, 2, 3), 0.5)), "where there is no edge"),
    "beliefs": (
        array("beliefs", (4, 0), 3.0),
        "beliefs: 1 rows are not probabilities that sum to 1, the first is 4",
    ),
    "NaN beliefs": (array("beliefs", 0, np.nan), "beliefs: 1 rows are not probabilities"),
    "label": (array("labels", 1, 3), r"labels: node 1 has label 3; expected -1 \(hidden\) to 2"),
    "features": (array("features", (9, 1), np.inf), "features: 1 rows are not finite, the first is 9"),
    "sample order": (array("sample", 1, 0), "sample: indices must rise"),
    "diagonal": (array("confused_with", (0, 0), 1), "confused_with: the diagonal must be 0"),
    "is_a to a class": (array("is_a", (0, 1), 1), "is_a: an edge leads to a class"),
    "double names": (
        lambda graph: replace(graph, classes=("cat", "cat", "car")),
        "classes: a name comes up twice",
    ),
}


@pytest.mark.parametrize("name", list(ATTACKS))
@pytest.mark.fault(25)
def test_refuses(graph: KnowledgeGraph, name: str) -> None:
    attack, message = ATTACKS[name]
    with pytest.raises(UserError, match=message):
        check(attack(graph))


@pytest.mark.parametrize("changes", [{"labels": np.zeros(60, np.int64)}, {"labels": np.zeros(59, np.int32)}])
@pytest.mark.fault(25)
def test_refuses_another_dtype_or_shape(graph: KnowledgeGraph, changes: dict[str, Any]) -> None:
    with pytest.raises((UserError, TypeError), match="labels"):  # where jaxtyping looks on, it is first
        check(replace(graph, **changes))


@pytest.mark.fault(25)
def test_refuses_a_cycle_of_concepts(graph: KnowledgeGraph) -> None:
    cycle = np.asarray([[0, 3], [3, 4], [4, 5], [5, 3]], np.int32)
    with pytest.raises(UserError, match="is_a: there is a cycle through 'animal'"):
        check(replace(graph, is_a=cycle))


@pytest.mark.fault(25)
def test_lists_every_finding_but_not_more_than_twenty(graph: KnowledgeGraph) -> None:
    bad = replace(graph, labels=changed(graph.labels, 0, 99), beliefs=changed(graph.beliefs, 0, 9))
    with pytest.raises(UserError) as caught:
        check(bad)
    assert "labels: node 0" in str(caught.value) and "beliefs: 1 rows" in str(caught.value)
    names = tuple(f"v{v}" for v in range(30))
    many = Edges(np.full((30, 60, 4), 70, np.int32), np.zeros((30, 60, 4), np.float32))
    with pytest.raises(UserError, match=r"more$") as caught:
        check(replace(graph, views=names, similar_to=many, material=None))
    assert len(str(caught.value).splitlines()) == 22


@pytest.mark.fault(25)
def test_material_is_checked_too(graph: KnowledgeGraph) -> None:
    material = graph.material
    assert material is not None
    nobody = replace(material, trial_of=np.full_like(material.trial_of, -1))
    with pytest.raises(UserError, match="no label is held back"):
        check(replace(graph, material=nobody))
    ids = changed(material.edges["input"].ids, (0, 0, 0), 60)
    edges = dict(material.edges) | {"input": Edges(ids, material.edges["input"].weights)}
    with pytest.raises(UserError, match="material edges of input, trial 0: an id is outside -1 to 59"):
        check(replace(graph, material=replace(material, edges=edges)))


def test_a_good_graph_passes(graph: KnowledgeGraph, holdout_graph: KnowledgeGraph) -> None:
    check(graph)
    check(holdout_graph)
