"""Token losses: values against NumPy in float64, padding, order, equality, coincident points, types."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.losses import text

B, H, L, D = 4, 3, 6, 8
LENGTHS = (6, 3, 1, 4)
Loss = Callable[..., jax.Array]

# name -> (loss, student's shape, teacher's shape)
CASES: dict[str, tuple[Loss, tuple[int, ...], tuple[int, ...]]] = {
    "hidden": (text.hidden_mse, (B, L, D), (B, L, D)),
    "scores": (text.attention_mse, (B, H, L, L), (B, H, L, L)),
    "scores, other heads": (text.attention_mse, (B, H, L, L), (B, 2, L, L)),
    "softmax": (lambda *a: text.attention_mse(*a, softmax=True), (B, H, L, L), (B, H, L, L)),
    "attention": (lambda *a: text.attention_kl(*a, scores=True), (B, H, L, L), (B, H, L, L)),
    "attention, other heads": (lambda *a: text.attention_kl(*a, scores=True), (B, H, L, L), (B, 2, L, L)),
    "values": (text.relation_kl, (B, H, L, 4), (B, H, L, D)),
    "relation heads": (lambda *a: text.relation_kl(*a, heads=4), (B, H, L, 4), (B, 2, L, D)),
}
SAME = [name for name, (_, student, teacher) in CASES.items() if student == teacher]
JITTED = {name: jax.jit(jax.value_and_grad(case[0], argnums=(0, 1))) for name, case in CASES.items()}


def _mask(lengths: Any = LENGTHS) -> np.ndarray:
    return (np.arange(L) < np.asarray(lengths)[:, None]).astype(np.float32)


def _inputs(name: str, seed: int = 0, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    student, teacher = (rng.normal(size=shape).astype(np.float32) for shape in CASES[name][1:])
    return student * np.float32(scale), teacher * np.float32(scale)


def _run(name: str, student: Any, teacher: Any, mask: Any) -> tuple[float, np.ndarray, np.ndarray]:
    loss, gradients = JITTED[name](jnp.asarray(student), jnp.asarray(teacher), jnp.asarray(mask))
    assert loss.shape == () and loss.dtype == jnp.float32
    return float(loss), *(np.asarray(gradient, np.float32) for gradient in gradients)


def _softmax(scores: np.ndarray) -> np.ndarray:
    exps = np.exp(scores - scores.max(-1, keepdims=True))
    return exps / exps.sum(-1, keepdims=True)


def _kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return (p * (np.log(p) - np.log(q))).sum(-1)


def _expected(name: str, student: np.ndarray, teacher: np.ndarray) -> float:
    """One sentence at a time, cut to its own length: no mask anywhere."""
    terms: list[np.ndarray] = []
    for s, t, n in zip(student.astype(np.float64), teacher.astype(np.float64), LENGTHS, strict=True):
        if name == "hidden":
            terms.append(((s[:n] - t[:n]) ** 2).ravel())
        elif name in ("values", "relation heads"):
            if name == "relation heads":
                s, t = (x.transpose(1, 0, 2).reshape(L, 4, -1).transpose(1, 0, 2) for x in (s, t))
            rows = [x[:, :n] @ x[:, :n].transpose(0, 2, 1) / np.sqrt(x.shape[-1]) for x in (s, t)]
            terms.append(_kl(_softmax(rows[1]), _softmax(rows[0])).ravel())
        else:
            s, t = s[:, :n, :n], t[:, :n, :n]
            if "scores" not in name:
                s, t = _softmax(s), _softmax(t)
            if len(s) != len(t):
                s, t = s.mean(0, keepdims=True), t.mean(0, keepdims=True)
            terms.append((_kl(t, s) if name.startswith("attention") else (s - t) ** 2).ravel())
    return float(np.concatenate(terms).mean())


@pytest.mark.parametrize("name", CASES)
def test_the_value_equals_numpy_on_sentences_cut_to_their_length(name: str):
    inputs = _inputs(name)
    np.testing.assert_allclose(_run(name, *inputs, _mask())[0], _expected(name, *inputs), rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
    lengths=st.lists(st.integers(0, L), min_size=B, max_size=B),
)
def test_order_changes_nothing_and_the_teacher_gets_no_gradient(name: str, seed: int, scale: float, lengths: list[int]):
    student, teacher = _inputs(name, seed, scale)
    mask = _mask(lengths)
    loss, gradient, to_teacher = _run(name, student, teacher, mask)
    assert loss >= -1e-5 and np.isfinite(gradient).all() and not to_teacher.any()
    order = np.random.default_rng(seed).permutation(B)
    again, reordered, _ = _run(name, student[order], teacher[order], mask[order])
    np.testing.assert_allclose(again, loss, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(reordered, gradient[order], rtol=1e-3, atol=1e-4 * np.abs(gradient).max() + 1e-7)


@pytest.mark.parametrize("name", CASES)
def test_what_stands_at_padding_changes_nothing_and_gets_no_gradient(name: str):
    student, teacher = _inputs(name)
    loss, gradient, _ = _run(name, student, teacher, _mask())
    real = _mask() > 0
    axes = (1,) if name == "hidden" else (2, 3) if student.shape[-1] == L else (2,)
    padded = np.zeros(student.shape, bool)
    for axis in axes:
        shape = [B if i == 0 else L if i == axis else 1 for i in range(student.ndim)]
        padded |= ~real.reshape(shape)
    assert not gradient[padded].any()
    student[padded] = np.nan
    other, dirty, _ = _run(name, student, teacher, _mask())
    assert other == loss
    np.testing.assert_array_equal(dirty, gradient)


@pytest.mark.parametrize("name", CASES)
def test_more_padding_changes_nothing(name: str):
    short = min(L, max(LENGTHS[1:]))
    student, teacher = (each[1:] for each in _inputs(name))
    cut = [slice(0, short) if size == L and axis else slice(None) for axis, size in enumerate(student.shape)]
    whole, less = jax.jit(lambda long, short: (CASES[name][0](*long), CASES[name][0](*short)))(
        (student, teacher, _mask()[1:]), (student[tuple(cut)], teacher[tuple(cut)], _mask()[1:, :short])
    )
    np.testing.assert_allclose(less, whole, rtol=1e-5)


@pytest.mark.parametrize("name", SAME)
def test_loss_and_gradient_are_zero_when_student_and_teacher_are_equal(name: str):
    student, _ = _inputs(name)
    loss, gradient, _ = _run(name, student, student, _mask())
    np.testing.assert_allclose(loss, 0, atol=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize("points", ["zeros", "all alike", "all padding"])
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_finite_at_coincident_points(name: str, points: str):
    student, teacher = _inputs(name)
    if points != "all padding":
        student, teacher = (np.full_like(each, 0.0 if points == "zeros" else 0.7) for each in (student, teacher))
    loss, gradient, _ = _run(name, student, teacher, _mask() * np.float32(points != "all padding"))
    assert np.isfinite(loss) and np.isfinite(gradient).all()
    assert points != "all padding" or (loss == 0 and not gradient.any())


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_inputs_give_a_float32_loss_computed_in_float32(name: str):
    student, teacher = (jnp.asarray(each, jnp.bfloat16) for each in _inputs(name))
    loss, _, _ = _run(name, student, teacher, _mask())
    exact, _, _ = _run(name, student.astype(jnp.float32), teacher.astype(jnp.float32), _mask())
    np.testing.assert_allclose(loss, exact, rtol=1e-6)


def test_attention_given_as_probabilities_equals_attention_given_as_scores():
    scores = [jnp.asarray(each) for each in _inputs("attention, other heads")]
    mask = jnp.asarray(_mask())
    masked = [jnp.where(mask[:, None, None, :] > 0, each, -1e9) for each in scores]
    probabilities = [jax.nn.softmax(each) for each in masked]
    kl, mse = (
        jax.jit(text.attention_kl, static_argnames="scores"),
        jax.jit(text.attention_mse, static_argnames="softmax"),
    )
    np.testing.assert_allclose(kl(*probabilities, mask), kl(*scores, mask, scores=True), rtol=1e-5)
    np.testing.assert_allclose(mse(*probabilities, mask), mse(*scores, mask, softmax=True), rtol=1e-5)


def test_a_probability_of_zero_has_a_finite_loss_and_gradient():
    hard = jnp.broadcast_to(jnp.eye(L), (B, H, L, L))
    loss, gradient = jax.jit(jax.value_and_grad(text.attention_kl))(hard, hard[..., ::-1], jnp.ones((B, L)))
    assert np.isfinite(loss) and loss > 1 and np.isfinite(gradient).all()


def test_relations_of_heads_side_by_side_equal_those_of_separate_heads():
    student, teacher = _inputs("relation heads")
    flat = [jnp.asarray(each.transpose(0, 2, 1, 3).reshape(B, L, -1)) for each in (student, teacher)]
    mask = jnp.asarray(_mask())
    loss = jax.jit(lambda s, t: text.relation_kl(s, t, mask, heads=4))
    np.testing.assert_allclose(loss(*flat), loss(jnp.asarray(student), jnp.asarray(teacher)), rtol=1e-6)


def test_shapes_that_cannot_be_compared_are_refused():
    mask = jnp.ones((B, L))
    with pytest.raises(ValueError, match=r"one shape, got \(6, 8\).*\(6, 9\)"):
        text.hidden_mse(jnp.zeros((B, L, D)), jnp.zeros((B, L, D + 1)), mask)
    with pytest.raises(ValueError, match=r"3 heads \(student\) against 2.*Set `heads`"):
        text.relation_kl(jnp.zeros((B, H, L, D)), jnp.zeros((B, 2, L, D)), mask)
    with pytest.raises(ValueError, match="width of 24 cannot be cut into 5"):
        text.relation_kl(jnp.zeros((B, H, L, D)), jnp.zeros((B, 2, L, D)), mask, heads=5)
    with pytest.raises(ValueError, match="one tokenizer"):
        text.relation_kl(jnp.zeros((B, H, L, D)), jnp.zeros((B, H, L + 1, D)), mask)


def test_the_golden_encoder_s_attention_agrees_with_its_values(shared: Any):
    golden = np.load(shared / "golden" / "bert" / "minilm.npz", allow_pickle=False)
    mask = jnp.asarray(golden["attention_mask"], jnp.float32)
    first, last = (jnp.asarray(golden[name], jnp.float32) for name in ("attention_0", "attention_5"))
    attention_kl, hidden_mse = jax.jit(text.attention_kl), jax.jit(text.hidden_mse)
    assert attention_kl(last, last, mask) == pytest.approx(0, abs=1e-6)
    rows = np.asarray(mask) > 0
    p, q = np.asarray(last, np.float64), np.asarray(first, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.where(p > 0, p * (np.log(p) - np.log(np.maximum(q, 1e-12))), 0.0).sum(-1)
    expected = np.moveaxis(each, 1, 2)[rows].mean()
    assert float(attention_kl(first, last, mask)) == pytest.approx(expected, rel=1e-3)
    hidden = jnp.asarray(golden["hidden_3"], jnp.float32), jnp.asarray(golden["hidden_4"], jnp.float32)
    expected = ((golden["hidden_3"] - golden["hidden_4"])[rows] ** 2).mean()
    assert float(hidden_mse(*hidden, mask)) == pytest.approx(expected, rel=1e-5)
