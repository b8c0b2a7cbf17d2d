"""Key streams: a pure function of their names and numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jkd import random


def _words(key: jax.Array) -> tuple[int, ...]:
    return tuple(np.asarray(jax.random.key_data(key)).ravel().tolist())


def test_streams_seeds_replicates_and_steps_all_differ():
    keys = [
        random.key(name, seed, rep, step)
        for name in random.STREAMS
        for seed in (0, 1)
        for rep in (0, 1)
        for step in (0, 1)
    ]
    assert len({_words(key) for key in keys}) == len(keys)


def test_traced_numbers_give_the_same_key():
    traced = jax.jit(lambda seed, rep, step: random.key("augment", seed, rep, step))(
        np.uint32(3), np.uint32(5), np.uint32(7)
    )
    assert _words(traced) == _words(random.key("augment", 3, 5, 7))


def test_a_sample_has_the_same_key_in_any_batch():
    key = random.key("augment", 0)
    whole, part = random.sample_keys(key, jnp.array([4, 9, 2])), random.sample_keys(key, jnp.array([9]))
    assert _words(whole[1]) == _words(part[0])


def test_an_unknown_stream_is_refused():
    with pytest.raises(ValueError, match="unknown key stream 'teacher'"):
        random.key("teacher", 0)


@given(st.integers(0, 2**31 - 1), st.integers(0, 100), st.integers(1, 200))
def test_permutation_is_one_and_repeats(seed: int, replicate: int, size: int):
    first = random.permutation("order", seed, replicate, size=size)
    assert sorted(first.tolist()) == list(range(size))
    assert np.array_equal(first, random.permutation("order", seed, replicate, size=size))


def test_host_bits_are_written_down():
    assert random.bits("order", 0, 0, size=2).tolist() == [17785577220565808810, 713358419952976036]


def test_uniform_is_uniform():
    drawn = random.uniform("noise", 1, size=20_000)
    assert drawn.min() >= 0 and drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 0.01 and abs(drawn.var() - 1 / 12) < 0.005
