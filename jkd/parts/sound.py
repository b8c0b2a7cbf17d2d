"""What a teacher says must be worth learning: finite, not the same for every sample, no class ruled out for ever."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from jkd.errors import UserError, some, visible

SAME = 1e-6  # difference of probabilities up to which answers count as one


def softmax(logits: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    """Rows as probabilities, float32, computed in float64."""
    raised = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return (raised / raised.sum(-1, keepdims=True)).astype(np.float32)


def refuse_unsound(
    logits: Float[np.ndarray, "n k"],
    features: Float[np.ndarray, "n d"] | None,
    id_of: Callable[[int], str],
    classes: Sequence[str],
    loaded: bool,
) -> None:
    """Refuses a teacher by what it says of some samples.

    Args:
      logits: of n samples.
      features: their embeddings, where they are there.
      id_of: row -> the sample's id.
      classes: names.
      loaded: whether the teacher comes from a file or function. Only then a class that never gets a probability above
        0 is refused: a loaded teacher that masks one is not this data set's. (A single 0 by rounding does no harm, as
        losses work on logits; one by a logit of -inf is not finite, and refused with its row.)

    Raises:
      UserError: naming the first row, its sample, and what to look at.
    """
    look = "Check its weights, and that data.mean and data.std are those it was trained with."
    if not loaded:
        look = "Lower teacher.train.optimizer.learning_rate, or set its clip."

    def named(row: int) -> str:
        return f"row {row} ({visible(id_of(row))})"

    for what, values in (("logits", logits), ("embedding", features)):
        if values is None:
            continue
        bad = np.flatnonzero(~np.isfinite(values).all(-1))
        if len(bad):
            row = int(bad[0])
            column = int(np.flatnonzero(~np.isfinite(values[row]))[0])
            where = f"class '{visible(classes[column])}'" if what == "logits" else f"unit {column}"
            raise UserError(
                f"teacher: its {what} are not finite for {len(bad)} of {len(values)} samples; the first is "
                f"{named(row)}, with {values[row, column]} at {where}. {look}"
            )
    beliefs = softmax(logits)
    if len(logits) > 1 and np.ptp(beliefs, axis=0).max() <= SAME:
        raise UserError(
            f"teacher: it says the same of all {len(logits)} samples, from {named(0)} on, so there is nothing to learn "
            f"from it. {look}"
        )
    if loaded:
        never = np.flatnonzero((beliefs == 0).all(0))
        if len(never):
            masked, apart = some([classes[column] for column in never.tolist()]), float(np.ptp(logits, axis=1).max())
            raise UserError(
                f"teacher: it gives a probability of exactly 0 to {masked} for all {len(logits)} samples, from "
                f"{named(0)} on: its logits lie up to {apart:.4g} apart. Divide them by a temperature; mask nothing."
            )
