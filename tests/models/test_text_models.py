"""Text models by name, with the keys that a config gives them."""

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from jkd.errors import UserError
from jkd.models import TEXT_MODELS, Bert, BiGru, FastText, build_model


def _network(model, **differs):
    keys = dict(model=model, width=16, depth=2, dropout=0.1, dtype="bfloat16", pooling="mean", embedding_width=4)
    bert = dict(attention_heads=4, feed_forward=0, activation="relu")
    return ConfigDict(keys | bert | dict(rows=64, ngrams=2, hidden=8) | differs)


def test_each_name_builds_its_module_of_the_tokenizers_vocabulary():
    half = jnp.dtype(jnp.bfloat16)
    bert = Bert(5, 90, 16, 2, 4, 64, 32, 2, 4, "relu", pooling="mean", dropout=0.1, pad=1, dtype=half)
    expected = {
        "bert": bert,
        "bigru": BiGru(5, 90, 16, 2, 4, "mean", 0.1, pad=1, dtype=half),
        "fasttext": FastText(5, 16, 64, 2, 8, 0.1, pad=1, dtype=half, vocab=90),
    }
    assert set(expected) == set(TEXT_MODELS)
    for name, module in expected.items():
        assert build_model(_network(name), 5, vocab=90, pad=1, longest=32) == module


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_what_every_model_promises(name):
    module = build_model(_network(name), 5, vocab=90, longest=32)
    ids = jnp.zeros((3, 7), jnp.int32)
    variables = jax.eval_shape(module.init, jax.random.key(0), ids)
    logits, taps = jax.eval_shape(module.apply, variables, ids)
    assert (logits.shape, logits.dtype) == ((3, 5), jnp.float32)
    assert taps["embedding"].ndim == 2 and taps["embedding"].dtype == jnp.float32
    assert (taps["mask"].shape, taps["mask"].dtype) == ((3, 7), jnp.float32)
    assert set(variables) == {"params"}
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_a_text_model_for_images_is_refused(name):
    with pytest.raises(UserError, match="reads token ids, but the data are no texts"):
        build_model(_network(name), 5)
