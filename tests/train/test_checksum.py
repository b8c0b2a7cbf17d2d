"""Checksums of the stages of a step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.train import checksum
from jkd.train.checksum import STAGES, checksums, leaves_of

TREE = {
    "batch": {"image": np.arange(40, dtype=np.uint8), "id": np.arange(4, dtype=np.int32)},
    "student": {"logits": np.linspace(-2, 2, 300, dtype=np.float32).reshape(30, 10)},
    "gradients": {"a": {"kernel": np.ones((3, 3), np.float32)}, "b": np.zeros(5, jnp.bfloat16)},
}
SUM = jax.jit(checksums)
GOLD = [3659752473, 1339634609]  # of the leaves in the test below


def _names(tree: dict) -> tuple[str, ...]:
    return tuple(name for name, _ in leaves_of(tree))


def _changed(before: dict, after: dict) -> list[str]:
    return [name for name, a, b in zip(_names(before), SUM(before), SUM(after), strict=True) if int(a) != int(b)]


def test_every_leaf_has_a_name_in_stage_order():
    found = _names(TREE)
    assert found == ("batch/id", "batch/image", "student/logits", "gradients/a/kernel", "gradients/b")
    assert len(SUM(TREE)) == len(found)
    assert [STAGES.index(name.split("/")[0]) for name in found] == sorted(STAGES.index(n.split("/")[0]) for n in found)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(index=st.integers(0, 299), bit=st.integers(0, 31))
def test_any_flipped_bit_of_one_element_names_its_leaf(index: int, bit: int):
    after = jax.tree.map(np.copy, TREE)
    after["student"]["logits"].view(np.uint32).reshape(-1)[index] ^= np.uint32(1 << bit)
    assert _changed(TREE, after) == ["student/logits"]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(i=st.integers(0, 299), j=st.integers(0, 299))
def test_swapped_elements_are_seen_even_of_opposite_sign(i: int, j: int):
    after = jax.tree.map(np.copy, TREE)
    flat = after["student"]["logits"].reshape(-1)
    before = flat.copy()
    flat[i], flat[j] = before[j], before[i]
    same = np.array_equal(flat, before)
    assert _changed(TREE, after) == ([] if same else ["student/logits"])


def test_a_leaf_does_not_depend_on_the_others_or_on_its_shape():
    alone = {"student": {"logits": TREE["student"]["logits"].reshape(-1)}}
    assert int(SUM(alone)[0]) == int(SUM(TREE)[_names(TREE).index("student/logits")])


def test_leaves_of_one_size_are_summed_together_and_none_takes_the_place_of_another(monkeypatch: pytest.MonkeyPatch):
    draw = np.random.default_rng(0)
    sizes = [3, 8, 0, 16, 3, 70_000, 8, 1, 3, 70_000, 16]
    tree = {"update": {f"{i:02}": draw.normal(size=size).astype(np.float32) for i, size in enumerate(sizes)}}
    each = [int(checksum.checksum(jnp.asarray(leaf))) for leaf in tree["update"].values()]
    assert SUM(tree).tolist() == each and len(set(each)) == len(sizes)
    monkeypatch.setattr(checksum, "SMALL", 0)  # one by one
    assert jax.jit(lambda tree: checksums(tree))(tree).tolist() == each


def test_a_checksum_is_the_same_in_every_version():
    """What is stored was made by an earlier one."""
    assert SUM({"update": {"a": np.arange(16, dtype=np.float32), "b": np.arange(5, dtype=np.uint8)}}).tolist() == GOLD


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.int32, np.uint8, np.bool_, np.float16])
def test_every_dtype_of_a_step_is_taken(dtype: type):
    one, two = np.zeros(7, dtype), np.zeros(7, dtype)
    two[3] = 1
    assert _changed({"batch": {"x": one}}, {"batch": {"x": two}}) == ["batch/x"]


def test_nothing_gives_nothing():
    assert SUM({}).shape == (0,)
