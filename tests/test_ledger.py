"""The book of keys: what it writes down, what it refuses, and what it cannot see."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jkd import random
from jkd.random import KeyReused


@pytest.fixture
def book() -> Iterator[random.Ledger]:
    with random.ledger() as opened:
        yield opened


def _twice(key: jax.Array) -> jax.Array:
    return jax.random.uniform(jax.random.fold_in(key, 1)) + jax.random.normal(jax.random.fold_in(key, 1))


def test_jax_itself_misses_the_same_fold_in_made_twice():
    with jax.debug_key_reuse(True):
        _twice(random.key("init", 0))
        jax.jit(_twice)(random.key("init", 0))


def test_the_same_fold_in_made_twice_and_used_twice_is_found_on_the_host(book: random.Ledger):
    with pytest.raises(KeyReused, match=r"used twice: by uniform at .*test_ledger\.py:\d+, and by normal at"):
        _twice(random.key("init", 0))


def test_it_is_found_while_tracing_and_named_by_its_stream(book: random.Ledger):
    with pytest.raises(KeyReused, match=r"stream 'dropout', seed traced \d+, then traced \d+, traced \d+, 1, is used"):
        jax.jit(lambda seed, replicate, step: _twice(random.key("dropout", seed, replicate, step)))(0, 0, 0)


def test_it_is_found_under_vmap(book: random.Ledger):
    def twice(seed: jax.Array, ids: jax.Array) -> jax.Array:
        key = random.key("augment", seed)
        first = jax.vmap(jax.random.uniform)(random.sample_keys(key, ids))
        return first + jax.vmap(lambda key: jax.random.normal(key))(random.sample_keys(key, ids))

    with pytest.raises(KeyReused, match="stream 'augment'"):
        jax.jit(twice)(0, jnp.arange(3))


def test_the_same_key_drawn_from_twice_is_found_by_its_bits(book: random.Ledger):
    jax.random.uniform(random.key("init", 3))
    with pytest.raises(KeyReused, match="used twice"):
        jax.random.uniform(jax.random.wrap_key_data(jax.random.key_data(random.key("init", 3))))


def test_a_child_of_a_split_is_the_fold_in_of_its_index(book: random.Ledger):
    assert np.array_equal(
        jax.random.key_data(jax.random.split(jax.random.key(0))[1]),
        jax.random.key_data(jax.random.fold_in(jax.random.key(0), 1)),
    )
    key = random.key("init", 5)
    jax.random.split(key)
    with pytest.raises(KeyReused, match="by split at"):
        jax.random.uniform(random.subkey(key, 1))


@pytest.mark.parametrize("first", ["split", "bits"])
def test_a_key_that_is_split_is_not_drawn_from_as_well(book: random.Ledger, first: str):
    uses = {"split": lambda key: jax.random.split(key, 3), "bits": jax.random.bits}
    second = "bits" if first == "split" else "split"
    key = random.key("init", 5)
    uses[first](key)
    with pytest.raises(KeyReused, match=rf"by {first} at .*, and by {second} at"):
        uses[second](key)


def test_a_key_split_and_drawn_from_under_another_name_is_found_by_its_bits(book: random.Ledger):
    jax.random.split(random.key("init", 3))
    with pytest.raises(KeyReused, match="by split at"):
        jax.random.bits(jax.random.wrap_key_data(jax.random.key_data(random.key("init", 3))))


def test_streams_with_one_tag_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(random, "_tag", lambda stream: 7 if stream in ("init", "pool") else hash(stream))
    with pytest.raises(KeyReused, match="streams 'init' and 'pool' have the same tag, 7"), random.ledger():
        pass


def test_different_tags_steps_samples_and_seeds_are_no_reuse(book: random.Ledger):
    @jax.jit
    def draw(seed: jax.Array, step: jax.Array, ids: jax.Array) -> list[jax.Array]:
        keys = [random.key("augment", seed, 0, step), random.key("dropout", seed, 0, step), random.key("init", seed)]
        keys += [random.subkey(keys[2], index) for index in range(3)]
        samples = random.sample_keys(random.key("augment", seed, 1, step), ids)
        return [*map(jax.random.uniform, keys[:2] + keys[3:]), jax.vmap(jax.random.uniform)(samples)]

    draw(0, 0, jnp.arange(4))
    assert len(book.used) == 6 and len({name[1] for name in book.used}) == 3


def test_derivations_are_written_with_their_numbers(book: random.Ledger):
    random.subkey(random.key("init", 3, 1), 9)
    random.permutation("order", 0, 2, size=4)
    assert ("init", 3, (1, 9)) in book.derived and ("order", 0, (2,)) in book.derived


def test_what_runs_again_without_being_traced_again_is_not_seen(book: random.Ledger):
    program = jax.jit(lambda seed: jax.random.uniform(random.key("init", seed)))
    assert program(0) == program(0) and len(book.used) == 1


def test_everything_is_put_back(monkeypatch: pytest.MonkeyPatch):
    before = dict(vars(jax.random))
    with pytest.raises(KeyReused), random.ledger():
        assert vars(jax.random)["uniform"] is not before["uniform"]
        _twice(random.key("init", 0))
    assert vars(jax.random) == before
