"""CRD and HKD against loops over samples; `info_nce` is held to golden values and properties elsewhere."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jkd.losses import contrastive

RNG = np.random.default_rng(0)
STUDENT, TEACHER = (jnp.asarray(RNG.normal(size=(6, width)), jnp.float32) for width in (4, 5))
LOGITS = [jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32) for _ in range(2)]
CLASSES = np.asarray([0, 0, 1, 1, 2, 0])
TARGET, ALL = jax.nn.one_hot(CLASSES, 3), jnp.ones(6)
CONTEXT = contrastive.init_hkd(jax.random.key(0), ((6, 4),), ((6, 5),))
TEMPERATURE = 0.5


def _crd(context: Any, target: jax.Array = TARGET, labelled: jax.Array = ALL) -> jax.Array:
    return contrastive.crd(STUDENT, TEACHER, LOGITS[1], target, labelled, context, temperature=TEMPERATURE)


def _hkd(context: Any, k: int = 2, share: float = 0.25) -> jax.Array:
    return contrastive.hkd(STUDENT, TEACHER, *LOGITS, TARGET, ALL, context, temperature=TEMPERATURE, k=k, share=share)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def _linear(params: Any, rows: Any) -> np.ndarray:
    return np.asarray(rows, np.float64) @ np.asarray(params["kernel"]) + np.asarray(params["bias"])


def _rows() -> list[np.ndarray]:
    return [_unit(_linear(CONTEXT[side], rows)) for side, rows in (("student", STUDENT), ("teacher", TEACHER))]


def test_crd_tells_a_samples_own_pair_from_those_of_other_classes() -> None:
    student, teacher = _rows()
    ratio = np.exp(student @ teacher.T / TEMPERATURE)
    pairs = [(i, j) for i in range(6) for j in range(6) if i == j or CLASSES[i] != CLASSES[j]]
    ratio /= np.mean([ratio[i, j] for i, j in pairs if i != j])
    total = 0.0
    for i, j in pairs:
        count = sum(CLASSES[i] != CLASSES)
        own = ratio[i, j] / (ratio[i, j] + count)
        total -= np.log(own if i == j else 1 - own)
    np.testing.assert_allclose(_crd(CONTEXT), total / 6, rtol=1e-5)


def test_a_sample_without_a_label_has_the_teachers_class() -> None:
    guessed = jax.nn.one_hot(jnp.argmax(LOGITS[1], axis=-1), 3)
    assert _crd(CONTEXT, jnp.zeros((6, 3)), jnp.zeros(6)) == _crd(CONTEXT, guessed)


def test_hkd_contrasts_samples_and_their_neighbourhoods_across_the_networks() -> None:
    rows, graphs = _rows(), []
    for side, z, logits in zip(("student", "teacher"), rows, LOGITS, strict=True):
        beliefs = _unit(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
        near = beliefs @ beliefs.T
        means = []
        for i in range(6):
            other = max((j for j in range(6) if j != i), key=lambda j, i=i: near[i, j])
            means.append((z[i] + z[other]) / 2)  # k = 2: itself, and the nearest
        graphs.append(_unit(_linear(CONTEXT[f"{side}_graph"], np.concatenate([z, means], axis=1))))
    total = 0.0
    for one, other in ((0, 1), (1, 0)):
        mixed = _unit(0.75 * rows[other] + 0.25 * graphs[other])
        for anchors, positives in ((rows[one], rows[other]), (graphs[one], mixed)):
            for i in range(6):
                own = anchors[i] @ positives[i] / TEMPERATURE
                rest = [anchors[i] @ rows[other][j] / TEMPERATURE for j in range(6) if CLASSES[j] != CLASSES[i]]
                total += np.log(np.exp([own, *rest]).sum()) - own
    np.testing.assert_allclose(_hkd(CONTEXT), total / 6, rtol=1e-5)


@pytest.mark.parametrize("loss", [_crd, _hkd], ids=["crd", "hkd"])
def test_both_embeddings_are_trained(loss: Any) -> None:
    gradient = jax.jit(jax.grad(loss))(CONTEXT)
    for side in ("student", "teacher"):
        assert np.any(gradient[side]["kernel"]), side
    assert np.any(gradient["student_graph"]["kernel"]) == (loss is _hkd)


def test_more_neighbours_than_samples_are_all_samples() -> None:
    np.testing.assert_allclose(_hkd(CONTEXT, k=6), _hkd(CONTEXT, k=100), rtol=1e-6)


def test_crd_is_content_with_pairs_that_agree_and_others_that_do_not() -> None:
    many = jnp.eye(64, 128)
    embed = {"kernel": jnp.eye(128), "bias": jnp.zeros(128)}
    each = jax.nn.one_hot(jnp.arange(64), 64)
    crd = jax.jit(partial(contrastive.crd, temperature=0.07))
    loss = crd(many, many, each, each, jnp.ones(64), {"student": embed, "teacher": embed})
    assert loss < 1.0  # of 63 negatives each is told from the pair with probability 1 - 1 / 64


def test_crd_of_one_class_has_no_negatives_and_no_nan() -> None:
    of_one_class = jax.value_and_grad(lambda context: _crd(context, jnp.eye(3)[jnp.zeros(6, int)]))
    loss, gradient = jax.jit(of_one_class)(CONTEXT)
    assert np.isfinite(loss) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
