"""The graph as a whole: what its edges say, and what is refused."""

from collections.abc import Callable

import numpy as np
import pytest

from jkd.errors import UserError
from jkd.graph import Edges, KnowledgeGraph, build_graph, describe
from jkd.graph.knowledge_graph import confusion, top_classes

SETTINGS = dict(views=("teacher",), k=3, temperature=0.1, rounds=20, predicted_as=2, block=64)


def build(**changes: object) -> KnowledgeGraph:
    rng = np.random.default_rng(0)
    given = dict(
        sample=np.arange(10),
        features=rng.standard_normal((10, 4)).astype(np.float32),
        beliefs=rng.dirichlet(np.ones(3), 10).astype(np.float32),
        labels=np.full(10, -1),
        classes=("a", "b", "c"),
        views={},
        settings=SETTINGS,
    )
    return build_graph(**(given | changes))


def test_confused_with_matches_golden(golden: dict) -> None:
    np.testing.assert_allclose(confusion(golden["beliefs"].astype("f")), golden["confused_with"], rtol=1e-5)


def test_predicted_as_holds_the_most_probable_classes_ties_to_the_lower() -> None:
    table = top_classes(np.asarray([[0.2, 0.4, 0.4], [0.6, 0.1, 0.3]], np.float32), 2)
    np.testing.assert_array_equal(table.ids, [[1, 2], [0, 2]])
    np.testing.assert_array_equal(table.weights, np.asarray([[0.4, 0.4], [0.6, 0.3]], np.float32))


def test_more_classes_asked_for_than_there_are_is_all_of_them() -> None:
    assert build(settings=SETTINGS | {"predicted_as": 9}).predicted_as.ids.shape == (10, 3)


def test_without_labels_held_back_there_is_no_diagnosis() -> None:
    graph = build()
    assert graph.diagnosis is None and graph.material is None
    assert "diagnosis: none" in describe(graph)


def test_counts_are_those_of_the_arrays(graph: KnowledgeGraph) -> None:
    assert graph.counts["nodes"] == {"sample": 60, "class": 3, "concept": 3}
    edges = graph.counts["edges"]
    assert edges["similar_to/input"] == edges["similar_to/teacher"] == 240
    assert (edges["predicted_as"], edges["instance_of"], edges["is_a"]) == (120, 30, 4)


def test_one_view_or_the_mean_of_all(graph: KnowledgeGraph) -> None:
    assert graph.edges("input").ids.shape == (1, 60, 4) and graph.edges("mean").ids.shape == (2, 60, 4)
    with pytest.raises(UserError, match=r"no view 'inptu'\. Did you mean 'input'"):
        graph.edges("inptu")


def test_a_view_may_be_edges_and_isolated_nodes_are_told() -> None:
    ids = np.full((10, 3), -1, np.int32)
    weights = np.zeros((10, 3), np.float32)
    ids[0, 0], weights[0, 0] = 1, 0.5
    graph = build(views={"mine": Edges(ids, weights)}, settings=SETTINGS | {"views": ("mine",)})
    assert graph.counts["edges"]["similar_to/mine"] == 1
    assert "9 samples have no neighbour; they keep the teacher's belief" in describe(graph)


def test_what_a_graph_cannot_hold_is_refused() -> None:
    with pytest.raises(UserError, match="'input' was asked for, but only none came"):
        build(settings=SETTINGS | {"views": ("input",)})
    with pytest.raises(UserError, match="labels: node 0 has label 5"):
        build(labels=np.full(10, 5))
    with pytest.raises(UserError, match="sample: 4294967296 does not fit in 32 bits"):
        build(sample=np.arange(10) * 2**32)
    with pytest.raises(UserError, match="sum to 1"):
        build(beliefs=np.ones((10, 3), np.float32))


def test_the_description_shows_what_matters_and_no_control_characters(
    make_graph: Callable[..., KnowledgeGraph],
) -> None:
    text = describe(make_graph(names=("cat", "\x1b[31mred\nline", "<b>")))
    for part in ("60 sample, 3 class, 3 concept", "similar_to/input", "diagnosis by folds, 30 labels scored"):
        assert part in text
    assert "edges help: view input" in text and "homophily" in text and "most confused classes" in text
    assert "\x1b" not in text and "red\\nline" in text
