"""What a training run carries from step to step."""

from typing import Any

import jax
from flax import struct

PyTree = Any


@struct.dataclass
class TrainState:
    """Everything that training changes; the teacher is not in here, it is an argument of the step.

    The fields are untyped because jax builds states of shapes and shardings, too.

    Attributes:
      step: optimiser steps done, and so the position in the data stream, uint32 `[]`.
      params: the student's parameters.
      batch_stats: BatchNorm statistics, `{}` where there are none.
      objective: parameters that the objective's terms own.
      opt_state: of optax, over `{"student": params, "objective": objective}`.
      ema: moving average of `params`, `{}` where there is none.
    """

    step: PyTree
    params: PyTree
    batch_stats: PyTree
    objective: PyTree
    opt_state: PyTree
    ema: PyTree

    @property
    def variables(self) -> dict[str, PyTree]:
        """The student's variables to evaluate and export: the moving average where there is one."""
        variables = {"params": self.ema if jax.tree.leaves(self.ema) else self.params}
        return variables | ({"batch_stats": self.batch_stats} if jax.tree.leaves(self.batch_stats) else {})
