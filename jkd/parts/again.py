"""The training of a part that is there, set up as it was, to be run again."""

from jkd import files
from jkd.build import Session
from jkd.data import Split
from jkd.errors import UserError
from jkd.graph import store
from jkd.parts.part import Place, Training
from jkd.parts.student import student_training
from jkd.parts.teacher import found_teacher, teacher_training


def training_again(session: Session, split: Split, place: Place, part: str) -> Training:
    """How `teacher` or a student `NAME/SEED` was trained, from the teacher and the graph that are there.

    Raises:
      UserError: when these are not there, are damaged, or were made from something else.
    """
    if part == "teacher":
        if session.loaded_teacher:
            raise UserError("the teacher was loaded, not trained: there is nothing to run again.")
        return teacher_training(session, split, split.labelled, place.replicate)
    teacher = found_teacher(session, split, place)
    if teacher is None or not (place.graph / "graph.json").exists():
        raise UserError(f"{place.folder} holds no finished teacher and graph, which {part} was made from.")
    graph = store.load(place.graph)
    made_of = files.read_signed(place.part(part) / "result.json")["made_of"] if _finished(place, part) else {}
    for what, now in (("teacher", teacher.digest), ("graph", graph.digest)):
        if made_of.get(what, now) != now:
            raise UserError(f"{part} of {place.folder} was made from another {what} than the one that is there.")
    name, _, seed = part.partition("/")
    return student_training(session, split, teacher, graph, name, int(seed), place.replicate)[0]


def _finished(place: Place, part: str) -> bool:
    return bool((place.part(part) / "result.json").exists())
