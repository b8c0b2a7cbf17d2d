import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.errors import UserError
from jkd.models.bert import Bert

SMALL = Bert(classes=3, vocab=50, width=16, depth=2, heads=4, feed_forward=24, positions=20)
IDS = jnp.array([[5, 6, 7, 8, 0, 0], [9, 3, 4, 0, 0, 0], [1, 2, 11, 12, 13, 14]], jnp.int32)


def _variables(module: Bert):
    """Weights ten times the usual, so that every part matters."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), IDS)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(0.2 * rng.normal(size=leaf.shape), leaf.dtype), shapes)


@pytest.fixture(scope="module")
def variables():
    return _variables(SMALL)


@pytest.fixture(scope="module")
def apply(variables):
    return jax.jit(lambda ids: SMALL.apply(variables, ids))


def test_taps_have_the_documented_names_shapes_and_types(variables):
    module = SMALL.clone(dtype=jnp.dtype(jnp.bfloat16))
    logits, taps = jax.eval_shape(module.apply, variables, IDS)
    parts = {"query": (3, 4, 6, 4), "key": (3, 4, 6, 4), "value": (3, 4, 6, 4), "hidden": (3, 6, 16)}
    weights = {"scores": (3, 4, 6, 6), "attention": (3, 4, 6, 6)}
    expected = {"embeddings": ((3, 6, 16), "bfloat16"), "mask": ((3, 6), "float32")}
    expected |= {"embedding": ((3, 16), "float32"), "pooled": ((3, 16), "float32")}
    for layer in ("layer0", "layer1"):
        expected |= {f"{layer}/{name}": (shape, "bfloat16") for name, shape in parts.items()}
        expected |= {f"{layer}/{name}": (shape, "float32") for name, shape in weights.items()}
    assert {name: (tap.shape, tap.dtype.name) for name, tap in taps.items()} == expected
    assert (logits.shape, logits.dtype) == ((3, 3), jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_attention_is_the_softmax_of_the_scores_over_real_keys(apply):
    _, taps = apply(IDS)
    for layer in ("layer0", "layer1"):
        query, key, scores = (np.asarray(taps[f"{layer}/{name}"], np.float64) for name in ("query", "key", "scores"))
        np.testing.assert_allclose(scores, query @ key.swapaxes(2, 3) / 2, atol=1e-5)
        weights = np.exp(scores) * np.asarray(taps["mask"])[:, None, None]
        np.testing.assert_allclose(taps[f"{layer}/attention"], weights / weights.sum(-1, keepdims=True), atol=1e-6)


def test_the_first_block_sees_the_embeddings(variables, apply):
    """`layer0` is the first block: its queries are made of `embeddings`, those of `layer1` of `layer0/hidden`."""
    _, taps = apply(IDS)
    for layer, seen in (("layer0", "embeddings"), ("layer1", "layer0/hidden")):
        dense = variables["params"][f"{layer}_query"]
        query = taps[seen] @ dense["kernel"] + dense["bias"].reshape(1, 1, -1)
        made = taps[f"{layer}/query"].transpose(0, 2, 1, 3).reshape(3, 6, 16)
        np.testing.assert_allclose(made, query, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(
    texts=st.lists(st.lists(st.integers(1, 49), max_size=6), min_size=3, max_size=3),
)
def test_padding_changes_nothing(apply, texts):
    """Longer padding leaves logits and every real position as they are; no text, no NaN."""
    short, long = (jnp.array([text + [0] * (size - len(text)) for text in texts], jnp.int32) for size in (6, 9))
    (logits, taps), (padded_logits, padded) = apply(short), apply(long)
    kept = [index for index, text in enumerate(texts) if text]
    for one, other in ((logits, padded_logits), (taps["embedding"], padded["embedding"])):
        assert np.isfinite(one).all() and np.isfinite(other).all()
        np.testing.assert_allclose(np.asarray(one)[kept], np.asarray(other)[kept], atol=1e-5)
    for index, text in enumerate(texts):
        real = len(text)
        hidden, attention = taps["layer1/hidden"][index, :real], taps["layer1/attention"][index, :, :real, :real]
        np.testing.assert_allclose(hidden, padded["layer1/hidden"][index, :real], atol=1e-5)
        np.testing.assert_allclose(attention, padded["layer1/attention"][index, :, :real, :real], atol=1e-5)
        assert real == 0 or not padded["layer1/attention"][index, :, :, real:].any()


def test_embedding_is_the_mean_over_real_tokens_whatever_the_pooling(variables, apply):
    _, taps = apply(IDS)
    hidden, mask = np.asarray(taps["layer1/hidden"]), np.asarray(IDS != 0)
    expected = np.stack([text[real].mean(0) for text, real in zip(hidden, mask, strict=True)])
    np.testing.assert_allclose(taps["embedding"], expected, atol=1e-6)
    module = SMALL.clone(pooling="mean")
    logits, mean = module.apply(variables, IDS)
    np.testing.assert_array_equal(mean["pooled"], mean["embedding"])
    np.testing.assert_allclose(mean["embedding"], taps["embedding"], atol=1e-6)
    classifier = variables["params"]["classifier"]
    np.testing.assert_allclose(logits, expected @ classifier["kernel"] + classifier["bias"][None], atol=1e-5)
    assert "pooler" not in jax.eval_shape(module.init, jax.random.key(0), IDS)["params"]


def test_a_factorised_table_is_its_two_factors_multiplied_out():
    module = SMALL.clone(embedding_width=5)
    variables = _variables(module)
    params = dict(variables["params"])
    assert params["word"]["embedding"].shape == (50, 5)
    params["word"] = {"embedding": params["word"]["embedding"] @ params.pop("projection")["kernel"]}
    logits, taps = module.apply(variables, IDS)
    whole_logits, whole = SMALL.apply({"params": params}, IDS)
    np.testing.assert_allclose(taps["embeddings"], whole["embeddings"], atol=1e-4)
    np.testing.assert_allclose(logits, whole_logits, atol=1e-4)


def test_gradients_are_finite_even_for_no_text_at_all(variables):
    module = SMALL.clone(depth=1)

    def loss(variables):
        logits, taps = module.apply(variables, IDS.at[1].set(0))
        return (logits**2).mean() + (taps["embedding"] ** 2).mean()

    gradients = jax.jit(jax.grad(loss))(variables)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_dropout_of_a_sample_depends_on_its_key_alone(variables):
    module = SMALL.clone(dropout=0.3, depth=1)
    keys = jax.random.split(jax.random.key(2), 3)
    apply = jax.jit(lambda ids, keys: module.apply(variables, ids, True, keys)[0])
    turned = apply(IDS[::-1], keys[::-1])[::-1]
    np.testing.assert_allclose(apply(IDS, keys), turned, atol=1e-5)
    assert np.abs(apply(IDS, keys) - apply(IDS, keys[::-1])).max() > 1e-2
    with pytest.raises(ValueError, match="one key per sample"):
        module.apply(variables, IDS, True)


def test_each_dropout_of_the_network_draws_its_own_mask(variables, monkeypatch):
    layers = []
    from jkd.models import bert

    monkeypatch.setattr(bert, "dropout", lambda x, rate, keys, layer: layers.append(layer) or x)
    SMALL.clone(dropout=0.1).apply(variables, IDS, True)
    assert sorted(layers) == list(range(3 * SMALL.depth + 2))


def test_bfloat16_stays_near_float32(variables, apply):
    logits, taps = SMALL.clone(dtype=jnp.dtype(jnp.bfloat16)).apply(variables, IDS)
    exact_logits, exact = apply(IDS)
    np.testing.assert_allclose(logits, exact_logits, atol=0.1)
    np.testing.assert_allclose(taps["layer1/attention"].sum(-1), 1, atol=1e-6)  # float32 softmax
    np.testing.assert_allclose(taps["embedding"], exact["embedding"], atol=0.1)


def test_an_id_that_is_no_word_cannot_go_unnoticed(apply):
    assert np.isnan(apply(IDS.at[0, 1].set(50))[0][0]).all()


@pytest.mark.parametrize(
    ("differs", "message"),
    [
        (dict(positions=5), "has 5 positions, but the texts have 6 tokens"),
        (dict(heads=3), "3 heads cannot share a width of 16"),
        (dict(pooling="max"), "pooling: unknown 'max'"),
        (dict(activation="gelu_nev"), "Did you mean 'gelu_new'"),
    ],
)
def test_what_does_not_fit_is_refused(differs, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(SMALL.clone(**differs).init, jax.random.key(0), IDS)


def test_published_size():
    """BERT-base, uncased, with its pooler: 109,482,240 parameters, as the paper's 110 M."""
    base = Bert(classes=2, vocab=30522, width=768, depth=12, heads=12, feed_forward=3072)
    shapes = jax.eval_shape(base.init, jax.random.key(0), IDS)
    shapes["params"].pop("classifier")
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 109_482_240
