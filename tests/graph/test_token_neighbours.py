import numpy as np
import pytest

from jkd.errors import UserError
from jkd.graph.token_neighbours import token_neighbours

TABLE = np.random.default_rng(0).normal(size=(150, 8)).astype(np.float32)
SPECIAL = (0, 7, 100)


def test_it_equals_a_full_sort_whatever_the_block():
    unit = TABLE.astype(np.float64) / np.linalg.norm(TABLE.astype(np.float64), axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    cosine[:, SPECIAL] = -np.inf
    expected = np.argsort(-cosine, axis=1, kind="stable")[:, :5]
    expected[list(SPECIAL)] = -1
    for block in (64, 2048):
        found = token_neighbours(TABLE, 5, SPECIAL, block)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, expected)


def test_equal_tokens_tie_by_id_and_the_table_stays_as_it_is():
    table = np.repeat(TABLE[:1], 6, axis=0)
    before = table.copy()
    found = token_neighbours(table, 3, [2])
    np.testing.assert_array_equal(found[[0, 1, 5]], [[1, 3, 4], [0, 3, 4], [0, 1, 3]])
    np.testing.assert_array_equal(found[2], [-1, -1, -1])
    np.testing.assert_array_equal(table, before)


def test_half_precision_tables_and_fewer_tokens_than_k():
    found = token_neighbours(TABLE[:4].astype(np.float16), 5, [3])
    assert (np.sort(found[0])[-2:] == [1, 2]).all() and (found[:, 2:] == -1).all()


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match="k of at least 1, got 0"):
        token_neighbours(TABLE, 0)
    with pytest.raises(UserError, match="150 rows, but id 150 is excluded"):
        token_neighbours(TABLE, 2, [150])
    with pytest.raises(UserError, match="row 3 is not finite"):
        token_neighbours(np.where(np.arange(150)[:, None] == 3, np.float32(np.nan), TABLE), 2)
