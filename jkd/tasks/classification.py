"""Classification, of images or of texts: one anchor a sample."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jkd import evaluate
from jkd.data.pipeline import no_targets
from jkd.tasks.task import Anchors, Task


def anchors(batch: Mapping[str, Array], outputs: Float[Array, "b c"], taps: Mapping[str, Array]) -> Anchors:
    """Every sample is an anchor: its node is the batch's `node`, its feature the embedding."""
    mask = jnp.ones(outputs.shape[:1], jnp.float32)
    return Anchors(node=batch["node"], mask=mask, feature=taps["embedding"], logits=outputs)


def nodes(batch: Mapping[str, Array]) -> Int[Array, " b"]:
    """Every sample is a node."""
    return batch["node"]


def given(batch: Mapping[str, Array], classes: int) -> dict[str, Array]:
    """`label_target` float32 `[B, C]`, a zero row where the label is hidden; `labelled` float32 `[B]`."""
    label = batch["label"]
    return {
        "label_target": jax.nn.one_hot(label, classes, dtype=jnp.float32),  # -1 gives a zero row
        "labelled": (label >= 0).astype(jnp.float32),
    }


def metrics(outputs: np.ndarray, labels: np.ndarray, teacher: np.ndarray | None) -> dict[str, float | None]:
    """Accuracy, NLL and ECE (15 bins) against the labels; agreement with and KL from a teacher, if there is one."""
    return {
        "accuracy": evaluate.accuracy(outputs, labels),
        "nll": evaluate.nll(outputs, labels),
        "ece": evaluate.ece(outputs, labels, bins=15),
        "agreement": None if teacher is None else evaluate.agreement(outputs, teacher),
        "kl": None if teacher is None else evaluate.kl(teacher, outputs),
    }


CLASSIFICATION = Task(
    name="classification",
    primary=("accuracy", "max"),
    anchors=anchors,
    nodes=nodes,
    targets=no_targets,
    given=given,
    metrics=metrics,
)
