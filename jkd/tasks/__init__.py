"""What differs between problems, and nothing else. A task is a frozen dataclass of functions.

Graph terms, objective, cards and the graph builder see `Anchors`, never what they were made from.
"""

from typing import Any

from jkd.tasks.classification import CLASSIFICATION
from jkd.tasks.detection import detection
from jkd.tasks.task import Anchors, Differences, Nodes, Task

TASKS = {"classification": lambda module, shape: CLASSIFICATION, "detection": detection}


def make_task(name: str, module: Any = None, shape: tuple[int, ...] = ()) -> Task:
    """The task of `config.task`, as one network has it.

    Args:
      name: of a task.
      module: the network, of which some tasks have to know what its outputs mean; None for all but what is done with
        outputs.
      shape: of the network's input.
    """
    return TASKS[name](module, shape)


__all__ = ["CLASSIFICATION", "TASKS", "Anchors", "Differences", "Nodes", "Task", "make_task"]
