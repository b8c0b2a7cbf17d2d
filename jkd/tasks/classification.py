"""Classification, of images or of texts: one anchor a sample."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jkd import evaluate
from jkd.tasks.task import Anchors, Task


def anchors(batch: Mapping[str, Array], outputs: Float[Array, "b c"], taps: Mapping[str, Array]) -> Anchors:
    """Every sample is an anchor: its node is the batch's `node`, its feature the embedding."""
    mask = jnp.ones(outputs.shape[:1], jnp.float32)
    return Anchors(node=batch["node"], mask=mask, feature=taps["embedding"], logits=outputs)


def metrics(outputs: np.ndarray, labels: np.ndarray, teacher: np.ndarray | None) -> dict[str, float | None]:
    """Accuracy, NLL and ECE (15 bins) against the labels; agreement with and KL from a teacher, if there is one."""
    return {
        "accuracy": evaluate.accuracy(outputs, labels),
        "nll": evaluate.nll(outputs, labels),
        "ece": evaluate.ece(outputs, labels, bins=15),
        "agreement": None if teacher is None else evaluate.agreement(outputs, teacher),
        "kl": None if teacher is None else evaluate.kl(teacher, outputs),
    }


CLASSIFICATION = Task(name="classification", primary=("accuracy", "max"), anchors=anchors, metrics=metrics)
