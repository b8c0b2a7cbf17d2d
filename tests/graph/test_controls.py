"""Controls: the same shape and weights, neighbours that know nothing."""

import numpy as np

from jkd.graph.controls import class_random, random_edges
from jkd.graph.nearest import Edges, neighbours

NODES = 200
EDGES = neighbours(np.random.default_rng(0).standard_normal((NODES, 4)).astype(np.float32), 6, 256)
CLASSES = np.append(np.random.default_rng(1).integers(0, 3, NODES - 1), 9)  # the last node is alone in its class
OWN = np.arange(NODES)[:, None]


def test_random_edges_keep_count_and_weights_and_never_lead_home() -> None:
    drawn = random_edges(EDGES, seed=0, replicate=0)
    assert drawn.ids.dtype == np.int32 and drawn.ids.min() >= 0 and drawn.ids.max() < NODES
    np.testing.assert_array_equal(drawn.weights, EDGES.weights)
    assert not (drawn.ids == OWN).any()
    assert (drawn.ids != EDGES.ids).mean() > 0.9


def test_random_edges_reach_every_node_about_equally() -> None:
    times = np.zeros(NODES)
    for replicate in range(50):
        times += np.bincount(random_edges(EDGES, 0, replicate).ids.ravel(), minlength=NODES)
    assert times.min() / times.mean() > 0.8 and times.max() / times.mean() < 1.2


def test_a_draw_is_a_function_of_seed_replicate_and_view() -> None:
    first = random_edges(EDGES, 1, 2, view=0).ids
    np.testing.assert_array_equal(first, random_edges(EDGES, 1, 2, view=0).ids)
    for other in ((2, 2, 0), (1, 3, 0), (1, 2, 1)):
        assert (random_edges(EDGES, *other).ids != first).any()


def test_folds_share_a_draw_and_keep_their_own_weights() -> None:
    two = Edges(np.stack([EDGES.ids, EDGES.ids[::-1]]), np.stack([EDGES.weights, EDGES.weights[::-1]]))
    drawn = random_edges(two, 0, 0)
    np.testing.assert_array_equal(drawn.ids[0], drawn.ids[1])
    np.testing.assert_array_equal(drawn.ids[0], random_edges(EDGES, 0, 0).ids)
    np.testing.assert_array_equal(drawn.weights, two.weights)


def test_missing_edges_stay_missing() -> None:
    ids, weights = EDGES.ids.copy(), EDGES.weights.copy()
    ids[3, 2:], weights[3, 2:] = -1, 0
    for drawn in (
        random_edges(Edges(ids, weights), 0, 0),
        class_random(Edges(ids, weights), CLASSES * 0, 0, 0),
    ):
        np.testing.assert_array_equal(drawn.ids >= 0, ids >= 0)
        np.testing.assert_array_equal(drawn.weights, weights)


def test_class_random_stays_within_the_class_and_leaves_a_lone_node_alone() -> None:
    drawn = class_random(EDGES, CLASSES, 0, 0)
    assert (CLASSES[drawn.ids[:-1]] == CLASSES[:-1, None]).all()
    assert not (drawn.ids == OWN).any()
    assert (drawn.ids[-1] == -1).all() and not drawn.weights[-1].any()
    assert len(np.unique(drawn.ids[:-1])) == NODES - 1


def test_rows_outside_the_pool_draw_from_the_pool_alone() -> None:
    for drawn in (random_edges(EDGES, 0, 0, pool=150), class_random(EDGES, CLASSES, 0, 0, pool=150)):
        assert drawn.ids.max() < 150
        assert not (drawn.ids == OWN).any()
        assert (drawn.ids[150:-1] >= 0).all()
