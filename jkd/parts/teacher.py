"""The teacher of a replicate: loaded, found, or trained on the labelled part of the pool."""

import time
from typing import Any

import jax
import numpy as np

from jkd import build, compress, digest, files, objective
from jkd.build import Session, Teacher
from jkd.data import Split
from jkd.parts.part import (
    Place,
    batches_of,
    finished,
    hold,
    network_inputs,
    note_of,
    read_variables,
    receipt_of,
    test_outputs,
    validation_of,
)
from jkd.parts.sound import refuse_unsound
from jkd.progress import RunProgress
from jkd.train.loop import Fit, fit
from jkd.train.state import PyTree
from jkd.train.step import Knowledge, Program


def make_teacher(session: Session, split: Split, place: Place, progress: RunProgress) -> Teacher:
    """Loads, finds or trains the teacher of a replicate, and evaluates it on the test split."""
    network, folder = session.config.teacher, place.teacher
    given = session.loaded_teacher
    made_of = network_inputs(session, network, split, network.seed, place.replicate)
    made_of["loaded"] = given.digest if given else ""
    inputs = digest.of_json(made_of)
    progress.start(f"replicate {place.replicate} teacher")

    def found() -> Teacher | None:
        result = finished(folder, made_of)
        if result is None:
            return None
        progress.finish("already there")
        return given or Teacher(session.apply_of(network), read_variables(folder, result), result["params"])

    if teacher := found():
        return teacher
    with hold(folder, f"the teacher of replicate {place.replicate}", progress, wait=True):
        if teacher := found():  # made by another process meanwhile
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
        outputs = test_outputs(session, teacher.apply, teacher.variables)
        refuse_unsound(outputs, None, session.dataset.test.id, session.dataset.classes, loaded=given is not None)
        files.write_arrays(folder / "predictions.safetensors", {"logits": outputs})
        result = {
            "inputs": inputs,
            "made_of": made_of,
            "params": teacher.digest,
            "metrics": session.task.metrics(outputs, session.dataset.test.labels, None),
            "labels": {"train": 0 if given else len(split.labelled), "choose": 0},
            "choices": {},
            "receipt": receipt_of(session, teacher.apply, teacher.variables, place),
            "steps": program.steps if program else 0,
            "seconds": time.monotonic() - started,
        }
        files.write_json(folder / "result.json", result)
    progress.finish(note_of(session, result))
    return teacher


def train_teacher(
    session: Session, split: Split, positions: np.ndarray, replicate: int, **where: Any
) -> tuple[Program, PyTree]:
    """Trains the teacher's network on the labelled pool samples at `positions`; `where` goes to `Fit`."""
    network = session.config.teacher
    goal = objective.supervised()
    compiled = session.program(network, goal, None, len(positions), "teacher")
    program = compiled.program
    run = build.run_of(network.seed, replicate)
    setup = Fit(
        program=program,
        step=compiled.step,
        batches=batches_of(session, split, positions, program, network, network.seed, replicate),
        teacher={},
        knowledge=Knowledge(),
        run=run,
        **where,
    )
    state = fit(setup, compiled.init(run, {}))
    return program, jax.tree.map(np.asarray, state.variables)
