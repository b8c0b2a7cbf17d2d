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
from jkd.graph import store, taxonomy, views
from jkd.graph.build import build_graph
from jkd.graph.knowledge_graph import KnowledgeGraph
from jkd.graph.material import Folds, HoldOut, assign_folds
from jkd.parts.part import FORMAT, Place, finished, hold
from jkd.parts.sound import refuse_unsound, softmax
from jkd.parts.teacher import train_teacher
from jkd.progress import RunProgress


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
    }
    if settings.diagnosis == "folds":  # fold teachers are trained by the teacher's recipe
        made_of["recipe"] = configs.as_dict(session.config.teacher)
    names = {"recipe.": "teacher.", "files.": "graph.files.", "teacher": changes.TEACHER}
    inputs = Inputs.of(made_of, place.allowed, names)
    progress.start(f"replicate {place.replicate} graph")

    def found() -> KnowledgeGraph | None:
        if finished(folder, inputs) is None:
            return None
        graph = store.load(folder)
        progress.finish("already there")
        return graph

    if (graph := found()) is not None:
        return graph
    with hold(folder, f"the graph of replicate {place.replicate}", progress, wait=True):
        if (graph := found()) is not None:  # made by another process meanwhile
            return graph
        started = time.monotonic()
        logits, features = _outputs(session, teacher, split.pool)
        graph = build_graph(
            sample=split.pool,
            features=features,
            beliefs=softmax(logits),
            labels=split.labels,
            classes=session.dataset.classes,
            views=_views(session, split),
            settings=made_of["graph"],
            provenance={key: made_of[key] for key in ("data", "split", "teacher", "files")},
            taxonomy=taxonomy.load(settings.taxonomy, session.dataset.classes) if settings.taxonomy else None,
            held_back=_held(session, split, teacher, place, progress),
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


def _outputs(session: Session, teacher: Teacher, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits and embeddings of training samples, worth learning from."""
    source = session.dataset.train
    logits, features = session.predictor(teacher.apply, session.config.teacher)(teacher.variables, source, index)
    loaded = session.loaded_teacher is not None
    refuse_unsound(logits, features, lambda row: source.id(int(index[row])), source.classes, loaded)
    return logits, features


def _files(settings: ConfigDict) -> list[str]:
    return [
        *sorted(settings.files.values()),
        *([str(taxonomy.located(settings.taxonomy))] if settings.taxonomy else []),
    ]


def _views(session: Session, split: Split) -> dict[str, Any]:
    """Features (or edges) of the pool for every view but the teacher's, which the graph has already."""
    made: dict[str, Any] = {}
    for view in session.config.graph.views:
        if view in views.OF_SAMPLES:
            made[view] = views.view_of(view, session.dataset.train, split.pool, session.config.graph.k)
        elif view != "teacher":
            ids = [session.dataset.train.id(int(index)) for index in split.pool]
            path, k = session.config.graph.files[view], session.config.graph.k
            made[view] = views.file_view(path, ids, k, known=_all_ids(session))
    return made


def _all_ids(session: Session) -> frozenset[str]:
    """Every id of the training source: an edge list that names another is a mistake."""
    source = session.dataset.train
    return frozenset(source.id(index) for index in range(len(source)))


def _held(
    session: Session, split: Split, teacher: Teacher, place: Place, progress: RunProgress
) -> Folds | HoldOut | None:
    """Labels held back for the diagnosis: by folds over the training labels, or the validation split."""
    settings, source = session.config.graph, session.dataset.train
    if settings.diagnosis == "none":
        return None
    if settings.diagnosis == "holdout":
        logits, feature = _outputs(session, teacher, split.val)
        of_samples = [view for view in settings.views if view in views.OF_SAMPLES]
        outside: dict[str, Any] = {
            view: views.view_of(view, source, split.val, settings.k, split.pool) for view in of_samples
        }
        ids = [source.id(int(index)) for index in split.val]
        inside = [source.id(int(index)) for index in split.pool]
        for view in settings.views:
            if view in settings.files:
                path = settings.files[view]
                outside[view] = views.file_view(path, ids, settings.k, targets=inside, known=_all_ids(session))
        return HoldOut(labels=split.val_labels, beliefs=softmax(logits), features=feature, views=outside)
    fold_of = assign_folds(split.labels, settings.folds, session.config.teacher.seed, place.replicate)
    apply = session.apply_of(session.config.teacher)
    beliefs: list[np.ndarray] = []
    features: list[np.ndarray] = []
    for fold in range(settings.folds):
        kept = split.labelled[fold_of[split.labelled] != fold]
        _, variables = train_teacher(session, split, kept, place.replicate, progress=progress.step)
        logits, feature = session.predictor(apply, session.config.teacher)(variables, source, split.pool)
        beliefs.append(softmax(logits))
        features.append(feature)
    return Folds(fold_of=fold_of, beliefs=beliefs, features=features)


def _note(graph: KnowledgeGraph, seconds: float) -> str:
    if graph.diagnosis is None:
        return f"{len(graph)} nodes, not diagnosed, {seconds:.1f} s"
    best, none = graph.diagnosis.best, graph.diagnosis.no_edges
    return (
        f"{len(graph)} nodes; NLL of held-back labels {none.nll_fitted:.3f} without edges, {best.nll_fitted:.3f} with "
        f"{best.view} edges; gate {'open' if graph.diagnosis.gate_open else 'closed'}, {seconds:.1f} s"
    )
