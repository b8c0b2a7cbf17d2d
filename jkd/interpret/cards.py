"""Prediction cards: what the student believes of a test input, and what its nearest graph nodes say alone.

The student maps a test input into the projected space, where every node of the knowledge graph has a
place. The k nodes nearest by cosine vote with the teacher's beliefs about them, weighted by
softmax(cosine / 0.1):

    p_G(x) = sum_i w_i p_T(x_i)

p_G is not how the student computes its answer. How often the two agree is measured over the whole test set
(`surrogate`), beside the same vote taken by random nodes, and a card on which they disagree says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int, Int32

from jkd import random

TEMPERATURE = 0.1
ROWS = 256  # test inputs compared with all nodes at once
KINDS = (
    "right, confident",
    "wrong",
    "neighbours disagree",
    "student right, teacher wrong",
    "right, unsure",
)


@dataclass(frozen=True)
class Evidence:
    """The nearest nodes of every test input and what they say.

    Attributes:
      node: the k nearest nodes, nearest first, int32 `[T, k]`.
      cosine: their cosines, float32 `[T, k]`.
      weight: their weights in the vote, rows sum to 1, float32 `[T, k]`.
      belief: p_G, float32 `[T, C]`.
    """

    node: Int32[np.ndarray, "t k"]
    cosine: Float32[np.ndarray, "t k"]
    weight: Float32[np.ndarray, "t k"]
    belief: Float32[np.ndarray, "t c"]


def evidence(
    test_projection: Float[np.ndarray, "t d"],
    node_projection: Float[np.ndarray, "n d"],
    node_beliefs: Float[np.ndarray, "n c"],
    k: int,
) -> Evidence:
    """Finds the k nearest nodes of every test input; ties by lower node id. Holds 256 x N cosines at a time.

    Args:
      test_projection: the student's projections of the test inputs; scaled to unit norm here.
      node_projection: the nodes' projections; scaled to unit norm here.
      node_beliefs: the teacher's beliefs about the nodes, rows sum to 1.
      k: how many neighbours; all nodes where there are fewer.
    """
    return _vote(*nearest(test_projection, node_projection, k), node_beliefs)


def nearest(
    test_projection: Float[np.ndarray, "t d"], node_projection: Float[np.ndarray, "n d"], k: int
) -> tuple[Int32[np.ndarray, "t k"], Float32[np.ndarray, "t k"]]:
    """The k nodes nearest to every test input, nearest first, and their cosines; rules and sizes as in `evidence`."""
    tests, nodes = _unit(test_projection), _unit(node_projection)
    k = min(k, len(nodes))
    found = [_nearest(tests[start : start + ROWS] @ nodes.T, k) for start in range(0, len(tests), ROWS)]
    node, cosine = (np.concatenate(part) for part in zip(*found, strict=True))
    return node, cosine


def surrogate(
    found: Evidence,
    test_projection: Float[np.ndarray, "t d"],
    node_projection: Float[np.ndarray, "n d"],
    node_beliefs: Float[np.ndarray, "n c"],
    student_logits: Float[np.ndarray, "t c"],
) -> dict[str, Any]:
    """How well the neighbours alone foretell the student's answers, over all test inputs.

    Returns:
      `agreement` of argmax p_G with the student's; `baseline`, the same for as many nodes drawn at random for
      each input, weighted by their own cosines; `k`; `n`, the number of test inputs.
    """
    tests, nodes = _unit(test_projection), _unit(node_projection)
    size, k = found.node.shape
    drawn = (random.bits("edges", size, k, len(nodes), size=size * k) % np.uint64(len(nodes))).astype(np.int32)
    drawn = drawn.reshape(size, k)
    cosine = np.einsum("td,tkd->tk", tests, nodes[drawn])
    answers = student_logits.argmax(-1)
    return {
        "agreement": float(np.mean(found.belief.argmax(-1) == answers)),
        "baseline": float(np.mean(_vote(drawn, cosine, node_beliefs).belief.argmax(-1) == answers)),
        "k": k,
        "n": size,
    }


def choose(
    labels: Int[np.ndarray, " t"],
    student: Float[np.ndarray, "t c"],
    teacher: Float[np.ndarray, "t c"],
    neighbours: Float[np.ndarray, "t c"] | None,
    how_many: int,
) -> list[tuple[int, str]]:
    """Picks test inputs by a fixed rule, in turn from the kinds in `KINDS`, until there are enough.

    Within a kind: the most confident first (the least confident for "right, unsure"), ties by lower index; a
    class the kind has not shown yet goes before one it has. An input is shown once. A kind without inputs is
    passed over.

    Args:
      labels: true classes, -1 where unknown (such an input counts as neither right nor wrong).
      student: the student's beliefs.
      teacher: the teacher's beliefs.
      neighbours: p_G, or None where there is no projection.
      how_many: cards wanted; fewer where the test set has fewer.

    Returns:
      `(index, kind)` pairs, sorted by kind.
    """
    answer, sure = student.argmax(-1), student.max(-1)
    right, known = answer == labels, labels >= 0
    differs = np.zeros(len(labels), bool) if neighbours is None else neighbours.argmax(-1) != answer
    members = {
        "right, confident": (right & ~differs, -sure),
        "wrong": (known & ~right, -sure),
        "neighbours disagree": (differs, np.zeros_like(sure) if neighbours is None else -neighbours.max(-1)),
        "student right, teacher wrong": (right & (teacher.argmax(-1) != labels), -sure),
        "right, unsure": (right, sure),
    }
    queues = {}
    for kind in KINDS:
        member, rank = members[kind]
        queues[kind] = [int(index) for index in np.lexsort((np.arange(len(rank)), rank)) if member[index]]
    taken: dict[int, str] = {}
    shown: dict[str, set[int]] = {kind: set() for kind in KINDS}
    while len(taken) < how_many and any(queues.values()):
        for kind in KINDS:
            queue = queues[kind] = [index for index in queues[kind] if index not in taken]
            if queue and len(taken) < how_many:
                index = next((index for index in queue if int(labels[index]) not in shown[kind]), queue[0])
                taken[index] = kind
                shown[kind].add(int(labels[index]))
    return sorted(taken.items(), key=lambda item: (KINDS.index(item[1]), list(taken).index(item[0])))


def cards(
    picked: Sequence[tuple[int, str]],
    labels: Int[np.ndarray, " t"],
    student: Float[np.ndarray, "t c"],
    teacher: Float[np.ndarray, "t c"],
    found: Evidence | None,
    node_labels: Int[np.ndarray, " n"],
    node_beliefs: Float[np.ndarray, "n c"],
    node_sample: Int[np.ndarray, " n"],
) -> list[dict[str, Any]]:
    """One dict a card, of plain Python values.

    Args:
      picked: `(index of the test input, kind)` pairs from `choose`.
      labels: true classes of the test inputs, -1 where unknown.
      student: the student's beliefs.
      teacher: the teacher's beliefs.
      found: the neighbours from `evidence`, or None where the student has no projection.
      node_labels: labels of the nodes, -1 where hidden.
      node_beliefs: the teacher's beliefs about the nodes.
      node_sample: the nodes' indices in the training source.

    Returns:
      Cards `{sample, kind, label, student [C], teacher [C], neighbours, alone [C] or None, agrees or None}`.
    """
    made = []
    for index, kind in picked:
        card: dict[str, Any] = {
            "sample": index,
            "kind": kind,
            "label": int(labels[index]),
            "student": student[index].tolist(),
            "teacher": teacher[index].tolist(),
            "neighbours": [],
            "alone": None,
            "agrees": None,
        }
        if found is not None:
            card["alone"] = found.belief[index].tolist()
            card["agrees"] = bool(found.belief[index].argmax() == student[index].argmax())
            card["neighbours"] = neighbours(found, index, node_labels, node_beliefs, node_sample)
        made.append(card)
    return made


def neighbours(
    found: Evidence,
    row: int,
    node_labels: Int[np.ndarray, " n"],
    node_beliefs: Float[np.ndarray, "n c"],
    node_sample: Int[np.ndarray, " n"],
) -> list[dict[str, Any]]:
    """The neighbours of one row of the evidence, nearest first, as plain Python values.

    Returns:
      `{node, sample, cosine, weight, edge, class, belief}` each: the edge to its class is `instance_of` where it has a
      label, else `predicted_as`; `belief` is the teacher's in that class.
    """
    made = []
    for rank, node in enumerate(found.node[row]):
        instance = node_labels[node] >= 0
        target = int(node_labels[node] if instance else node_beliefs[node].argmax())
        made.append(
            {
                "node": int(node),
                "sample": int(node_sample[node]),
                "cosine": float(found.cosine[row, rank]),
                "weight": float(found.weight[row, rank]),
                "edge": "instance_of" if instance else "predicted_as",
                "class": target,
                "belief": float(node_beliefs[node, target]),
            }
        )
    return made


def _unit(rows: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    rows = np.asarray(rows, np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def _nearest(scores: Float[np.ndarray, "t n"], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k highest of each row, by (score descending, column ascending), exact where scores tie too."""
    least = np.partition(scores, -k, axis=-1)[:, -k]
    columns = np.empty((len(scores), k), np.int32)
    for row, line in enumerate(scores):
        candidates = np.flatnonzero(line >= least[row])
        columns[row] = candidates[np.argsort(-line[candidates], kind="stable")[:k]]
    return columns, np.take_along_axis(scores, columns, axis=-1)


def _vote(node: np.ndarray, cosine: np.ndarray, node_beliefs: np.ndarray) -> Evidence:
    weight = np.exp((cosine - cosine.max(-1, keepdims=True)) / TEMPERATURE)
    weight = (weight / weight.sum(-1, keepdims=True)).astype(np.float32)
    belief = np.zeros((len(node), node_beliefs.shape[1]), np.float32)
    for rank in range(node.shape[1]):  # a rank at a time: [T, k, C] would be large
        belief += weight[:, rank, None] * node_beliefs[node[:, rank]].astype(np.float32)
    return Evidence(node=node, cosine=cosine.astype(np.float32), weight=weight, belief=belief)
