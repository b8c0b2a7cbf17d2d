"""A student's edges, choices and joined beliefs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from jkd.errors import UserError
from jkd.graph import Choice, KnowledgeGraph, attended_edges, choose, diagnose, edges_of, joined
from jkd.graph.nearest import Edges

REAL: dict[str, Any] = dict(edges="real", view="auto", strength="auto", mix="auto", gate=True, inject=True, sharpen=1.0)
WHO = {"seed": 0, "replicate": 0}


def test_auto_takes_what_the_graphs_diagnosis_found(graph: KnowledgeGraph) -> None:
    choice, best = choose(graph, REAL, **WHO), graph.diagnosis.best
    assert (choice.view, choice.strength, choice.mix, choice.gate_open) == (
        best.view,
        best.strength,
        best.mix,
        True,
    )


def test_given_values_are_kept_and_the_rest_is_picked_among_them(graph: KnowledgeGraph) -> None:
    choice = choose(graph, REAL | {"view": "teacher", "mix": 0.3, "gate": False}, **WHO)
    assert (choice.view, choice.mix) == ("teacher", 0.3) and choice.gate_open
    assert {row.view for row in choice.diagnosis.rows} == {"none", "teacher"}


def test_a_shut_gate_leaves_the_teachers_belief(make_graph: Callable[..., KnowledgeGraph]) -> None:
    graph = make_graph(noise=0.1)  # the teacher is always right
    student = REAL | {"edges": "random"}
    choice = choose(graph, student, **WHO)
    assert not choice.gate_open and choice.mix == 0
    np.testing.assert_array_equal(joined(graph, student, choice, **WHO), graph.beliefs)


def test_a_control_is_tuned_by_the_same_folds_but_without_a_gate(graph: KnowledgeGraph) -> None:
    student = REAL | {"edges": "random", "gate": False}
    choice = choose(graph, student, **WHO)
    assert choice.gate_open and choice.mix > 0
    assert choice.diagnosis.no_edges == graph.diagnosis.no_edges
    q = joined(graph, student, choice, **WHO)
    np.testing.assert_allclose(q.sum(1), 1, atol=1e-5)
    assert np.abs(q - joined(graph, REAL, choice, **WHO)).max() > 0.1


def test_without_edges_nothing_is_chosen(graph: KnowledgeGraph) -> None:
    assert choose(graph, REAL | {"edges": "none"}, **WHO) == Choice("none", 0.0, 0.0, False)


def test_injected_labels_show_in_the_joined_beliefs_unless_told_not_to(graph: KnowledgeGraph) -> None:
    choice = Choice("input", 0.5, 1.0, True)
    known = graph.labels >= 0
    with_labels = joined(graph, REAL, choice, **WHO)[known, graph.labels[known]].mean()
    without = joined(graph, REAL | {"inject": False}, choice, **WHO)[known, graph.labels[known]].mean()
    assert with_labels > without
    sharper = joined(graph, REAL | {"sharpen": 4.0}, choice, **WHO)
    assert sharper.max(1).mean() > joined(graph, REAL, choice, **WHO).max(1).mean()


@pytest.mark.parametrize("kind", ["real", "random", "class_random"])
def test_edges_of_mean_are_those_of_each_view(graph: KnowledgeGraph, kind: str) -> None:
    both = edges_of(graph, kind, "mean", **WHO)
    assert both.ids.shape == (2, 60, 4)
    for index, view in enumerate(graph.views):
        np.testing.assert_array_equal(both.ids[index], edges_of(graph, kind, view, **WHO).ids[0])


def test_a_controls_trials_use_the_edges_it_will_have(graph: KnowledgeGraph) -> None:
    student = REAL | {"edges": "random", "gate": False, "view": "input"}
    drawn = edges_of(graph, "random", "input", **WHO)
    again = diagnose(graph.material, {"input": drawn}, temperature=0.1, rounds=20)
    assert choose(graph, student, **WHO).diagnosis.rows == again.rows


def test_a_holdout_control_is_tuned_too(holdout_graph: KnowledgeGraph) -> None:
    for kind in ("random", "class_random"):
        choice = choose(holdout_graph, REAL | {"edges": kind, "gate": False}, **WHO)
        assert choice.diagnosis.labels_used == 20


def test_auto_without_material_is_refused_and_values_are_taken(graph: KnowledgeGraph) -> None:
    bare = replace(graph, material=None, diagnosis=None)
    with pytest.raises(UserError, match="'auto' is picked by the diagnosis, but this graph has none"):
        choose(bare, REAL, **WHO)
    given = REAL | {"view": "mean", "strength": 0.8, "mix": 0.5}
    assert choose(bare, given, **WHO) == Choice("mean", 0.8, 0.5, True)


@pytest.mark.parametrize("kind", ["real", "random", "class_random"])
def test_the_feature_join_attends_over_views_and_relations(graph: KnowledgeGraph, kind: str) -> None:
    count, k = graph.neighbours.shape[1:]
    ring = Edges((np.arange(count)[:, None] + [1, 2]).astype(np.int32) % count, np.ones((count, 2), np.float32))
    wider = Edges(np.tile(ring.ids, (1, k)), np.tile(ring.weights, (1, k)))
    for relations, width in (({}, k), ({"beside": ring}, k), ({"beside": ring, "around": wider}, 2 * k)):
        given = replace(graph, relations=relations)
        edges = attended_edges(given, kind, **WHO)
        assert edges.ids.shape == edges.weights.shape == (len(given.edge_types), count, width)
        similar = edges_of(graph, kind, "mean", **WHO)
        np.testing.assert_array_equal(edges.ids[: len(graph.views), :, :k], similar.ids)
        np.testing.assert_array_equal(edges.weights[: len(graph.views), :, :k], similar.weights)
        assert (edges.ids[: len(graph.views), :, k:] == -1).all()
        for index, table in enumerate(relations.values(), len(graph.views)):
            mine = edges.ids[index, :, : table.ids.shape[1]]
            assert (edges.ids[index, :, table.ids.shape[1] :] == -1).all()
            assert np.array_equal(mine, table.ids) == (kind == "real")
