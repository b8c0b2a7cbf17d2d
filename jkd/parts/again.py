"""The training of a part that is there, set up as it was, to be run again."""

from typing import Any

from jkd import changes, files
from jkd.build import Session
from jkd.changes import ENVIRONMENT, Inputs
from jkd.data import Split
from jkd.errors import UserError
from jkd.parts.graph import read_graph
from jkd.parts.part import Place, Training
from jkd.parts.student import student_inputs, student_training
from jkd.parts.teacher import found_teacher, teacher_inputs, teacher_training
from jkd.places import Path
from jkd.train import checkpoint


def training_again(session: Session, split: Split, place: Place, part: str, source: Place | None = None) -> Training:
    """How `teacher` or a student `NAME/SEED` was trained, from the teacher and the graph that are there.

    With `source`, the part there has to be made from the same, too.

    Raises:
      UserError: when these are not there or are damaged, or when the part was made from something else: another teacher
        or graph, or settings that have been changed since (`--allow-change` leaves finished parts as they are).
    """
    if part == "teacher":
        if session.loaded_teacher:
            raise UserError("the teacher was loaded, not trained: there is nothing to run again.")
        for one in (place, source or place):
            _check(one.teacher, teacher_inputs(session, split, place))
        return teacher_training(session, split, split.labelled, place.replicate)
    teacher = found_teacher(session, split, place)
    if teacher is None or not (place.graph / "graph.json").exists():
        raise UserError(f"{place.folder} holds no finished teacher and graph, which {part} was made from.")
    graph = read_graph(place.graph)
    name, _, seed = part.partition("/")
    for one in (place, source or place):
        _check(one.part(part), student_inputs(session, split, teacher, graph, place, name, int(seed)))
    return student_training(session, split, teacher, graph, name, int(seed), place.replicate)[0]


def made_of(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a part is made from and what changed on its way, by its result or its newest checkpoint."""
    said: dict[str, Any] = {}
    if (folder / "result.json").exists():
        said = files.read_signed(folder / "result.json")
    elif newest := checkpoint.steps(folder / "checkpoints")[-1:]:
        said = checkpoint.sealed(folder / "checkpoints" / str(newest[0]))
    return said.get("made_of") or {}, said.get("changes") or []


def _check(folder: Path, now: Inputs) -> None:
    """Refuses a part that was made from something else than it would be made from now."""
    was = made_of(folder)[0]
    differences = now.differences({"made_of": was}) or ()
    unlike = [it for it in differences if not it.key.startswith(ENVIRONMENT) and changes.moves_bits(it.key)]
    if was and unlike:
        raise UserError(f"{folder} was made from something else than is there now: {changes.listed(unlike)}.")
