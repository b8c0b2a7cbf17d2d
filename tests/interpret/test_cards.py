import numpy as np
import pytest

from jkd.interpret.cards import KINDS, Evidence, cards, choose, evidence, surrogate

CLASSES, NODES, TESTS, WIDTH = 4, 40, 300, 6


def _beliefs(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.dirichlet(np.full(CLASSES, 0.4), size).astype(np.float32)


@pytest.fixture
def world() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "tests": rng.normal(size=(TESTS, WIDTH)).astype(np.float32),
        "nodes": rng.normal(size=(NODES, WIDTH)).astype(np.float32),
        "node_beliefs": _beliefs(rng, NODES),
        "student": _beliefs(rng, TESTS),
        "teacher": _beliefs(rng, TESTS),
        "labels": rng.integers(0, CLASSES, TESTS),
    }


def _evidence(world: dict[str, np.ndarray], k: int = 5) -> Evidence:
    return evidence(world["tests"], world["nodes"], world["node_beliefs"], k)


def test_neighbours_are_those_of_a_full_sort_and_weights_a_softmax(world: dict[str, np.ndarray]) -> None:
    found = _evidence(world)
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (world["tests"], world["nodes"])]
    scores = unit[0] @ unit[1].T
    np.testing.assert_array_equal(found.node, np.argsort(-scores, axis=1, kind="stable")[:, :5])
    expected = np.exp(np.sort(scores, axis=1)[:, ::-1][:, :5] / 0.1)
    np.testing.assert_allclose(found.weight, expected / expected.sum(1, keepdims=True), rtol=1e-4)
    np.testing.assert_allclose(
        found.belief, np.einsum("tk,tkc->tc", found.weight, world["node_beliefs"][found.node]), rtol=1e-5
    )
    np.testing.assert_allclose(found.belief.sum(1), 1, rtol=1e-5)


def test_ties_go_to_the_lower_node_and_k_is_at_most_the_number_of_nodes() -> None:
    found = evidence(np.ones((2, 3)), np.ones((4, 3)), np.eye(4)[:, :3] / 1.0 + 0.0, 3)
    np.testing.assert_array_equal(found.node, [[0, 1, 2]] * 2)
    assert evidence(np.ones((2, 3)), np.ones((4, 3)), np.full((4, 2), 0.5), 9).node.shape == (2, 4)


def test_surrogate_is_one_where_the_neighbours_say_what_the_student_says(
    world: dict[str, np.ndarray],
) -> None:
    found = _evidence(world)
    arrays = (world["tests"], world["nodes"], world["node_beliefs"])
    measured = surrogate(found, *arrays, np.log(found.belief))
    assert measured["agreement"] == 1 and measured["n"] == TESTS and measured["k"] == 5
    assert 0 < measured["baseline"] < 0.8
    assert measured == surrogate(found, *arrays, np.log(found.belief))


def test_chosen_inputs_are_balanced_over_the_kinds_distinct_and_fixed(world: dict[str, np.ndarray]) -> None:
    alone = _evidence(world).belief
    picked = choose(world["labels"], world["student"], world["teacher"], alone, 12)
    assert picked == choose(world["labels"], world["student"], world["teacher"], alone, 12)
    assert len({index for index, _ in picked}) == 12
    counts = [sum(kind == wanted for _, kind in picked) for wanted in KINDS]
    assert min(counts) == 2 and max(counts) == 3
    right = world["student"].argmax(1) == world["labels"]
    assert all(right[index] == ("right" in kind) for index, kind in picked if kind != "neighbours disagree")


def test_a_small_test_set_gives_each_of_its_inputs_once() -> None:
    labels = np.array([0, 1, 1])
    picked = choose(labels, np.eye(2)[labels], np.eye(2)[labels], None, 12)
    assert sorted(index for index, _ in picked) == [0, 1, 2]


def test_a_card_names_edge_class_and_belief_and_says_whether_the_neighbours_agree(
    world: dict[str, np.ndarray],
) -> None:
    found = _evidence(world)
    node_labels = np.where(np.arange(NODES) % 2, -1, 3)
    made = cards(
        [(7, "wrong")],
        world["labels"],
        world["student"],
        world["teacher"],
        found,
        node_labels,
        world["node_beliefs"],
        np.arange(NODES) + 100,
    )[0]
    assert made["sample"] == 7 and made["agrees"] == (np.argmax(made["alone"]) == np.argmax(made["student"]))
    for neighbour in made["neighbours"]:
        hidden = neighbour["node"] % 2
        beliefs = world["node_beliefs"][neighbour["node"]]
        assert neighbour["sample"] == neighbour["node"] + 100
        assert neighbour["edge"] == ("predicted_as" if hidden else "instance_of")
        assert neighbour["class"] == (beliefs.argmax() if hidden else 3)
        assert neighbour["belief"] == pytest.approx(beliefs[neighbour["class"]])
    assert sum(neighbour["weight"] for neighbour in made["neighbours"]) == pytest.approx(1, abs=1e-5)


def test_a_card_without_projection_has_no_neighbours(world: dict[str, np.ndarray]) -> None:
    arrays = (world["labels"], world["student"], world["teacher"], None)
    made = cards([(0, "wrong")], *arrays, np.zeros(0, int), np.zeros((0, CLASSES)), np.zeros(0, int))[0]
    assert made["neighbours"] == [] and made["alone"] is None and made["agrees"] is None
