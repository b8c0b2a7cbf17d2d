"""The graph of a replicate: what the teacher says of the pool, joined with the other views, diagnosed, stored."""

import time
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jkd import changes, digest, files, processes
from jkd import config as configs
from jkd.build import Session, Teacher
from jkd.changes import Inputs
from jkd.data import Split
from jkd.errors import Damaged, UserError
from jkd.graph import store, taxonomy, views
from jkd.graph.build import build_graph
from jkd.graph.knowledge_graph import KnowledgeGraph
from jkd.graph.material import Folds, HoldOut, assign_folds
from jkd.parts.part import FORMAT, Place, described, environment_of, finished, hold
from jkd.parts.sound import refuse_unsound, softmax
from jkd.parts.teacher import train_teacher
from jkd.places import Path
from jkd.progress import RunProgress
from jkd.tasks import Nodes


def make_graph(session: Session, split: Split, teacher: Teacher, place: Place, progress: RunProgress) -> KnowledgeGraph:
    """Loads the graph made from the same teacher, data and settings, or builds it."""
    settings, folder = session.config.graph, place.graph
    made_of: dict[str, Any] = {
        "format": FORMAT,
        "graph": configs.as_dict(settings),
        "files": {path: digest.of_file(path) for path in _files(settings)},
        "data": [session.dataset.fingerprint, *session.inputs_of(session.config.teacher).made_of],
        "split": split.digest,
        "teacher": teacher.digest,
        changes.ENVIRONMENT: environment_of(session),
    }
    if settings.diagnosis == "folds":  # fold teachers are trained by the teacher's recipe
        made_of["recipe"] = configs.as_dict(session.config.teacher)
    names = {"recipe.": "teacher.", "files.": "graph.files.", "teacher": changes.TEACHER}
    inputs = Inputs.of(made_of, place.allowed, names)
    progress.start(f"replicate {place.replicate} graph")

    def found() -> KnowledgeGraph | None:
        if finished(folder, inputs) is None:
            return None
        graph = read_graph(folder)
        progress.finish("already there")
        return graph

    if (graph := found()) is not None:
        return graph
    with hold(folder, f"the graph of replicate {place.replicate}", progress, wait=True):
        if (graph := found()) is not None:  # made by another process meanwhile
            return graph
        started = time.monotonic()
        nodes = _nodes(session, teacher, split.pool, split.labels)
        logits, features = _outputs(session, teacher, split.pool, nodes)
        beliefs = softmax(logits)
        graph = build_graph(
            sample=nodes.sample,
            features=features,
            beliefs=beliefs,
            labels=nodes.labels,
            classes=session.dataset.classes,
            views=_views(session, nodes, beliefs),
            settings=made_of["graph"],
            provenance={key: made_of[key] for key in ("data", "split", "teacher", "files")},
            taxonomy=taxonomy.load(settings.taxonomy, session.dataset.classes) if settings.taxonomy else None,
            held_back=_held(session, split, teacher, place, progress, nodes, beliefs),
            boxes=nodes.boxes,
            relations=session.task.relations(nodes, beliefs, len(session.dataset.classes), settings.k),
        )
        processes.agree(graph.digest, f"the graph of replicate {place.replicate}")
        if processes.first():
            store.save(graph, folder)
        result = {
            "inputs": inputs,
            "made_of": made_of,
            "sha256": graph.digest,
            "seconds": time.monotonic() - started,
        }
        files.write_signed(folder / "result.json", result)
    progress.finish(_note(graph, time.monotonic() - started))
    return graph


def read_graph(folder: Path) -> KnowledgeGraph:
    """The graph of a replicate: of a finished one, that which its result names.

    Raises:
      Damaged: when it is not what was written, or another graph.
      UserError: when it is not there.
    """
    graph, path = store.load(folder), folder / "result.json"
    result = files.read_signed(path) if path.exists() else {"sha256": graph.digest}
    named = result.get("sha256")
    if named != graph.digest:
        raise Damaged(
            f"{folder} holds another graph than its result.json names: {graph.digest} instead of {named}. Delete the "
            "folder to make it again."
        )
    return graph


def _nodes(session: Session, teacher: Teacher, index: np.ndarray, labels: np.ndarray) -> Nodes:
    """The nodes of some training samples, for some of which it may take the teacher to find any."""
    source, predictor = session.dataset.train, session.predictor(teacher.apply, session.config.teacher)
    nodes = session.task.nodes_of(source, index, labels, lambda some: predictor(teacher.variables, source, some))
    if not len(nodes.sample):
        raise UserError("graph: none of the samples holds a node. Are any of them annotated?")
    return nodes


def _outputs(session: Session, teacher: Teacher, index: np.ndarray, nodes: Nodes) -> tuple[np.ndarray, np.ndarray]:
    """Logits and embeddings of nodes of training samples, worth learning from."""
    network, source = session.config.teacher, session.dataset.train
    logits, features = described(session, teacher.apply, network, teacher.variables, source, index, nodes)
    ids, loaded = session.task.ids(source, nodes), session.loaded_teacher is not None
    refuse_unsound(logits, features, ids.__getitem__, session.dataset.classes, loaded)
    return logits, features


def _files(settings: ConfigDict) -> list[str]:
    return [
        *sorted(settings.files.values()),
        *([str(taxonomy.located(settings.taxonomy))] if settings.taxonomy else []),
    ]


def _views(
    session: Session, nodes: Nodes, beliefs: np.ndarray, inside: tuple[Nodes, np.ndarray] | None = None
) -> dict[str, Any]:
    """Features or edges of nodes for every view but the teacher's, which the graph has already.

    Edges of nodes outside the graph lead to those `inside`, given with their beliefs.
    """
    task, source, settings = session.task, session.dataset.train, session.config.graph
    made: dict[str, Any] = {}
    for view in settings.views:
        if view in task.views:
            made[view] = task.view(view, source, nodes, beliefs, settings.k, inside)
        elif view in settings.files:
            targets = task.ids(source, inside[0]) if inside else None
            ids, known = task.ids(source, nodes), _all_ids(session)
            made[view] = views.file_view(settings.files[view], ids, settings.k, targets=targets, known=known)
        elif view != "teacher":
            raise UserError(f"graph.views: '{view}' is not made of {source.kind}. Use {', '.join(task.views)}.")
    return made


def _all_ids(session: Session) -> frozenset[str] | None:
    """Every id of the training source: an edge list that names another is a mistake. None where nodes are objects."""
    if session.task.found is not None:
        return None
    source = session.dataset.train
    return frozenset(source.id(index) for index in range(len(source)))


def _held(
    session: Session,
    split: Split,
    teacher: Teacher,
    place: Place,
    progress: RunProgress,
    nodes: Nodes,
    beliefs: np.ndarray,
) -> Folds | HoldOut | None:
    """Labels held back for the diagnosis: by folds over the training labels, or the validation split."""
    settings = session.config.graph
    if settings.diagnosis == "none":
        return None
    if settings.diagnosis == "holdout":
        outside = _nodes(session, teacher, split.val, split.val_labels)
        logits, feature = _outputs(session, teacher, split.val, outside)
        theirs = softmax(logits)
        views_out = _views(session, outside, theirs, (nodes, beliefs))
        return HoldOut(labels=outside.labels, beliefs=theirs, features=feature, views=views_out)
    source = session.dataset.train
    fold_of = assign_folds(split.labels, settings.folds, session.config.teacher.seed, place.replicate)
    apply = session.apply_of(session.config.teacher)
    each: list[np.ndarray] = []
    features: list[np.ndarray] = []
    seen: list[dict[str, Any]] = []  # views as each fold teacher sees them
    # A teacher that has seen one object of a sample has seen them all: folds are of samples.
    of_nodes = fold_of[np.searchsorted(split.pool, nodes.sample)]
    for fold in range(settings.folds):
        progress.phase(f"fold {fold + 1} of {settings.folds}")
        kept = split.labelled[fold_of[split.labelled] != fold]
        _, variables = train_teacher(session, split, kept, place.replicate, progress=progress.step)
        logits, feature = described(session, apply, session.config.teacher, variables, source, split.pool, nodes)
        each.append(softmax(logits))
        features.append(feature)
        hidden = nodes._replace(labels=np.where(of_nodes == fold, -1, nodes.labels))
        believed = [view for view in settings.views if view in session.task.believed_views]
        seen.append({view: session.task.view(view, source, hidden, each[-1], settings.k, None) for view in believed})
    return Folds(fold_of=of_nodes, beliefs=each, features=features, views=seen)


def _note(graph: KnowledgeGraph, seconds: float) -> str:
    if graph.diagnosis is None:
        return f"{len(graph)} nodes, not diagnosed, {seconds:.1f} s"
    best, none = graph.diagnosis.best, graph.diagnosis.no_edges
    return (
        f"{len(graph)} nodes; NLL of held-back labels {none.nll_fitted:.3f} without edges, {best.nll_fitted:.3f} with "
        f"{best.view} edges; gate {'open' if graph.diagnosis.gate_open else 'closed'}, {seconds:.1f} s"
    )
