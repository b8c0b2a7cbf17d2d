"""What can be refused before anything is made: a run of hours should not end at its last student's mistake."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jkd import networks, places, random, sharding
from jkd.build import Apply, Session
from jkd.data import make_split
from jkd.data.inputs import shape_of
from jkd.data.text_inputs import Texts
from jkd.errors import UserError, did_you_mean
from jkd.graph import taxonomy, views
from jkd.methods import METHODS
from jkd.models import Bert
from jkd.objective import OF_ANCHORS
from jkd.terms import Term, make_term

Taps = dict[str, jax.ShapeDtypeStruct]
TRACED = 2  # samples that networks and terms are traced on
# What only a detector's terms ask for, beside taps whose grid is theirs.
OF_OBJECTS = frozenset(["boxes", "student_heads", "teacher_heads", "anchor_mask"])


def check(session: Session) -> None:
    """Refuses what the config alone does not show; trains nothing, writes nothing.

    Raises:
      UserError: a pool, labels or batches that do not work out, a missing file, a tap that a network does not have,
        taps that a term cannot compare, or a teacher that cannot be loaded.
    """
    config, given = session.config, session.loaded_teacher
    split = make_split(session.dataset, config.data, 0)
    if given is None and not len(split.labelled):
        raise UserError("data: no training sample has a label, and the teacher is to be trained. Load one instead.")
    folds, labelled = config.graph.folds, len(split.labelled)
    if config.graph.diagnosis == "folds" and labelled < folds:
        raise UserError(
            f"graph.folds: {folds} folds need as many labels, but a pool has {labelled}. Lower graph.folds, or set "
            "graph.diagnosis to 'holdout' or 'none'."
        )
    if config.graph.diagnosis == "holdout" and not len(split.val):
        asked = (
            f"data.val_split: '{config.data.val_split}'" if config.data.val_split else f"data.val: {config.data.val:g}"
        )
        raise UserError(
            f"{asked} of {len(session.dataset.train)} training samples is none with a label, but graph.diagnosis = "
            "'holdout' needs some. Raise it, or name another split."
        )
    for view in config.graph.views:
        if view in session.task.views and view in views.OF_SAMPLES:
            views.check_view(view, session.dataset.train)
        elif view not in ("teacher", *session.task.views, *config.graph.files):
            known = ", ".join(session.task.views)
            raise UserError(f"graph.views: '{view}' is not made of {session.dataset.kind}. Use {known}.")
    for view, path in config.graph.files.items():
        if not places.path_of(path).is_file():
            raise UserError(f"graph.files.{view}: there is no file {path}.")
    if config.graph.taxonomy:
        taxonomy.load(config.graph.taxonomy, session.dataset.classes)
    for metric in config.report.metrics:
        if metric not in session.task.further:
            raise UserError(f"report.metrics: no such metric '{metric}'.{did_you_mean(metric, session.task.further)}")
    traced: dict[Apply, Taps] = {}
    if given:
        theirs = _taps(session, config.teacher, given.apply, given.variables)
    else:
        theirs = _check_network(session, config.teacher, "teacher", traced)
    for name, student in config.students.items():
        if student.sampling.budget and session.task.found is not None:
            raise UserError(
                f"students.{name}.sampling.budget: {student.sampling.budget} counts nodes, which are objects, but "
                "whole images are trained on. Lower data.pool instead."
            )
        own = _check_network(session, student, f"students.{name}", traced)
        _check_start(session, student, f"students.{name}")
        _check_objects(session, student, f"students.{name}.objective")
        for term in session.objective_of(student, len(config.graph.views), f"students.{name}").terms:
            where = f"students.{name}.objective.{term.key}"
            if METHODS[term.key].tokens and not session.reads_as_teacher(student):
                raise UserError(
                    f"{where}: it compares tokens one by one, but the student's tokenizer is not the teacher's. Leave "
                    f"students.{name}.tokenizer empty, or the term out."
                )
            if term.student_tap:
                _check_term(term, own, theirs, len(session.dataset.classes), where)


def _check_network(session: Session, network: ConfigDict, where: str, traced: dict[Apply, Taps]) -> Taps:
    """Cuts a batch over the devices and traces the network on two samples: shapes, no arithmetic."""
    sharding.check_batch(session.parts, network.train.batch, network.train.accumulate, where)
    try:
        apply = session.apply_of(network)
        _check_words(session, network)
    except UserError as error:
        raise UserError(f"{where}.{error}") from None
    if apply not in traced:
        fed = shape_of(session.inputs_of(network).example(1))
        try:
            variables = jax.eval_shape(session.module(network).init, random.key("init", 0), fed)
        except UserError as error:
            raise UserError(f"{where}.{error}") from None
        traced[apply] = _taps(session, network, apply, variables)
    return traced[apply]


def _check_words(session: Session, network: ConfigDict) -> None:
    """A network from a folder has a row for each word of its tokenizer, and both fill up with the same one."""
    inputs, module = session.inputs_of(network), session.module(network)
    if not isinstance(inputs, Texts) or not hasattr(module, "vocab"):
        return
    words = inputs.tokenizer
    if words.size > module.vocab:
        raise UserError(f"tokenizer: it has {words.size} words, but the network's table has {module.vocab} rows.")
    if words.pad != module.pad:
        raise UserError(
            f"tokenizer: it fills texts up with word {words.pad}, but pad_token_id of the network's config.json is "
            f"{module.pad}. Give the tokenizer that belongs to it."
        )


def _check_start(session: Session, student: ConfigDict, where: str) -> None:
    """Cuts a student out of a teacher of zeros: what does not fit shows before the teacher is trained."""
    if student.init != networks.TEACHER:
        return
    module, whole = session.module(student), session.module(session.config.teacher)

    def zeros(network: ConfigDict, module: Any) -> Any:
        fed = shape_of(session.inputs_of(network).example(1))
        made = jax.eval_shape(module.init, random.key("init", 0), fed)
        return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), made)

    try:
        theirs = zeros(session.config.teacher, whole) if isinstance(whole, Bert) else {}
        start = networks.start_of(student, module, (whole, theirs), session.kept_words(student))
        assert start is not None
        start(lambda: zeros(student, module), None)
    except UserError as error:
        raise UserError(f"{where}: cut out of the teacher: {error}") from None


def _check_objects(session: Session, student: ConfigDict, where: str) -> None:
    """Terms of detectors are for these, and compare heads that mean the same."""
    weighed = [name for name, term in student.objective.items() if term.weight]
    both = [session.task_of(network).described for network in (student, session.config.teacher)]
    for term in (make_term(name, student.objective[name]) for name in weighed if all(both)):
        if term.student_tap and term.needs & OF_ANCHORS and not METHODS[term.key].objects:
            raise UserError(f"{where}.{term.key}: it compares taps of images with logits, which here are of objects.")
    asked = [name for name in weighed if METHODS[name].objects]
    for name in asked:
        if not all(both):
            raise UserError(f"{where}.{name}: it is about objects, but the data are {session.dataset.kind}.")
        if METHODS[name].taps and METHODS[name].tap == "head*":
            ours, theirs = (one["description"].heads for one in both)
            if ours != theirs:
                raise UserError(
                    f"{where}.{name}: raw heads mean other boxes in the student than in the teacher: "
                    f"{_unlike(ours, theirs)}. Give both cfgs the same anchors, masks and scale_x_y."
                )
        logits = METHODS[name].tap == "head*" or name == "confident_hint"
        if logits and any(head.new_coords for one in both for head in one["description"].heads):
            raise UserError(f"{where}.{name}: it takes logits, and a cfg says new_coords=1, whose heads give none.")


def _unlike(ours: Sequence[Any], theirs: Sequence[Any]) -> str:
    if len(ours) != len(theirs):
        return f"{len(ours)} heads and {len(theirs)}"
    one, other = next(pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1])
    return f"{one} and {other}"


def _check_term(term: Term, own: Taps, theirs: Taps, classes: int, where: str) -> None:
    for key, names, taps in (("student_tap", term.student_taps, own), ("teacher_tap", term.teacher_taps, theirs)):
        for tap in names:
            if tap not in taps:
                raise UserError(f"{where}.{key}: the network has no tap '{tap}'.{did_you_mean(tap, taps)}")
    student, teacher = [own[tap] for tap in term.student_taps], [theirs[tap] for tap in term.teacher_taps]
    if term.needs & OF_OBJECTS:
        maps = [each[0].shape[1:-1] for each in (student, teacher)]
        if {"student_feature", "teacher_feature"} <= term.needs and maps[0] != maps[1]:
            raise UserError(
                f"{where}: expected maps of one size, got {maps[0]} from '{term.student_tap}' and {maps[1]} from the "
                f"teacher's '{term.teacher_tap}'."
            )
        return
    if "mask" in term.needs and "mask" not in own:
        raise UserError(f"{where}: it compares tokens, but the student's taps have no mask of them.")
    shapes = [tuple(tuple(tap.shape) for tap in taps) for taps in (student, teacher)]
    if term.regress:
        student[0] = jax.ShapeDtypeStruct((*student[0].shape[:-1], teacher[0].shape[-1]), student[0].dtype)
    rows, samples = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((TRACED, classes), (TRACED,)))
    given: dict[str, Any] = {"student_feature": student[0], "teacher_feature": teacher[0]}
    given |= {"student_features": tuple(student), "teacher_features": tuple(teacher), "mask": own.get("mask")}
    given |= {"student_logits": rows, "teacher_logits": rows, "label_target": rows, "labelled": samples}
    try:
        if make := term.own:
            given["context"] = jax.eval_shape(lambda: make(random.key("init", 0), *shapes))
        asked = {name: given[name] for name in term.needs}
        jax.eval_shape(lambda asked: term.function(**asked, **term.options), asked)
    except (ValueError, TypeError) as error:  # TypeError: what jax has to say of shapes
        raise UserError(f"{where}: {error}") from None


def _taps(session: Session, network: ConfigDict, apply: Apply, variables: Any) -> Taps:
    fed = shape_of(session.inputs_of(network).example(TRACED))
    taps: Taps = jax.eval_shape(apply, variables, fed)[1]
    return taps
