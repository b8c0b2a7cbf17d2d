"""The teacher of a replicate: loaded, found, or trained on the labelled part of the pool."""

import time
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jkd import build, compress, digest, files, networks, objective
from jkd.build import Session, Teacher
from jkd.changes import Inputs
from jkd.data import Split
from jkd.parts.part import (
    NAMES,
    Place,
    Training,
    batches_of,
    changes_of,
    check_steps,
    finished,
    hold,
    network_inputs,
    note_of,
    read_variables,
    receipt_of,
    stored,
    test_metrics,
    test_outputs,
    validation_of,
)
from jkd.parts.sound import refuse_unsound
from jkd.progress import RunProgress
from jkd.train.given import Knowledge
from jkd.train.loop import Fit, fit
from jkd.train.record import final_chain
from jkd.train.state import PyTree
from jkd.train.step import Program


def make_teacher(session: Session, split: Split, place: Place, progress: RunProgress) -> Teacher:
    """Loads, finds or trains the teacher of a replicate, and evaluates it on the test split."""
    network, folder = session.config.teacher, place.teacher
    given, inputs = session.loaded_teacher, teacher_inputs(session, split, place)
    made_of = inputs.made_of or {}
    progress.start(f"replicate {place.replicate} teacher")

    def there() -> Teacher | None:
        teacher = found_teacher(session, split, place)
        if teacher:
            progress.finish("already there")
        return teacher

    if teacher := there():
        return teacher
    with hold(folder, f"the teacher of replicate {place.replicate}", progress, wait=True):
        if teacher := there():  # made by another process meanwhile
            return teacher
        started = time.monotonic()
        if given:
            teacher, program = given, None
        else:
            where = dict(folder=folder, inputs=inputs, progress=progress.step)
            where["evaluate"] = validation_of(session, split, session.apply_of(network), network)
            program, variables = train_teacher(session, split, split.labelled, place.replicate, **where)
            teacher = Teacher(session.apply_of(network), variables, digest.of_tree(variables))
            compress.save_variables(folder / "variables.safetensors", variables)
        found = stored(session, test_outputs(session, teacher.apply, network, teacher.variables))
        if "logits" in found:
            logits, test = found["logits"], session.dataset.test
            refuse_unsound(logits, None, test.id, test.classes, loaded=given is not None)
        files.write_arrays(folder / "predictions.safetensors", found)
        result = {
            "inputs": inputs,
            "made_of": made_of,
            "chain": final_chain(folder),
            "params": teacher.digest,
            "predictions": digest.of_tree(found),
            "metrics": test_metrics(session, found, None),
            "labels": {"train": 0 if given else len(split.labelled), "choose": 0},
            "choices": {},
            "receipt": receipt_of(session, teacher.apply, network, teacher.variables, place),
            "steps": program.steps if program else 0,
            "seconds": time.monotonic() - started,
            **changes_of(folder, inputs),
        }
        files.write_signed(folder / "result.json", result)
    progress.finish(note_of(session, result))
    return teacher


def found_teacher(session: Session, split: Split, place: Place) -> Teacher | None:
    """The finished teacher of a replicate, or None."""
    result = finished(place.teacher, teacher_inputs(session, split, place))
    if result is None:
        return None
    apply = session.apply_of(session.config.teacher)
    return session.loaded_teacher or Teacher(apply, read_variables(place.teacher, result), result["params"])


def teacher_inputs(session: Session, split: Split, place: Place) -> Inputs:
    """What the teacher of a replicate is made from."""
    network, given = session.config.teacher, session.loaded_teacher
    made_of = network_inputs(session, network, split, network.seed, place.replicate)
    made_of["loaded"] = given.digest if given else ""
    return Inputs.of(made_of, place.allowed, NAMES | {"network.": "teacher."})


def train_teacher(
    session: Session, split: Split, positions: np.ndarray, replicate: int, **where: Any
) -> tuple[Program, PyTree]:
    """Trains the teacher's network on the labelled pool samples at `positions`; `where` goes to `Fit`."""
    training = teacher_training(session, split, positions, replicate)
    program = training.compiled.program
    if where.get("folder"):
        check_steps(where["folder"], program.steps, "teacher")
    state = fit(replace(training.setup, init=training.init, **where), training.init())
    return program, jax.tree.map(np.asarray, state.variables)


def teacher_training(session: Session, split: Split, positions: np.ndarray, replicate: int) -> Training:
    """How the teacher is trained on the labelled pool samples at `positions`."""
    network = session.config.teacher
    goal = objective.supervised(session.task.supervised, session.task_of(network).described)
    compiled = session.program(network, goal, None, len(positions), "teacher")
    setup = Fit(
        step=compiled.step,
        batches=batches_of(session, split, positions, compiled.step, network, network.seed, replicate),
        teacher={},
        knowledge=Knowledge(),
        run=build.run_of(network.seed, replicate),
    )
    start = networks.start_of(network, compiled.program.module, None)
    return Training(setup, compiled, start)
