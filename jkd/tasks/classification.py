"""Classification, of images or of texts: one anchor a sample."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jkd import evaluate
from jkd.graph import views
from jkd.graph.nearest import Edges
from jkd.tasks.task import Anchors, Differences, Found, Nodes, Task


def anchors(batch: Mapping[str, Array], outputs: Float[Array, "b c"], taps: Mapping[str, Array]) -> Anchors:
    """Every sample is an anchor: its node is the batch's `node`, its feature the embedding."""
    mask = jnp.ones(outputs.shape[:1], jnp.float32)
    return Anchors(node=batch["node"], mask=mask, feature=taps["embedding"], logits=outputs)


def nodes(batch: Mapping[str, Array]) -> Int[Array, " b"]:
    """Every sample is a node."""
    return batch["node"]


def targets(source: Any, indices: np.ndarray, labels: np.ndarray, nodes: Nodes | None = None) -> dict[str, np.ndarray]:
    """A sample's label is enough."""
    return {}


def example(count: int) -> dict[str, np.ndarray]:
    """Nothing, as `targets`."""
    return {}


def given(batch: Mapping[str, Array], classes: int) -> dict[str, Array]:
    """`label_target` float32 `[B, C]`, a zero row where the label is hidden; `labelled` float32 `[B]`."""
    label = batch["label"]
    return {
        "label_target": jax.nn.one_hot(label, classes, dtype=jnp.float32),  # -1 gives a zero row
        "labelled": (label >= 0).astype(jnp.float32),
    }


def predict(
    batch: Mapping[str, Array], outputs: Float[Array, "b c"], taps: Mapping[str, Array]
) -> dict[str, Float[Array, "b _"]]:
    """`logits` and `embedding`, of a sample and so of its node, too."""
    return {"logits": outputs, "embedding": taps["embedding"]}


def rows(described: Found, index: np.ndarray, nodes: Nodes) -> Found:
    """A row a sample is a row a node already."""
    return described


def metrics(
    found: Found, source: Any, index: np.ndarray, labels: np.ndarray, teacher: Found | None
) -> dict[str, float | None]:
    """Accuracy, NLL, ECE (15 bins), F1, Matthews' correlation; agreement with and KL from a teacher if there is one."""
    outputs, theirs = found["logits"], None if teacher is None else teacher["logits"]
    return {
        "accuracy": evaluate.accuracy(outputs, labels),
        "nll": evaluate.nll(outputs, labels),
        "ece": evaluate.ece(outputs, labels, bins=15),
        "agreement": None if theirs is None else evaluate.agreement(outputs, theirs),
        "kl": None if theirs is None else evaluate.kl(theirs, outputs),
        "f1": evaluate.f1(outputs, labels),
        "f1_binary": evaluate.f1(outputs, labels, "binary") if outputs.shape[1] == 2 else None,
        "matthews": evaluate.matthews(outputs, labels),
    }


def differences(found: Sequence[Mapping[str, np.ndarray]], labels: np.ndarray) -> Differences:
    """Churn and its parts, what is expected of it, agreement and Jensen-Shannon divergence."""
    logits = np.stack([some["logits"] for some in found])
    classes, runs = logits.argmax(-1), len(logits)
    right = classes == labels
    churn, good, bad, both_wrong = evaluate.churn_by_sample(classes, labels)
    by_sample = {
        "churn": churn,
        "good_churn": good,
        "bad_churn": bad,
        "both_wrong_churn": both_wrong,
        "js": evaluate.jensen_shannon_by_sample(logits),
    }
    pairs = {measure: evaluate.square(shares.mean(axis=1), runs) for measure, shares in by_sample.items()}
    samples = {measure: shares.mean(axis=0) for measure, shares in by_sample.items()}
    return Differences(
        pairs
        | {
            "agreement": 1 - pairs["churn"],
            "expected_churn": evaluate.expected_churn(right.mean(axis=1), logits.shape[2]),
        },
        samples | {"agreement": 1 - samples["churn"]},
        right,
        logits.shape[2],
    )


def answers(found: Found) -> np.ndarray:
    """The likeliest classes."""
    likeliest: np.ndarray = found["logits"].argmax(-1)
    return likeliest


def told(found: Found, source: Any, index: np.ndarray) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """One answer a sample: the likeliest class, with its probability, and those of all."""
    beliefs = np.exp(evaluate.log_softmax(found["logits"]))
    likeliest = answers(found).tolist()
    made = [
        {"class": kind, "score": float(row[kind]), "beliefs": [float(belief) for belief in row]}
        for kind, row in zip(likeliest, beliefs, strict=True)
    ]
    return np.arange(len(index)), made


def nodes_of(source: Any, index: np.ndarray, labels: np.ndarray, look: Callable[[np.ndarray], Found]) -> Nodes:
    """Every sample is a node."""
    return Nodes(np.asarray(index, np.int32), np.asarray(labels, np.int32))


def view(
    name: str, source: Any, nodes: Nodes, beliefs: np.ndarray, k: int, inside: tuple[Nodes, np.ndarray] | None = None
) -> np.ndarray | Edges:
    """See `jkd.graph.views.view_of`."""
    return views.view_of(name, source, nodes.sample, k, None if inside is None else inside[0].sample)


def relations(nodes: Nodes, beliefs: np.ndarray, classes: int, k: int) -> dict[str, Edges]:
    """None: samples are apart from each other."""
    return {}


def ids(source: Any, nodes: Nodes) -> list[str]:
    """Those of the samples."""
    return [source.id(int(index)) for index in nodes.sample]


CLASSIFICATION = Task(
    name="classification",
    kinds=("images", "texts"),
    primary=("accuracy", "max"),
    columns={"accuracy": "accuracy", "nll": "NLL", "ece": "ECE", "agreement": "agrees", "kl": "KL"},
    further={"f1": "F1, macro", "f1_binary": "F1", "matthews": "Matthews"},
    caption="Accuracy, ECE (15 bins), agreement with the teacher and churn are percent, NLL and KL from the teacher "
    "are nats. Churn is the share of test inputs on which two runs differ.",
    figures=("accuracy", "nll", "ece", "agreement"),
    supervised="cross_entropy",
    stored=("logits",),
    views=tuple(views.OF_SAMPLES),
    anchors=anchors,
    nodes=nodes,
    targets=targets,
    example=example,
    given=given,
    predict=predict,
    describe=predict,
    rows=rows,
    metrics=metrics,
    differences=differences,
    answers=answers,
    told=told,
    found=None,
    nodes_of=nodes_of,
    view=view,
    relations=relations,
    ids=ids,
)
