"""A student's share of the graph: pure, of the right nodes, and only what its objective asks for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jkd import config as configs
from jkd import objective
from jkd.graph import store
from jkd.graph.knowledge_graph import KnowledgeGraph
from jkd.share import Share, share_of


@pytest.fixture(scope="module")
def graph(done: Any) -> KnowledgeGraph:
    return store.load(Path(done.workdir) / "replicates" / "0" / "graph")


def _share(whole: KnowledgeGraph, seed: int = 0, **student: Any) -> Share:
    config = configs.default()
    config.students = {"it": {"objective": {"kd": 1.0}} | student}
    network = configs.resolve(config).students.it
    return share_of(whole, network, objective.make_objective(network, len(whole.views)), seed, 0)


def test_a_student_without_edges_takes_the_whole_pool_and_no_array(graph: KnowledgeGraph):
    share = _share(graph)
    assert share.samples.tolist() == list(range(200)) and share.choices == {} and share.labels_used == 0
    assert all(value is None for value in share.knowledge)


def test_labelled_only_takes_the_nodes_with_a_label(graph: KnowledgeGraph):
    share = _share(graph, sampling={"of": "labelled"})
    assert len(share.samples) == 40 and (graph.labels[share.samples] >= 0).all()


def test_a_budget_keeps_as_many_in_order(graph: KnowledgeGraph):
    for by in ("uniform", "class_balanced"):
        nodes = _share(graph, sampling={"budget": 30, "by": by}).samples
        assert len(nodes) == 30 and (np.diff(nodes) > 0).all()
    edges = {"graph": {"edges": "real", "view": "input"}}
    nodes = _share(graph, sampling={"budget": 30, "by": "facility_location"}, **edges).samples
    assert len(nodes) == 30 and (np.diff(nodes) > 0).all()


JOINED = {"objective": {"joined_beliefs": 0.9}, "graph": {"edges": "real"}}


def test_choices_are_those_of_the_diagnosis_and_cost_no_label_by_folds(graph: KnowledgeGraph):
    assert graph.diagnosis is not None
    share, best = _share(graph, **JOINED), graph.diagnosis.best
    assert share.choices == {
        "edges": "real",
        "view": best.view,
        "strength": best.strength,
        "mix": best.mix if graph.diagnosis.gate_open else 0.0,
        "gate_open": graph.diagnosis.gate_open,
    }
    assert share.labels_used == 0
    joined = np.asarray(share.knowledge.joined)
    np.testing.assert_allclose(joined.sum(1), 1.0, atol=1e-5)
    assert share.knowledge.features is None and share.knowledge.neighbours is None


def test_given_values_are_taken_as_they_are(graph: KnowledgeGraph):
    settings = {"edges": "real", "view": "teacher", "strength": 0.3, "mix": 0.25, "gate": False}
    share = _share(graph, objective={"joined_beliefs": 1.0}, graph=settings)
    assert [share.choices[key] for key in ("view", "strength", "mix", "gate_open")] == ["teacher", 0.3, 0.25, True]
    assert float(share.knowledge.mix) == 0.25


def test_a_control_differs_by_seed_and_not_in_repeats(graph: KnowledgeGraph):
    random = {"objective": {"joined_beliefs": 1.0}, "graph": {"edges": "random", "gate": False, "view": "input"}}
    zero, again, one = (_share(graph, seed, **random) for seed in (0, 0, 1))
    assert np.array_equal(zero.knowledge.joined, again.knowledge.joined)
    assert not np.array_equal(zero.knowledge.joined, one.knowledge.joined)


def test_the_projection_reads_every_view_and_none_where_there_are_no_edges(graph: KnowledgeGraph):
    share = _share(graph, objective={"projection": 1.0, "kd": 1.0}, graph={"edges": "real", "view": "input"})
    assert share.knowledge.neighbours.shape == (2, 200, 8) and share.knowledge.joined is None
    assert np.array_equal(share.knowledge.neighbours, graph.neighbours)
    alone = _share(graph, objective={"projection": 1.0})
    assert (np.asarray(alone.knowledge.neighbours) == -1).all() and alone.knowledge.features.shape == (200, 16)


def test_smoothing_is_picked_once_for_whoever_asks(graph: KnowledgeGraph):
    share = _share(graph, objective={"label_smoothing": {"smoothing": "auto"}})
    assert 0 <= share.choices["smoothing"] <= 1
    assert float(share.knowledge.smoothing) == pytest.approx(share.choices["smoothing"])
    assert _share(graph, objective={"label_smoothing": {"smoothing": 0.2}}).knowledge.smoothing is None
