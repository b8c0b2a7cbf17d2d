"""Each token's nearest tokens in the teacher's own embedding table, for replacement in augmentation."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int32

from jkd.errors import UserError
from jkd.graph.nearest import neighbours


def token_neighbours(
    table: Float[np.ndarray, "V D"], k: int, excluded: Sequence[int] = (), block: int = 2048
) -> Int32[np.ndarray, "V k"]:
    """The k tokens of highest cosine similarity, best first, ties by id; -1 where there are fewer.

    In blocks, never as a `[V, V]` matrix; two calls give the same bytes (see `jkd.graph.nearest`).

    Args:
      table: the teacher's word embeddings.
      k: neighbours of a token, itself not counted.
      excluded: ids that get no neighbours and are nobody's: special tokens, unused rows, the unknown word.
      block: rows and columns that are multiplied at once.

    Raises:
      UserError: k below 1, an id that is not in the table, values that are not finite.
    """
    if k < 1:
        raise UserError(f"token neighbours: expected k of at least 1, got {k}.")
    beyond = [token for token in excluded if not 0 <= token < len(table)]
    if beyond:
        raise UserError(f"token neighbours: the embedding table has {len(table)} rows, but id {beyond[0]} is excluded.")
    rows = np.asarray(table, np.float32).copy()
    rows[list(excluded)] = 0  # a row without a direction has no neighbours and is nobody's
    return neighbours(rows, k, block).ids
