import functools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.models.fasttext import FastText, hashed_ngrams

IDS = jnp.array([[5, 6, 7, 8, 0, 0], [9, 3, 4, 0, 0, 0], [0, 0, 0, 0, 0, 0]], jnp.int32)
TEXTS = st.lists(st.lists(st.integers(1, 2**31 - 1), max_size=6), min_size=3, max_size=3)


def _hash(ngram):
    """The same hash in Python's whole numbers."""
    word = len(ngram)
    for token in ngram:
        word = ((word ^ token) + 0x9E3779B9) % 2**32
        word = ((word ^ (word >> 16)) * 0x7FEB352D) % 2**32
        word = ((word ^ (word >> 15)) * 0x846CA68B) % 2**32
        word ^= word >> 16
    return word


SMALL = FastText(2, width=4, buckets=64, hidden=8)
_apply = jax.jit(SMALL.apply)
_hashed = jax.jit(hashed_ngrams, static_argnums=(2, 3))


@functools.cache
def _variables():
    shapes = jax.eval_shape(SMALL.init, jax.random.key(0), IDS)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype), shapes)


def _padded(texts, size):
    return jnp.array([text + [0] * (size - len(text)) for text in texts], jnp.int32)


@settings(max_examples=30, deadline=None)
@given(texts=TEXTS)
def test_rows_are_the_hashes_of_the_real_ngrams(texts):
    ids = _padded(texts, 6)
    rows, real = _hashed(ids, (ids != 0).astype(jnp.float32), 3, 1000)
    for index, text in enumerate(texts):
        ngrams = [text[at : at + n] for n in (1, 2, 3) for at in range(len(text) - n + 1)]
        found = np.asarray(rows[index])[np.asarray(real[index]) > 0]
        assert found.tolist() == [_hash(ngram) % 1000 for ngram in ngrams]


def test_single_tokens_have_a_row_each_where_there_are_as_many():
    module = FastText(2, width=4, buckets=12, vocab=12, ngrams=1, hidden=0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), IDS)
    table = jnp.arange(12 * 4, dtype=jnp.float32).reshape(12, 4)
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    variables["params"]["ngram"]["embedding"] = table
    _, taps = module.apply(variables, IDS)
    np.testing.assert_allclose(taps["embedding"], [table[5:9].mean(0), table[jnp.array([9, 3, 4])].mean(0), [0] * 4])
    _, hashed = module.clone(buckets=11, vocab=12).apply(
        {"params": {**variables["params"], "ngram": {"embedding": table[:11]}}}, IDS
    )
    assert not np.allclose(hashed["embedding"], taps["embedding"])  # fewer rows than tokens: these share by hash


def test_ngrams_spread_over_the_buckets():
    """30,000 words in 1,000 buckets: a chi-squared of 999 degrees of freedom, 45 wide."""
    ids = jnp.arange(1, 30001, dtype=jnp.int32)[None]
    rows, _ = hashed_ngrams(ids, jnp.ones((1, 30000)), 2, 1000)
    for some in (rows[0, :30000], rows[0, 30000:]):
        counts = np.bincount(some, minlength=1000)
        assert ((counts - 30) ** 2 / 30).sum() < 999 + 5 * 45


@settings(max_examples=20, deadline=None)
@given(texts=TEXTS)
def test_padding_changes_nothing(texts):
    (logits, taps), (padded_logits, padded) = (_apply(_variables(), _padded(texts, size)) for size in (6, 9))
    np.testing.assert_allclose(logits, padded_logits, atol=1e-5)
    np.testing.assert_allclose(taps["embedding"], padded["embedding"], atol=1e-6)


def test_embedding_is_the_mean_of_the_ngrams_vectors():
    module = FastText(2, width=4, buckets=64, hidden=0)
    variables = module.init(jax.random.key(0), IDS)
    logits, taps = module.apply(variables, IDS)
    table = np.asarray(variables["params"]["ngram"]["embedding"])
    ngrams = [(9,), (3,), (4,), (9, 3), (3, 4), (9, 3, 4)]
    expected = np.mean([table[_hash(ngram) % 64] for ngram in ngrams], 0)
    np.testing.assert_allclose(taps["embedding"][1], expected, atol=1e-6)
    np.testing.assert_array_equal(taps["embedding"][2], np.zeros(4))
    np.testing.assert_allclose(logits[1], expected @ variables["params"]["classifier"]["kernel"], atol=1e-6)
    assert set(taps) == {"mask", "embedding"}


def test_defaults_take_less_than_a_megabyte():
    for classes in (2, 50):
        shapes = jax.eval_shape(FastText(classes).init, jax.random.key(0), IDS)
        assert 800_000 < sum(4 * leaf.size for leaf in jax.tree.leaves(shapes)) < 1_000_000


def test_gradients_are_finite_in_bfloat16_and_texts_shorter_than_an_ngram_work():
    module = SMALL.clone(dropout=0.2, dtype=jnp.dtype(jnp.bfloat16))
    keys = jax.random.split(jax.random.key(0), 3)
    loss = lambda variables: (module.apply(variables, IDS[:, :2], True, keys)[0] ** 2).mean()  # noqa: E731
    gradients = jax.jit(jax.grad(loss))(_variables())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
