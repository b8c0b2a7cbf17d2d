"""The parts of a run: a teacher, a graph, one student x seed. Each is a folder with a `result.json`.

A part is finished when its `result.json` names the digest of the inputs it would be made from now, or of inputs that
differ only in what the user allowed to change (`jkd.changes`); existence alone says nothing. Parts take a lock while
they are made, so many processes can share one workdir.
"""

from jkd.parts.again import made_of, training_again
from jkd.parts.check import check
from jkd.parts.export import export_network
from jkd.parts.graph import make_graph, read_graph
from jkd.parts.part import Place, Training, described, read_variables, test_metrics, test_outputs
from jkd.parts.recorded import recorded
from jkd.parts.student import PROJECTION, make_student, projected_by
from jkd.parts.teacher import make_teacher

__all__ = [
    "PROJECTION",
    "Place",
    "Training",
    "check",
    "described",
    "export_network",
    "made_of",
    "make_graph",
    "make_student",
    "make_teacher",
    "projected_by",
    "read_graph",
    "read_variables",
    "recorded",
    "test_metrics",
    "test_outputs",
    "training_again",
]
