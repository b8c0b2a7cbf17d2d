"""What differs between problems, and nothing else. A task is a frozen dataclass of functions.

Graph terms, objective, cards and the graph builder see `Anchors`, never what they were made from.
"""

from jkd.tasks.classification import CLASSIFICATION
from jkd.tasks.task import Anchors, Task

TASKS = {task.name: task for task in (CLASSIFICATION,)}

__all__ = ["CLASSIFICATION", "TASKS", "Anchors", "Task"]
