"""What can be refused before anything is made: a run of hours should not end at its last student's mistake."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jkd import objective, sharding
from jkd.build import Apply, Session
from jkd.data import make_split
from jkd.errors import UserError, did_you_mean
from jkd.graph import taxonomy
from jkd.objective import Term

Taps = dict[str, jax.ShapeDtypeStruct]


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
    for view, path in config.graph.files.items():
        if not Path(path).is_file():
            raise UserError(f"graph.files.{view}: there is no file {path}.")
    if config.graph.taxonomy:
        taxonomy.load(config.graph.taxonomy, session.dataset.classes)
    networks = {f"students.{name}": student for name, student in config.students.items()}
    for where, network in (networks | ({} if given else {"teacher": config.teacher})).items():
        sharding.check_batch(session.mesh, network.train.batch, network.train.accumulate, where)
    for where, network in networks.items():
        _check_taps(session, network, where)


def _check_taps(session: Session, student: ConfigDict, where: str) -> None:
    """Traces the terms that compare taps on two images: shapes, no arithmetic."""
    goal = objective.make_objective(student, len(session.config.graph.views))
    terms = [term for term in goal.terms if term.student_tap]
    if not terms:
        return
    given = session.loaded_teacher
    own = _taps(session, session.apply_of(student), _shapes(session, student))
    if given:
        theirs = _taps(session, given.apply, given.variables)
    else:
        teacher = session.config.teacher
        theirs = _taps(session, session.apply_of(teacher), _shapes(session, teacher))
    for term in terms:
        _check_term(term, own, theirs, f"{where}.objective.{term.name}")


def _check_term(term: Term, own: Taps, theirs: Taps, where: str) -> None:
    for key, tap, taps in (("student_tap", term.student_tap, own), ("teacher_tap", term.teacher_tap, theirs)):
        if tap not in taps:
            raise UserError(f"{where}.{key}: the network has no tap '{tap}'.{did_you_mean(tap, taps)}")
    if term.needs != {"student_feature", "teacher_feature"}:
        return
    student, teacher = own[term.student_tap], theirs[term.teacher_tap]
    if term.regress:
        student = jax.ShapeDtypeStruct((*student.shape[:-1], teacher.shape[-1]), student.dtype)
    features = {"student_feature": student, "teacher_feature": teacher}
    try:
        jax.eval_shape(lambda features: term.function(**features, **term.options), features)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def _shapes(session: Session, network: ConfigDict) -> Any:
    images = jnp.zeros((1, *session.dataset.shape))
    return jax.eval_shape(session.module(network).init, jax.random.key(0), images)


def _taps(session: Session, apply: Apply, variables: Any) -> Taps:
    images = jax.ShapeDtypeStruct((2, *session.dataset.shape), jnp.float32)
    taps: Taps = jax.eval_shape(apply, variables, images)[1]
    return taps
