import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd import random
from jkd.data.augment_tokens import DRAWS, TEXT, Tokens, Vocabulary, augment_tokens

VOCABULARY = Vocabulary(special=(0, 1, 2, 3), mask=3, unknown=4, padding=0)  # padding, start, end, mask; 4 is unknown
OFF = dict(replace=0.0, mask=0.0, drop=0.0, drop_by="remove")
SIZE, BATCH, LENGTH = 50, 32, 12
KEYS = random.sample_keys(random.key("augment", 0, 0, 3), jnp.arange(BATCH) + 5)
NEAR = np.full((SIZE, 4), -1, np.int32)
NEAR[10:, :3] = (np.arange(10, SIZE)[:, None] - 10 + [1, 2, 3]) % (SIZE - 10) + 10  # ids 5 to 9 have no neighbours
ALL = dict(replace=0.3, mask=0.2, drop=0.3)


def _texts(lengths: Any, length: int = LENGTH, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """`[start] words [end] padding`; the words 5 to 49."""
    lengths = np.asarray(lengths)
    ids = np.random.default_rng(seed).integers(5, SIZE, (len(lengths), length)).astype(np.int32)
    at = np.arange(length)
    ids[:, 0] = 1
    ids[at == lengths[:, None] - 1] = 2
    ids[at >= lengths[:, None]] = 0
    return ids, (at < lengths[:, None]).astype(np.float32)


IDS, REAL = _texts(np.random.default_rng(1).integers(3, LENGTH + 1, BATCH))


MANY = 1500
MANY_IDS, MANY_REAL = _texts([LENGTH] * MANY, seed=3)
MANY_IDS[:, 1:-1] = MANY_IDS[:, 1:-1] % 40 + 10  # words that all have neighbours
MANY_KEYS = random.sample_keys(random.key("augment", 1), jnp.arange(MANY))


@functools.cache
def _jitted(**on: Any) -> Any:
    return jax.jit(lambda ids, mask, keys: augment_tokens(ids, mask, keys, OFF | on, VOCABULARY, jnp.asarray(NEAR)))


def _augment(ids: Any = IDS, real: Any = REAL, keys: Any = KEYS, **on: Any) -> Tokens:
    return Tokens(*map(np.asarray, _jitted(**on)(ids, real, keys)))


def test_all_off_is_the_identity():
    tokens = _augment()
    np.testing.assert_array_equal(tokens.ids, IDS)
    np.testing.assert_array_equal(tokens.mask, REAL)
    np.testing.assert_array_equal(tokens.source, np.tile(np.arange(LENGTH), (BATCH, 1)))
    off = jax.make_jaxpr(lambda *a: augment_tokens(*a, OFF, VOCABULARY).ids)(jnp.asarray(IDS), jnp.asarray(REAL), KEYS)
    assert off.jaxpr.outvars[0] is off.jaxpr.invars[0]


def test_a_text_looks_the_same_wherever_it_stands_and_however_long_it_is_padded():
    tokens = _augment(**ALL)
    turn = np.random.default_rng(0).permutation(BATCH)
    for kept, turned in zip(tokens, _augment(IDS[turn], REAL[turn], KEYS[turn], **ALL), strict=True):
        np.testing.assert_array_equal(turned, kept[turn])
    for kept, again in zip(tokens, _augment(**ALL), strict=True):
        np.testing.assert_array_equal(again, kept)
    alone = _augment(IDS[3:4], REAL[3:4], KEYS[3:4], **ALL)
    np.testing.assert_array_equal(alone.ids[0], tokens.ids[3])
    longer = [np.pad(each, [(0, 0), (0, 5)]) for each in (IDS, REAL)]
    padded = _augment(*longer, **ALL)
    np.testing.assert_array_equal(padded.ids[:, :LENGTH], tokens.ids)
    assert not padded.ids[:, LENGTH:].any() and not padded.mask[:, LENGTH:].any()


def test_samples_and_steps_differ():
    same_ids, same_mask = np.repeat(IDS[:1], BATCH, 0), np.repeat(REAL[:1], BATCH, 0)
    tokens = _augment(same_ids, same_mask, **ALL)
    assert len({row.tobytes() for row in tokens.ids}) > BATCH // 2
    later = random.sample_keys(random.key("augment", 0, 0, 4), jnp.arange(BATCH) + 5)
    assert (_augment(keys=later, **ALL).ids != _augment(**ALL).ids).any()


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), lengths=st.lists(st.integers(0, LENGTH), min_size=4, max_size=4))
def test_special_tokens_stay_in_order_and_padding_stays_padding(seed: int, lengths: list[int]):
    ids, mask = _texts(lengths, seed=seed)
    keys = random.sample_keys(random.key("augment", seed), jnp.arange(4))
    for drop_by in ("remove", "unknown"):
        tokens = _augment(ids, mask, keys, replace=0.5, mask=0.5, drop=0.5, drop_by=drop_by)
        real = tokens.mask > 0
        assert (tokens.ids[~real] == 0).all()
        assert (np.diff(tokens.mask, axis=1) <= 0).all()  # no holes
        for row in range(4):
            specials = [token for token in ids[row, mask[row] > 0] if token in (1, 2)]
            assert [token for token in tokens.ids[row, real[row]] if token in (1, 2)] == specials
            assert (np.diff(tokens.source[row, real[row]]) > 0).all()


def test_a_text_never_loses_all_of_its_words():
    ids, mask = _texts([3] * MANY)
    tokens = _augment(ids, mask, MANY_KEYS, drop=0.9)
    np.testing.assert_array_equal(tokens.ids, ids)
    ids, mask = _texts([4] * MANY)
    lengths = _augment(ids, mask, MANY_KEYS, drop=0.9).mask.sum(1)
    assert set(lengths) == {3.0, 4.0}


@pytest.mark.parametrize(("how", "rate"), [("mask", 0.15), ("replace", 0.5), ("unknown", 0.1), ("remove", 0.4)])
def test_the_rate_is_the_one_asked_for(how: str, rate: float):
    drop = how in ("unknown", "remove")
    tokens = _augment(MANY_IDS, MANY_REAL, MANY_KEYS, **({"drop": rate, "drop_by": how} if drop else {how: rate}))
    words = MANY * (LENGTH - 2)
    if how == "remove":
        changed = words + 2 * MANY - tokens.mask.sum()
    else:
        changed = (tokens.ids != MANY_IDS).sum()
        assert how == "replace" or set(tokens.ids[tokens.ids != MANY_IDS]) == {3 if how == "mask" else 4}
    assert abs(changed / words - rate) < 4 * np.sqrt(rate * (1 - rate) / words) + 0.0005


def test_replacements_are_neighbours_all_equally_likely_and_a_word_without_any_stays():
    tokens = _augment(MANY_IDS, MANY_REAL, MANY_KEYS, replace=0.9)
    changed = tokens.ids != MANY_IDS
    ranks = (NEAR[MANY_IDS[changed]] == tokens.ids[changed][:, None]).argmax(1)
    assert (NEAR[MANY_IDS[changed], ranks] == tokens.ids[changed]).all()
    np.testing.assert_allclose(np.bincount(ranks) / len(ranks), [1 / 3] * 3, atol=0.02)
    alone = np.where(MANY_IDS >= 5, 5 + MANY_IDS % 5, MANY_IDS).astype(np.int32)
    np.testing.assert_array_equal(_augment(alone, MANY_REAL, MANY_KEYS, replace=0.9).ids, alone)


@pytest.mark.parametrize(("on", "name"), [({"mask": 0.4}, "mask"), ({"drop": 0.4, "drop_by": "unknown"}, "drop")])
def test_which_tokens_change_equals_draws_from_each_sample_s_own_key(on: dict[str, Any], name: str):
    tokens = _augment(**on)
    draw = jax.jit(lambda key: jax.random.uniform(jax.random.fold_in(key, TEXT), (LENGTH, len(DRAWS))))
    for row in range(BATCH):
        changes = (np.asarray(draw(KEYS[row]))[:, DRAWS.index(name)] < 0.4) & (IDS[row] >= 5)
        np.testing.assert_array_equal(tokens.ids[row], np.where(changes, 3 if name == "mask" else 4, IDS[row]))


def test_removal_equals_a_python_list():
    tokens, gone = _augment(drop=0.4), _augment(drop=0.4, drop_by="unknown").ids == 4
    for row in range(BATCH):
        words = [token for token, lost in zip(IDS[row], gone[row], strict=True) if token and not lost]
        if len(words) > 2:
            assert [int(token) for token in tokens.ids[row] if token] == words
            np.testing.assert_array_equal(IDS[row][tokens.source[row, : len(words)]], words)


def test_switching_one_operation_on_does_not_move_anothers_draws():
    masked = _augment(mask=0.3).ids == 3
    both = _augment(mask=0.3, replace=0.5).ids == 3
    np.testing.assert_array_equal(both, masked)


@pytest.mark.parametrize(
    ("on", "vocabulary", "message"),
    [
        ({"mask": 1.0}, VOCABULARY, r"augment.mask: expected a rate in \[0, 1\), got 1.0"),
        ({"drop_by": "cut"}, VOCABULARY, "expected 'remove' or 'unknown', got 'cut'"),
        ({"replace": 0.1}, VOCABULARY, "needs a table of near tokens"),
        ({"mask": 0.1}, Vocabulary((0,)), "has no mask token"),
        ({"drop": 0.1, "drop_by": "unknown"}, Vocabulary((0,)), "has no unknown token"),
    ],
)
def test_what_cannot_be_done_is_refused(on: dict[str, Any], vocabulary: Vocabulary, message: str):
    with pytest.raises(ValueError, match=message):
        augment_tokens(jnp.asarray(IDS), jnp.asarray(REAL), KEYS, OFF | on, vocabulary)


def test_types_stay_under_strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        tokens = jax.eval_shape(
            lambda *a: augment_tokens(*a, OFF | ALL, VOCABULARY, jnp.asarray(NEAR)),
            jnp.asarray(IDS),
            jnp.asarray(REAL),
            KEYS,
        )
    assert (tokens.ids.dtype, tokens.mask.dtype, tokens.source.dtype) == (jnp.int32, jnp.float32, jnp.int32)
