"""One student with one seed: its share of the graph, its training, its evaluation."""

import time
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jkd import build, changes, compress, digest, files, networks
from jkd.build import Compiled, Session, Teacher
from jkd.changes import Inputs
from jkd.data import Split
from jkd.graph.knowledge_graph import KnowledgeGraph
from jkd.graph.projection import project
from jkd.parts.part import (
    NAMES,
    Place,
    Result,
    Training,
    batches_of,
    changes_of,
    check_steps,
    described,
    finished,
    hold,
    network_inputs,
    note_of,
    receipt_of,
    stored,
    test_metrics,
    test_outputs,
    validation_of,
)
from jkd.places import Path
from jkd.progress import RunProgress
from jkd.share import Share, nodes_in, share_of
from jkd.train.given import Knowledge
from jkd.train.loop import Fit, fit
from jkd.train.record import final_chain
from jkd.train.state import PyTree

PROJECTION = "projection.safetensors"  # what maps a student's features into the projected space


def make_student(
    session: Session,
    split: Split,
    teacher: Teacher,
    graph: KnowledgeGraph,
    place: Place,
    name: str,
    seed: int,
    progress: RunProgress,
    wait: bool = False,
) -> Result:
    """Finds or trains one student with one seed, and evaluates it on the test split."""
    network, folder = session.config.students[name], place.student(name, seed)
    inputs = student_inputs(session, split, teacher, graph, place, name, seed)
    made_of = inputs.made_of or {}
    progress.start(f"replicate {place.replicate} {name}/{seed}")
    if (result := finished(folder, inputs)) is not None:
        progress.finish("already there")
        return result
    with hold(folder, f"student {name}/{seed} of replicate {place.replicate}", progress, wait=wait):
        if (result := finished(folder, inputs)) is not None:  # made by another process meanwhile
            progress.finish("already there")
            return result
        started = time.monotonic()
        training, share = student_training(session, split, teacher, graph, name, seed, place.replicate)
        program, goal = training.compiled.program, training.compiled.program.objective
        check_steps(folder, program.steps, f"students.{name}")
        evaluate = validation_of(session, split, session.apply_of(network), network)
        where: dict[str, Any] = dict(folder=folder, inputs=inputs, init=training.init, progress=progress.step)
        setup = replace(training.setup, evaluate=evaluate, **where)
        signed = files.read_signed(place.teacher / "result.json").get("predictions", "")
        theirs = files.read_arrays(place.teacher / "predictions.safetensors", signed)  # damaged ones are found now
        state = fit(setup, training.init())
        variables = jax.tree.map(np.asarray, state.variables)
        own = session.apply_of(network)
        found = test_outputs(session, own, network, variables)
        predictions = stored(session, found)
        parts = session.task.found(predictions) if session.task.found else None
        if goal.projects and parts is None:
            predictions |= _projected(training.compiled, state.objective, found["embedding"], share.knowledge)
        elif goal.projects and parts is not None and len(parts.sample):
            test = session.dataset.test
            _, features = described(session, own, network, variables, test, np.arange(len(test)), parts)
            both = _projected(training.compiled, state.objective, features, share.knowledge)
            predictions |= {"found_projection": both["projection"], "nodes": both["nodes"]}
        learnt = (
            {name: np.asarray(array) for name, array in state.objective["student"].items()} if goal.projects else {}
        )
        if learnt:
            files.write_arrays(folder / PROJECTION, learnt)
        compress.save_variables(folder / "variables.safetensors", variables)
        files.write_arrays(folder / "predictions.safetensors", predictions)
        result = {
            "inputs": inputs,
            "made_of": made_of,
            "chain": final_chain(folder),
            "params": digest.of_tree(variables),
            "predictions": digest.of_tree(predictions),
            **({"projection": digest.of_tree(learnt)} if learnt else {}),
            "metrics": test_metrics(session, predictions, theirs),
            "labels": {"train": len(split.labelled), "choose": share.labels_used},
            "choices": share.choices,
            "receipt": receipt_of(session, own, network, variables, place),
            "steps": program.steps,
            "seconds": time.monotonic() - started,
            **changes_of(folder, inputs),
        }
        files.write_signed(folder / "result.json", result)
    progress.finish(note_of(session, result))
    return result


def projected_by(folder: Path, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The graph's nodes in a finished student's projected space, `[N, P]`, and features of its own there, `[M, P]`.

    Raises:
      UserError: the files are damaged, or not there.
    """
    result = files.read_signed(folder / "result.json")
    learnt = files.read_arrays(folder / PROJECTION, result.get("projection", ""))
    nodes = files.read_arrays(folder / "predictions.safetensors", result.get("predictions", ""))["nodes"]
    return nodes, np.asarray(project(jax.tree.map(jnp.asarray, learnt), features))


def student_inputs(
    session: Session, split: Split, teacher: Teacher, graph: KnowledgeGraph, place: Place, name: str, seed: int
) -> Inputs:
    """What a student is made from."""
    made_of = network_inputs(session, session.config.students[name], split, seed, place.replicate)
    made_of |= {"teacher": teacher.digest, "graph": graph.digest}
    names = NAMES | {"network.": f"students.{name}.", "teacher": changes.TEACHER, "graph": changes.GRAPH}
    return Inputs.of(made_of, place.allowed, names)


def student_training(
    session: Session, split: Split, teacher: Teacher, graph: KnowledgeGraph, name: str, seed: int, replicate: int
) -> tuple[Training, Share]:
    """How a student is trained, and its share of the graph."""
    network = session.config.students[name]
    goal = session.objective_of(network, len(graph.edge_types), f"students.{name}")
    share = share_of(graph, network, goal, seed, replicate, split)
    apply = teacher.apply if goal.needs_teacher else None
    compiled = session.program(network, goal, apply, len(share.samples), f"students.{name}")
    setup = Fit(
        step=compiled.step,
        batches=batches_of(session, split, share.samples, compiled.step, network, seed, replicate, nodes_in(graph)),
        teacher=teacher.variables if apply else {},
        knowledge=share.knowledge,
        run=build.run_of(seed, replicate),
    )
    theirs = (session.module(session.config.teacher), teacher.variables)
    start = networks.start_of(network, compiled.program.module, theirs, session.kept_words(network))
    return Training(setup, compiled, start), share


def _projected(
    compiled: Compiled, objective: PyTree, features: np.ndarray, knowledge: Knowledge
) -> dict[str, np.ndarray]:
    """Test samples, or what was found in them, and the graph's nodes in the projected space, for cards to look up."""
    assert knowledge.features is not None
    size, block = len(knowledge.features), 512
    rows = []
    for start in range(0, size, block):
        nodes = np.resize(np.arange(start, min(start + block, size)), block)  # one shape, padded by repeating
        rows.append(np.asarray(compiled.project_nodes(objective, knowledge, nodes))[: size - start])
    student = np.asarray(compiled.project_student(objective, features))
    return {"projection": student, "nodes": np.concatenate(rows)}
