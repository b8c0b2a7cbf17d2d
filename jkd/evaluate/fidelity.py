"""How near a student is to its teacher."""

import numpy as np
from jaxtyping import Float

from jkd.evaluate.correctness import log_softmax


def agreement(student_logits: Float[np.ndarray, "n c"], teacher_logits: Float[np.ndarray, "n c"]) -> float:
    """Share of samples on which both predict the same class, in [0, 1]. Stanton 2021, arXiv:2106.05945."""
    student, teacher = _same_shape(student_logits, teacher_logits)
    return float((student.argmax(axis=1) == teacher.argmax(axis=1)).mean())


def kl(teacher_logits: Float[np.ndarray, "n c"], student_logits: Float[np.ndarray, "n c"]) -> float:
    """Mean KL(teacher || student) of the predicted distributions at temperature 1, in nats."""
    teacher, student = _same_shape(teacher_logits, student_logits)
    teacher, student = log_softmax(teacher), log_softmax(student)
    share = np.exp(teacher)
    with np.errstate(invalid="ignore"):  # a class the teacher rules out adds nothing, whatever the student says
        terms = np.where(share > 0, share * (teacher - student), 0.0)
    return float(max(0.0, terms.sum(axis=1).mean()))


def _same_shape(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 2 or not len(a):
        raise ValueError(f"expected two arrays of logits [N, C], N >= 1; got {a.shape} and {b.shape}")
    return a, b
