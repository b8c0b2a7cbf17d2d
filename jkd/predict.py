"""What a finished network says of new inputs, and why: the training samples that it puts each of them next to."""

from collections.abc import Iterator
from pathlib import Path as LocalPath
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jkd import interpret, manifest, parts, places, run
from jkd.build import Apply, Session
from jkd.data import Source
from jkd.data.unlabelled import open_unlabelled
from jkd.graph.knowledge_graph import KnowledgeGraph
from jkd.parts import Place
from jkd.places import Path
from jkd.train.state import PyTree


def predict(
    workdir: str | LocalPath | Path, student: str, inputs: str | Path, replicate: int = 0, neighbours: int = 5
) -> Iterator[dict[str, Any]]:
    """Answers to new inputs, JSON-ready, in the order of their ids; then what could not be read.

    `{"input": id, "answers": [...]}`; of an image or a text one answer, of an image with objects one for each box that
    scores over 0.25. An answer has `class`, `score`, and `beliefs` of all classes or the `box` (x1, y1, x2, y2 in
    pixels of the image). Where the student was trained with the projection term it also has `neighbours`: the nodes of
    the graph that its projection is next to, each with the `id` of its sample, its `class`, how the class is known
    (`edge`), its `weight` in their vote, and `alone`, the class which that vote gives. `{"input": id, "error": why}` of
    what could not be read.

    Args:
      workdir: folder of a run.
      student: `NAME/SEED`, or `teacher`.
      inputs: a file or folder, see `jkd.data.unlabelled`.
      replicate: of which replicate.
      neighbours: most of an answer; 0 = none.

    Raises:
      UserError: no such part, nothing to read, or damaged files.
    """
    workdir = places.path_of(workdir)
    config, saved = manifest.read(workdir)
    place = Place(workdir, replicate)
    part = run.part_of(config, place, student)
    session = run.open_here(config, saved)
    manifest.check_data(workdir, saved, session.dataset)
    source = open_unlabelled(inputs, session.dataset, config.data)
    network, apply, variables = run.network_of(session, part, student)
    index = np.arange(len(source))
    outputs = session.predictor(apply, network)(variables, source, index)
    sample, answers = session.task.told(outputs, source, index)
    classes = session.dataset.classes
    for answer in answers:
        answer["class"] = classes[answer["class"]]
        if "beliefs" in answer:
            answer["beliefs"] = dict(zip(classes, answer["beliefs"], strict=True))
    if neighbours and answers and (part / parts.PROJECTION).exists():
        features = _features(session, network, apply, variables, source, outputs)
        for answer, why in zip(answers, _evidence(session, place, part, features, neighbours), strict=True):
            answer |= why
    for at in index:
        yield {"input": source.id(int(at)), "answers": [answers[row] for row in np.flatnonzero(sample == at)]}
    for name, reason in source.skipped:
        yield {"input": name, "error": reason}


def _features(
    session: Session,
    network: ConfigDict,
    apply: Apply,
    variables: PyTree,
    source: Source,
    outputs: dict[str, np.ndarray],
) -> np.ndarray:
    """The student's feature of each answer, `[M, D]`."""
    if session.task.found is None:
        return outputs["embedding"]
    index = np.arange(len(source))
    nodes = session.task.found(outputs)
    return parts.described(session, apply, network, variables, source, index, nodes)[1]


def _evidence(session: Session, place: Place, part: Path, features: np.ndarray, most: int) -> Iterator[dict[str, Any]]:
    """The nearest nodes of each answer."""
    graph: KnowledgeGraph = parts.read_graph(place.graph)
    nodes, projected = parts.projected_by(part, features)
    found = interpret.evidence(projected, nodes, graph.beliefs, most)
    train, classes = session.dataset.train, session.dataset.classes
    for row in range(len(features)):
        near = interpret.neighbours(found, row, graph.labels, graph.beliefs, graph.sample)
        told = [
            {
                "id": train.id(each["sample"]),
                "class": classes[each["class"]],
                **{key: each[key] for key in ("edge", "weight", "cosine")},
                **({} if graph.boxes is None else {"box": [float(side) for side in graph.boxes[each["node"]]]}),
            }
            for each in near
        ]
        yield {"neighbours": told, "alone": classes[int(found.belief[row].argmax())]}
