"""Prediction cards: gathers what one run of one student predicts and why, and lays it out as HTML."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from jkd import config as configs
from jkd import interpret
from jkd.evaluate import log_softmax
from jkd.evaluate.detection import SHOWN
from jkd.graph.knowledge_graph import KnowledgeGraph
from jkd.report import detections, markup, text
from jkd.report.collect import Part, Results
from jkd.report.tables import best_student
from jkd.tasks import Task, make_task

CLASSES_SHOWN = 5


@dataclass(frozen=True)
class Cards:
    """The cards of one run.

    Attributes:
      student: whose predictions they explain; empty where no student is finished.
      run: its replicate and seed.
      cards: from `interpret.cards`, each with the `id` of its input, or from `detections.cards`.
      surrogate: from `interpret.surrogate`; None without a projection.
      doubt: why there are no neighbours; empty where there are.
    """

    student: str
    run: tuple[int, int]
    cards: list[dict[str, Any]]
    surrogate: dict[str, Any] | None
    doubt: str

    def as_json(self) -> dict[str, Any]:
        """What report/cards.json holds."""
        run = f"{self.run[0]}/{self.run[1]}"
        return {"student": self.student, "run": run, "surrogate": self.surrogate, "cards": self.cards}


def gather(results: Results, summary: Mapping[str, Any], dataset: Any, graph: KnowledgeGraph | None) -> Cards:
    """Picks student, run and inputs by fixed rules and looks up their nearest graph nodes.

    The student is `report.cards_student`; with `auto` the first of the best student, `knowledge_graph` and
    the others that has a projection. The run is of the first replicate, whose graph is at hand.
    """
    settings = results.config["report"]
    wanted = settings["cards_student"]
    names = [best_student(summary), "knowledge_graph", *results.students] if wanted == configs.AUTO else [wanted]
    runs = [(name, run) for name in dict.fromkeys(names) if name in results.students and (run := _run(results, name))]
    if not runs or 0 not in results.teachers:
        return Cards("", (0, 0), [], None, "No student of the first replicate is finished, so there are no cards.")
    task = make_task(results.config["task"])
    kind = "projection" if task.found is None else "found_projection"
    projected = (pair for pair in runs if graph and kind in pair[1][1].predictions())
    name, (key, part) = next(projected, runs[0])
    arrays, theirs = part.predictions(), results.teachers[0].predictions()
    doubt, found, measured, explain = "", None, None, None
    if graph is None:
        doubt = "The knowledge graph of the first replicate is missing, so the cards show no neighbours."
    elif kind not in arrays or "nodes" not in arrays:
        doubt = "No student was trained with the projection term (or found nothing), so the cards show no neighbours."
    elif len(arrays["nodes"]) != len(graph):
        doubt = f"{name} was trained on another graph than the one that is there, so its neighbours are left out."
    else:
        projections = (arrays[kind], arrays["nodes"], graph.beliefs)
        found = interpret.evidence(*projections, settings["neighbours"])
        answers = _answers(task, arrays, len(graph.classes))
        measured = interpret.surrogate(found, *projections, answers)
        if task.found is not None:
            explain = partial(_explanation, found, answers.argmax(-1), graph, dataset)
    if task.found is not None:
        return Cards(name, key, detections.cards(dataset, arrays, theirs, settings["cards"], explain), measured, doubt)
    student, teacher = (_softmax(logits) for logits in (arrays["logits"], theirs["logits"]))
    labels = dataset.test.labels[: len(student)]
    picked = interpret.choose(labels, student, teacher, found.belief if found else None, settings["cards"])
    empty = np.zeros(0, np.int32)
    nodes = (graph.labels, graph.beliefs, graph.sample) if graph is not None else (empty, student[:0], empty)
    cards = interpret.cards(picked, labels, student, teacher, found, *nodes)
    for card in cards:
        card["id"] = dataset.test.id(card["sample"])
        for neighbour in card["neighbours"]:
            neighbour["id"] = dataset.train.id(neighbour["sample"])
    return Cards(name, key, cards, measured, doubt)


def _answers(task: Task, arrays: dict[str, np.ndarray], classes: int) -> np.ndarray:
    """What the student says of each thing that is explained: its logits, or 1 for the class that it found, `[., C]`."""
    if task.found is None:
        return arrays["logits"]
    found = task.found(arrays).classes
    assert found is not None
    return np.eye(classes, dtype=np.float32)[found]


def _explanation(
    found: interpret.Evidence, answers: np.ndarray, graph: KnowledgeGraph, dataset: Any, row: int
) -> dict[str, Any]:
    """What a card says of the n-th box that was found: its neighbours, the class they alone give, whether it is so."""
    assert graph.boxes is not None
    alone = int(found.belief[row].argmax())
    near = interpret.neighbours(found, row, graph.labels, graph.beliefs, graph.sample)
    for each in near:
        each |= {"id": dataset.train.id(each["sample"]), "box": [round(float(s), 2) for s in graph.boxes[each["node"]]]}
    return {"neighbours": near, "alone": alone, "agrees": alone == int(answers[row])}


def section(found: Cards, dataset: Any, classes: list[str]) -> str:
    """The cards as HTML, with how far to trust them before them."""
    if not found.cards:
        return f"<p>{text.escape(found.doubt)}</p>" if found.doubt else ""
    replicate, seed = found.run
    if "truth" in found.cards[0]:
        return _of_objects(found, dataset, classes)
    intro = (
        "<p>Test inputs picked by a fixed rule, in turn from the right and confident, the wrong, those "
        "where the neighbours disagree, those where only the student is right, and the right but unsure. "
        f"Predictions are those of <b>{text.escape(found.student)}</b>, replicate {replicate}, seed "
        f"{seed}; figures are percent.</p>"
    )
    intro += _trust(found, "input", "test inputs")
    alts = [f"test input {card['id']}" for card in found.cards]
    shown = markup.samples(dataset.test, [card["sample"] for card in found.cards], alts)
    cards = [_card(card, sample, dataset, classes) for card, sample in zip(found.cards, shown, strict=True)]
    return f'{intro}<div class="cards">{"".join(cards)}</div>'


def _trust(found: Cards, one: str, all_of_them: str) -> str:
    """How far neighbours foretell the student, or why there are none."""
    if not found.surrogate:
        return f'<p class="warn">{text.escape(found.doubt)}</p>'
    measured = found.surrogate
    return (
        f"<p>Neighbours are the {text.plural(measured['k'], 'graph node')} nearest to the {one} in the "
        "projected space; alone they vote with the teacher’s beliefs about them, weighted by "
        f"nearness. This vote is not how the student decides: over all {measured['n']:,} {all_of_them} "
        f"it gives the student’s answer for <b>{100 * measured['agreement']:.1f} %</b> (as many nodes "
        f"drawn at random: {100 * measured['baseline']:.1f} %).</p>"
    )


def _of_objects(found: Cards, dataset: Any, classes: list[str]) -> str:
    intro = (
        "<p>Test images picked by a fixed rule, in turn of those where the student finds most of what there is, where "
        "it finds least, and where it has least in common with its teacher. Boxes with a score of "
        f"{100 * SHOWN:.0f} % at least; the student is <b>{text.escape(found.student)}</b>, replicate "
        f"{found.run[0]}, seed {found.run[1]}.</p>"
    )
    intro += _trust(found, "box", "boxes")
    cards = "".join(detections.card(card, dataset, classes) for card in found.cards)
    return f'{intro}<div class="cards wide">{cards}</div>'


def _card(card: Mapping[str, Any], sample: str, dataset: Any, classes: list[str]) -> str:
    answer, label = int(np.argmax(card["student"])), card["label"]
    truth = classes[label] if label >= 0 else "unknown"
    verb = "is right" if answer == label else "is wrong" if label >= 0 else "answers"
    header = (
        f"<header>{sample}<div>"
        f'<h3>{text.escape(classes[answer])} <span class="kind">{text.escape(card["kind"])}</span></h3>'
        f"<p>The student {verb}; the label is <b>{text.escape(truth)}</b>.<br>{text.escape(card['id'])}</p>"
        f"</div></header>"
    )
    evidence = _beliefs(card, classes) + _neighbours(card, dataset, classes)
    return f'<article class="card">{header}{evidence}</article>'


def _beliefs(card: Mapping[str, Any], classes: list[str]) -> str:
    sides = [("student", card["student"]), ("teacher", card["teacher"]), ("graph", card["alone"])]
    sides = [(kind, beliefs) for kind, beliefs in sides if beliefs is not None]
    first = [int(np.argmax(beliefs)) for _, beliefs in sides] + ([card["label"]] if card["label"] >= 0 else [])
    rest = np.argsort([-value for value in card["student"]], kind="stable").tolist()
    shown = list(dict.fromkeys(first + rest))[:CLASSES_SHOWN]
    shown.sort(key=lambda index: -card["student"][index])
    head = "".join(f"<th>{'neighbours' if kind == 'graph' else kind}</th>" for kind, _ in sides)
    rows = []
    for index in shown:
        bars = "".join(f"<td>{markup.bar(beliefs[index], kind)}</td>" for kind, beliefs in sides)
        name = text.escape(classes[index])
        rows.append(f"<tr><th>{name + ' ✓' if index == card['label'] else name}</th>{bars}</tr>")
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _neighbours(card: Mapping[str, Any], dataset: Any, classes: list[str]) -> str:
    if not card["neighbours"]:
        return ""
    alts = [f"training sample {neighbour['id']}" for neighbour in card["neighbours"]]
    shown = markup.samples(dataset.train, [neighbour["sample"] for neighbour in card["neighbours"]], alts)
    items = markup.neighbours(card["neighbours"], shown, classes)
    says = text.escape(classes[int(np.argmax(card["alone"]))])
    sure = f"{100 * max(card['alone']):.0f} %"
    if card["agrees"]:
        verdict = f'<p class="verdict">The neighbours alone say <b>{says}</b> ({sure}), as the student does.</p>'
    else:
        verdict = (
            f'<p class="verdict warn">The neighbours alone say <b>{says}</b> ({sure}): they do not explain '
            "this "
            f"prediction.</p>"
        )
    return items + verdict


def _run(results: Results, name: str) -> tuple[tuple[int, int], Part] | None:
    return next(((key, part) for key, part in sorted(results.students[name].items()) if key[0] == 0), None)


def _softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(log_softmax(logits))
