import json
import pickle

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from jkd import digest
from jkd.errors import UserError
from jkd.pretrained import bert

KEY = jax.random.key(0)


def _weights(folder):
    return load_file(folder / "model.safetensors")


def _put(folder, tensors):
    save_file(tensors, folder / "model.safetensors")


def _configure(folder, **differs):
    config = json.loads((folder / "config.json").read_text()) | differs
    (folder / "config.json").write_text(json.dumps(config))


def _shard(folder):
    """Two files and an index, as `transformers` cuts large models."""
    tensors = _weights(folder)
    names = sorted(tensors)
    files = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in files.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, part in files.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    return index


def _same(one, other):
    assert digest.of_leaves(one) == digest.of_leaves(other)


def test_leaves_are_those_of_the_module(small_bert, variables):
    """The table of names and shapes that files are checked by is what `init` makes."""
    for module in (small_bert, small_bert.clone(pooling="mean")):
        shapes = jax.eval_shape(module.init, KEY, jnp.zeros((1, 4), jnp.int32))
        flat = {path: leaf.shape for path, leaf in digest.flatten(shapes).items()}
        table = dict(bert.leaves_of(module))
        assert {path: leaf.shape[::-1] if leaf.turned else leaf.shape for path, leaf in table.items()} == flat


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_saved_module_comes_back_bit_for_bit(small_bert, fill, tmp_path, pooling):
    module = small_bert.clone(pooling=pooling, dropout=0.25, layer_norm_eps=1e-5, pad=3, activation="gelu_new")
    variables = fill(module)
    bert.save(tmp_path / "model", variables, module, {0: "a", 1: "b", 2: "c"})
    assert bert.module_of(tmp_path / "model", 3) == module
    loaded = bert.load(tmp_path / "model", module, KEY)
    _same(loaded.variables, variables)
    assert (loaded.fresh, loaded.unused) == ((), ())


def test_transformers_finds_what_it_looks_for(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"] and config["model_type"] == "bert"
    assert config["id2label"] == {"0": "no", "1": "perhaps", "2": "yes"} and config["label2id"]["yes"] == 2
    with safe_open(folder / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}
        assert "bert.encoder.layer.1.attention.self.query.weight" in file.keys()  # noqa: SIM118
        assert file.get_slice("bert.encoder.layer.0.intermediate.dense.weight").get_shape() == [24, 16]


def test_the_names_of_a_folders_classes(folder):
    assert bert.labels_of(folder) == ("no", "perhaps", "yes")
    _configure(folder, id2label=None)
    assert bert.labels_of(folder) == ()
    for wrong in (["no", "yes"], {"0": "no", "2": "yes"}, {"0": 1}, "no"):
        _configure(folder, id2label=wrong)
        with pytest.raises(UserError, match=r"id2label is .*; expected a name for each of '0', '1'"):
            bert.labels_of(folder)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_transformers_computes_what_jkd_does(small_bert, fill, ids, tmp_path, pooling):
    """Where it is installed, which jkd does not ask for: hidden states, and with `cls` the logits, to 1e-5."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch = pytest.importorskip("torch", reason="torch is not installed")
    module = small_bert.clone(pooling=pooling)
    variables = fill(module)
    bert.save(tmp_path, variables, module)
    logits, taps = module.apply(variables, ids)
    kind = transformers.BertForSequenceClassification if pooling == "cls" else transformers.BertModel
    theirs = kind.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        given = torch.from_numpy(np.array(ids)).long()
        found = theirs(input_ids=given, attention_mask=(given != 0).long(), output_hidden_states=True)
    mask = np.asarray(taps["mask"])[..., None]
    for n in range(module.depth):
        apart = (np.asarray(taps[f"layer{n}/hidden"]) - found.hidden_states[n + 1].numpy()) * mask
        assert np.abs(apart).max() <= 1e-5, n
    if pooling == "cls":
        np.testing.assert_allclose(logits, found.logits.numpy(), atol=1e-5)


def test_a_factorised_table_is_written_multiplied_out(small_bert, fill, ids, tmp_path):
    module = small_bert.clone(embedding_width=5)
    variables = fill(module)
    bert.save(tmp_path / "model", variables, module)
    whole = bert.module_of(tmp_path / "model", 3)
    loaded = bert.load(tmp_path / "model", whole, KEY)
    assert whole == small_bert
    np.testing.assert_allclose(whole.apply(loaded.variables, ids)[0], module.apply(variables, ids)[0], atol=1e-4)
    with pytest.raises(UserError, match="no factorised word table"):
        bert.load(tmp_path / "model", module, KEY)


def _without_prefix(folder, tensors):
    _put(folder, {name.removeprefix("bert."): value for name, value in tensors.items()})


def _position_ids(folder, tensors):
    _put(folder, tensors | {"bert.embeddings.position_ids": np.arange(20)[None]})


def _old_norms(folder, tensors):
    swap = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
    for new, old in swap:
        tensors = {name.replace(new, old): value for name, value in tensors.items()}
    _put(folder, tensors)


def _other_heads(folder, tensors):
    _put(folder, tensors | {"cls.predictions.bias": np.zeros(50, np.float32)})


@pytest.mark.parametrize("change", [_without_prefix, _position_ids, _old_norms, _other_heads, lambda f, t: _shard(f)])
def test_spellings_of_one_model_load_alike(small_bert, variables, folder, change):
    change(folder, _weights(folder))
    loaded = bert.load(folder, small_bert, KEY)
    _same(loaded.variables, variables)
    assert loaded.fresh == () and set(loaded.unused) <= {"bert.embeddings.position_ids", "cls.predictions.bias"}


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_16_bit_weights_become_float32(small_bert, folder, dtype):
    halves = {name: value.astype(dtype) for name, value in _weights(folder).items()}
    _put(folder, halves)
    loaded = bert.load(folder, small_bert, KEY).variables["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {jnp.dtype(jnp.float32)}
    query = halves["bert.encoder.layer.0.attention.self.query.weight"].astype(np.float32)
    np.testing.assert_array_equal(loaded["layer0_query"]["kernel"], query.T)


def test_heads_that_are_missing_or_of_other_classes_are_drawn_and_named(small_bert, folder):
    tensors = {name: value for name, value in _weights(folder).items() if "pooler" not in name}
    _put(folder, tensors)
    module = small_bert.clone(classes=7)
    loaded = bert.load(folder, module, KEY)
    heads = {f"params/{head}/{part}" for head in ("classifier", "pooler") for part in ("kernel", "bias")}
    assert set(loaded.fresh) == heads and loaded.unused == ("classifier.bias", "classifier.weight")
    kernel = loaded.variables["params"]["pooler"]["kernel"]
    assert 0.015 < kernel.std() < 0.025 and not loaded.variables["params"]["pooler"]["bias"].any()
    assert loaded.variables["params"]["classifier"]["kernel"].shape == (16, 7)
    _same(loaded.variables, bert.load(folder, module, KEY).variables)
    other = bert.load(folder, module, jax.random.key(1)).variables["params"]
    assert (other["pooler"]["kernel"] != kernel).any()


def test_a_classifier_of_another_pooling_is_not_taken(small_bert, folder):
    """It was trained on other features, though its shape would fit."""
    loaded = bert.load(folder, small_bert.clone(pooling="mean"), KEY)
    assert loaded.fresh == ("params/classifier/bias", "params/classifier/kernel")
    assert len(loaded.unused) == 4


def test_the_digest_is_of_the_files(small_bert, folder):
    before = bert.load(folder, small_bert, KEY).digest
    assert bert.load(folder, small_bert, jax.random.key(1)).digest == before
    tensors = _weights(folder)
    tensors["bert.pooler.dense.bias"][0] += 1
    _put(folder, tensors)
    assert bert.load(folder, small_bert, KEY).digest != before


@pytest.mark.fault(8, 9)
def test_every_mismatch_is_in_one_message(small_bert, folder):
    tensors = _weights(folder)
    del tensors["bert.encoder.layer.1.output.dense.bias"]
    del tensors["bert.pooler.dense.bias"]
    tensors["bert.encoder.layer.2.output.dense.bias"] = np.zeros(16, np.float32)
    tensors["bert.embeddings.word_embeddings.weight"] = np.zeros((49, 16), np.float32)
    tensors["bert.encoder.layer.0.output.dense.bias"] = np.zeros(16, np.float64)
    tensors["embeddings.position_embeddings.weight"] = np.zeros((20, 16), np.float32)
    _put(folder, tensors)
    with pytest.raises(UserError) as error:
        bert.load(folder, small_bert, KEY)
    assert str(error.value).split("\n  ")[1:] == [
        "there twice: 'bert.embeddings.position_embeddings.weight' and 'embeddings.position_embeddings.weight'",
        "wrong shape: bert.embeddings.word_embeddings.weight is [49, 16], expected [50, 16]",
        "wrong type: bert.encoder.layer.0.output.dense.bias is F64, expected one of F32, F16, BF16",
        "missing: encoder.layer.1.output.dense.bias [16]",
        "missing: pooler.dense.bias [16]",
        "not known: 'bert.encoder.layer.2.output.dense.bias' [16]",
    ]


@pytest.mark.fault(22)
def test_a_value_that_is_not_finite_is_refused_by_name(small_bert, folder):
    tensors = _weights(folder)
    tensors["bert.encoder.layer.1.output.LayerNorm.weight"][2] = np.nan
    _put(folder, tensors)
    with pytest.raises(UserError, match=r"'bert\.encoder\.layer\.1\.output\.LayerNorm\.weight' has 1 of 16 values"):
        bert.load(folder, small_bert, KEY)


@pytest.mark.fault(21)
def test_a_pickle_alone_is_refused_and_how_to_convert_it_said(small_bert, folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(UserError, match=r"(?s)pytorch_model\.bin but no model\.safetensors.*weights_only=True"):
        bert.load(folder, small_bert, KEY)


@pytest.mark.parametrize(
    ("differs", "message"),
    [
        (dict(model_type="roberta"), "model_type is 'roberta'; expected 'bert'"),
        (dict(position_embedding_type="relative_key"), "position_embedding_type is 'relative_key'"),
        (dict(is_decoder=True), "is_decoder is True"),
        (dict(hidden_act="swish"), "hidden_act is 'swish'"),
        (dict(hidden_act=["gelu"]), "hidden_act is"),
        (dict(vocab_size=10**12), "vocab_size is 1000000000000; expected a whole number from 1 to 16777216"),
        (dict(num_hidden_layers=10**9), "num_hidden_layers is 1000000000"),
        (dict(hidden_size="16"), "hidden_size is '16'"),
        (dict(num_attention_heads=True), "num_attention_heads is True"),
        (dict(num_attention_heads=3), "hidden_size 16 is not a multiple of num_attention_heads 3"),
        (dict(intermediate_size=None), "intermediate_size is None"),
        (dict(layer_norm_eps=-1), "layer_norm_eps is -1"),
        (dict(hidden_dropout_prob="much"), "hidden_dropout_prob is 'much'"),
        (dict(pad_token_id=50), "pad_token_id is 50; expected a whole number from 0 to 49"),
        (dict(jkd={"pooling": "max"}), "expected {'pooling': one of cls, mean}"),
    ],
)
@pytest.mark.fault(22)
def test_a_config_that_lies_or_asks_for_more_is_refused(folder, differs, message):
    _configure(folder, **differs)
    with pytest.raises(UserError, match=message):
        bert.module_of(folder, 3)


@pytest.mark.fault(22)
@pytest.mark.parametrize("content", [b"[]", b"{", b"[" * 100_000, b" " * (2**24 + 1)])
def test_a_config_that_is_none_is_refused(folder, content):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json"):
        bert.module_of(folder, 3)


def test_huge_claims_of_a_config_cost_nothing(folder):
    """Within its bounds it may still claim terabytes; shapes are compared before anything is allocated."""
    _configure(folder, vocab_size=2**24, hidden_size=2**16, intermediate_size=2**18)
    with pytest.raises(UserError, match=r"wrong shape: bert\.embeddings\.word_embeddings\.weight is \[50, 16\]"):
        bert.load(folder, bert.module_of(folder, 3), KEY)


def test_saving_what_does_not_belong_together_is_refused(small_bert, variables, tmp_path):
    with pytest.raises(UserError, match="layer2_attention_norm"):
        bert.save(tmp_path / "out", variables, small_bert.clone(depth=3))
    with pytest.raises(UserError, match="params/layer0_intermediate/kernel"):
        bert.save(tmp_path / "out", variables, small_bert.clone(feed_forward=8))
    with pytest.raises(UserError, match="id2label has 2 names; expected 0 to 2"):
        bert.save(tmp_path / "out", variables, small_bert, {0: "a", 1: "b"})
    assert not list(tmp_path.iterdir())


def test_hidden_states_equal_those_of_another_library(shared):
    folder, golden = shared / "data" / "all_minilm_l6_v2", np.load(shared / "golden" / "bert" / "minilm.npz")
    module = bert.module_of(folder, 2)
    loaded = bert.load(folder, module, KEY)
    assert loaded.unused == ("embeddings.position_ids",)
    assert loaded.fresh == ("params/classifier/bias", "params/classifier/kernel")
    _, taps = jax.jit(module.apply)(loaded.variables, golden["input_ids"])
    mask = golden["attention_mask"]
    np.testing.assert_array_equal(taps["mask"], mask)
    states = {"embeddings": "hidden_0"} | {f"layer{n}/hidden": f"hidden_{n + 1}" for n in range(6)}
    for ours, theirs in states.items():
        assert np.abs((taps[ours] - golden[theirs]) * mask[..., None]).max() <= 1e-4, ours
    for n in (0, 5):
        assert np.abs((taps[f"layer{n}/attention"] - golden[f"attention_{n}"]) * mask[:, None, :, None]).max() <= 1e-4
    np.testing.assert_allclose(taps["pooled"], golden["pooler_output"], atol=1e-4)
    mean = (golden["hidden_6"] * mask[..., None]).sum(1, dtype=np.float64) / mask.sum(1, keepdims=True)
    ours = np.asarray(taps["embedding"], np.float64)
    cosine = (mean * ours).sum(1) / np.linalg.norm(mean, axis=1) / np.linalg.norm(ours, axis=1)
    assert cosine.min() >= 0.99999
