"""The one program of a step gives what the teacher's forward pass and the student's step give as two programs."""

from typing import Any

import jax
import numpy as np
import pytest

TERMS = {
    "kd": {"kd": 0.9, "cross_entropy": 0.1},
    "graph": {"joined_beliefs": 0.9, "projection": {"weight": 0.3, "detach": False}, "cross_entropy": 0.1},
    "taps": {"fitnet": 0.5, "rkd": 0.1},
}


@pytest.mark.parametrize("terms", TERMS)
def test_fused_step_equals_teacher_and_student_apart(problem: Any, run: Any, terms: str):
    program, teacher = problem.program(problem.network(TERMS[terms]))
    fused_state = apart_state = jax.jit(lambda: program.init(run, teacher))()
    fused, learn = jax.jit(program.train_steps), jax.jit(program.student_step)

    @jax.jit
    def teach(teacher: Any, batch: Any) -> Any:
        prepared = program.prepare(problem.knowledge, batch, run)
        return prepared, program.teacher_side(teacher, prepared)

    for step in range(3):
        chunk = problem.chunk(step, 1, 16)
        fused_state, metrics = fused(fused_state, teacher, problem.knowledge, chunk, run)
        batch = {key: value[0] for key, value in chunk.items() if np.ndim(value)}
        apart_state, apart = learn(apart_state, *teach(teacher, batch))
        assert set(metrics) == set(apart) | {"checksums"}
        for name, value in apart.items():
            np.testing.assert_allclose(metrics[name][0], value, rtol=1e-4, atol=1e-6, err_msg=name)
    for one, two in zip(jax.tree.leaves(fused_state), jax.tree.leaves(apart_state), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5)
