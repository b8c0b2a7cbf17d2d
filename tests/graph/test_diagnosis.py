"""The graph knows whether it helps: scores on labels held back."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from jkd import evaluate
from jkd.graph import (
    Diagnosis,
    Edges,
    KnowledgeGraph,
    Material,
    assign_folds,
    choose_smoothing,
    diagnose,
    homophily,
    join_beliefs,
    neighbours_of,
    random_edges,
    row_softmax,
)
from jkd.graph.material import Folds, from_folds
from jkd.graph.nearest import neighbours

HOW = {"temperature": 0.1, "rounds": 20}


def test_homophily_matches_golden(golden: dict) -> None:
    for suffix in ("", "_view2"):
        table = Edges(golden[f"neighbours{suffix}"], golden[f"similarity{suffix}"])
        assert homophily(table, golden["labels"]) == pytest.approx(float(golden[f"homophily{suffix}"]), rel=1e-5)


def test_homophily_counts_only_edges_between_labelled_nodes() -> None:
    ids = np.asarray([[1, 2], [0, -1], [1, 0]], np.int32)
    table = Edges(ids, np.zeros(ids.shape, np.float32))
    assert homophily(table, np.asarray([0, 0, -1])) == 1.0
    assert homophily(table, np.asarray([0, 0, 1])) == pytest.approx(0.4)
    assert homophily(table, np.asarray([0, -1, -1])) is None


def test_scores_of_the_golden_joined_beliefs(golden: dict) -> None:
    hidden = ~golden["labelled"]
    trial_of = np.where(hidden, 0, -1).astype(np.int32)
    table = Edges(golden["neighbours"][None], golden["similarity"].astype(np.float32)[None])
    material = Material(
        "folds",
        300,
        golden["beliefs"].astype("f")[None],
        golden["labels"].astype("i"),
        trial_of,
        {"input": table},
    )
    row = diagnose(material, **HOW, strengths=(0.8,), mixes=(1.0,)).rows[1]
    assert row.nll == pytest.approx(float(golden["nll_unlabelled"]), rel=1e-5)
    assert row.nll_fitted == pytest.approx(float(golden["nll_fitted"]), rel=1e-5)
    assert row.temperature == pytest.approx(float(golden["temperature_fitted"]), rel=1e-3)  # a flat minimum


def test_folds_deal_every_class_out_evenly() -> None:
    labels = np.where(np.arange(200) % 3 > 0, np.arange(200) % 7, -1)
    fold_of = assign_folds(labels, 5, seed=1)
    np.testing.assert_array_equal(fold_of >= 0, labels >= 0)
    for label in range(7):
        counts = np.bincount(fold_of[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert np.ptp(np.bincount(fold_of[fold_of >= 0])) <= 1
    assert (assign_folds(labels, 5, seed=1, replicate=1) != fold_of).any()


def test_the_view_that_knows_the_classes_wins_and_opens_the_gate(graph: KnowledgeGraph) -> None:
    diagnosis = graph.diagnosis
    assert diagnosis is not None and diagnosis.best.view == "input" and diagnosis.gate_open
    assert diagnosis.labels_used == 0 and diagnosis.scored == 30
    assert {row.view for row in diagnosis.rows} == {"none", "teacher", "input", "mean"}
    assert diagnosis.homophily["input"] > 0.9
    assert Diagnosis.from_dict(diagnosis.as_dict()) == diagnosis


def test_random_edges_score_worse_by_the_same_folds(graph: KnowledgeGraph) -> None:
    material = graph.material
    assert material is not None and graph.diagnosis is not None
    drawn = {view: random_edges(table, 0, 0, v) for v, (view, table) in enumerate(material.edges.items())}
    diagnosis = diagnose(material, drawn, **HOW)
    assert diagnosis.no_edges == graph.diagnosis.no_edges
    assert diagnosis.best.nll_fitted > graph.diagnosis.best.nll_fitted + 0.2


def test_a_hidden_label_never_reaches_its_own_score(graph: KnowledgeGraph) -> None:
    """Whatever the label is, the beliefs scored are the same: its three likelihoods sum to 1."""
    material = graph.material
    assert material is not None
    only = replace(material, trial_of=np.where(np.arange(len(graph)) == 0, 0, -1).astype(np.int32))
    nll = []
    for label in range(3):
        labels = material.labels.copy()
        labels[0] = label
        nll.append(diagnose(replace(only, labels=labels), **HOW, views=("input",)).rows[1].nll)
    assert np.exp(-np.asarray(nll)).sum() == pytest.approx(1, abs=1e-4)


def test_ties_prefer_no_edges_then_the_earlier_view(graph: KnowledgeGraph) -> None:
    material = graph.material
    assert material is not None
    nothing = Edges(np.full_like(material.edges["input"].ids, -1), np.zeros_like(material.edges["input"].weights))
    diagnosis = diagnose(material, {"teacher": nothing, "input": nothing}, **HOW, inject=False)
    assert not diagnosis.gate_open
    assert (diagnosis.best.view, diagnosis.best.strength, diagnosis.best.mix) == ("teacher", 0.5, 0.5)


def test_holdout_scores_are_of_beliefs_carried_out_of_the_pool(holdout_graph: KnowledgeGraph) -> None:
    """q_h = (1 - a) p_h + a sum_j W_hj q_j, q the pool's joined beliefs after the last round."""
    graph, material = holdout_graph, holdout_graph.material
    assert material is not None and graph.diagnosis is not None
    assert graph.diagnosis.labels_used == graph.diagnosis.scored == 20
    inside = graph.edges("input")
    hard = np.where(graph.labels[:, None] >= 0, np.eye(3, dtype="f")[graph.labels], graph.beliefs)
    pool = np.asarray(join_beliefs(hard, *inside, 0.1, 0.8, 20))
    table = Edges(material.edges["input"].ids[0, 60:], material.edges["input"].weights[0, 60:])
    attention = np.asarray(row_softmax(table.weights, table.ids, 0.1))
    outside = 0.2 * material.beliefs[0, 60:] + 0.8 * np.einsum("hk,hkc->hc", attention, pool[table.ids])
    rows = diagnose(material, temperature=0.1, rounds=20, mixes=(1.0,)).rows
    row = next(r for r in rows if (r.view, r.strength) == ("input", 0.8))
    _, fitted = evaluate.fit_temperature(np.log(outside), material.labels[60:])
    assert row.nll_fitted == pytest.approx(fitted, abs=1e-4)
    assert row.accuracy == (outside.argmax(1) == material.labels[60:]).mean()


def test_holdout_edges_lead_into_the_pool(holdout_graph: KnowledgeGraph) -> None:
    material = holdout_graph.material
    assert material is not None
    for view, table in material.edges.items():
        assert table.ids.max() < 60
        np.testing.assert_array_equal(table.ids[0, :60], holdout_graph.edges(view).ids[0])


def test_fold_views_other_than_the_teachers_are_the_graphs_own(graph: KnowledgeGraph) -> None:
    material = graph.material
    assert material is not None
    assert material.edges["teacher"].ids.shape[0] == 3 and material.edges["input"].ids.shape[0] == 1
    np.testing.assert_array_equal(material.edges["input"].ids, graph.edges("input").ids)


def test_views_that_depend_on_the_teacher_are_each_folds_own() -> None:
    draw = np.random.default_rng(0)
    labels, features = np.arange(12, dtype=np.int32) % 3, [draw.normal(size=(12, 4)) for _ in range(4)]
    told = [{"context": draw.normal(size=(12, 2)).astype(np.float32)} for _ in range(2)]
    beliefs = [np.full((12, 3), 1 / 3)] * 2
    folds = Folds(labels % 2, beliefs, features[:2], told)
    own = {view: neighbours(features[3], 2) for view in ("teacher", "input", "context")}
    made = from_folds(folds, labels, own, k=2, block=8).edges
    for fold in range(2):
        np.testing.assert_array_equal(made["context"].ids[fold], neighbours(told[fold]["context"], 2).ids)
        np.testing.assert_array_equal(made["teacher"].ids[fold], neighbours(features[fold], 2).ids)
    assert made["input"].ids.shape[0] == 1


def test_smoothing_is_picked_by_raw_likelihood(make_graph: Callable[..., KnowledgeGraph]) -> None:
    material = make_graph().material
    assert material is not None
    sure = replace(material, beliefs=np.eye(3, dtype="f")[material.beliefs.argmax(-1)])  # right or wrong
    m, rows = choose_smoothing(sure)
    assert m == min(rows, key=lambda row: row["nll"])["smoothing"] > 0
    truth = np.eye(3, dtype="f")[np.maximum(material.labels, 0)][None].repeat(3, 0)
    assert choose_smoothing(replace(material, beliefs=truth))[0] == 0.0


def test_the_same_inputs_give_the_same_graph(make_graph: Callable[..., KnowledgeGraph]) -> None:
    assert make_graph().digest == make_graph().digest != make_graph(seed=1).digest


def test_neighbours_of_queries_reach_holdout_nodes(holdout_graph: KnowledgeGraph) -> None:
    own = neighbours_of(holdout_graph.features[:5], holdout_graph.features, 1)
    np.testing.assert_array_equal(own.ids[:, 0], np.arange(5))
