import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd import digest
from jkd.errors import UserError
from jkd.layer_map import layer_map
from jkd.pretrained import shrink


@pytest.mark.parametrize(
    ("teacher", "student", "choice", "layers"),
    [
        (12, 4, "uniform", (2, 5, 8, 11)),  # as TinyBERT
        (12, 6, "uniform", (1, 3, 5, 7, 9, 11)),
        (6, 4, "uniform", (0, 2, 3, 5)),
        (12, 5, "uniform", (1, 3, 6, 8, 11)),
        (6, 3, "first", (0, 1, 2)),
        (6, 3, "last", (3, 4, 5)),
        (6, 2, (1, 4), (1, 4)),
        (6, 2, [0, 5], (0, 5)),
    ],
)
def test_layer_choices(teacher, student, choice, layers):
    assert shrink.layers_of(teacher, student, choice) == layers


@given(teacher=st.integers(1, 48), data=st.data())
def test_a_layer_learns_from_the_one_that_it_comes_from(teacher, data):
    student = data.draw(st.integers(1, teacher))
    assert shrink.layers_of(teacher, student, "uniform") == tuple(b for _, b in layer_map("uniform", student, teacher))


@given(teacher=st.integers(1, 48), data=st.data())
def test_uniform_layers_rise_and_end_with_the_last(teacher, data):
    student = data.draw(st.integers(1, teacher))
    layers = shrink.layers_of(teacher, student, "uniform")
    assert len(layers) == student and layers[-1] == teacher - 1 and layers[0] >= 0
    gaps = np.diff((-1, *layers))
    assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("choice", ["middle", (0,), (1, 1), (2, 1), (0, 6), (-1, 2), (0, 1, 2)])
def test_layers_that_cannot_be_are_refused(choice):
    with pytest.raises(UserError, match="expected 'uniform', 'first', 'last', or 2 rising numbers from 0 to 5"):
        shrink.layers_of(6, 2, choice)


def test_more_layers_than_the_teacher_has_are_refused():
    with pytest.raises(UserError, match="a student of 3 layers cannot be taken from 2"):
        shrink.layers_of(2, 3, "uniform")


def test_the_first_layers_compute_what_they_did(small_bert, variables, ids):
    _, taps = small_bert.apply(variables, ids)
    student = small_bert.clone(depth=1)
    cut = shrink.take_layers(variables, (0,))
    _, ours = student.apply(cut, ids)
    np.testing.assert_array_equal(ours["layer0/hidden"], taps["layer0/hidden"])
    last = shrink.take_layers(variables, (1,))["params"]
    for name in ("layer0_query", "layer0_output_norm", "layer0_attention_output"):
        assert last[name] is variables["params"][name.replace("layer0", "layer1")]
    assert not [name for name in last if name.startswith("layer1")]
    with pytest.raises(UserError, match="no layer 7"):
        shrink.take_layers(variables, (0, 7))


def test_layers_of_two_digits_are_not_mixed_up(small_bert, fill):
    variables = fill(small_bert.clone(depth=12, width=4, feed_forward=4, heads=1))
    params = shrink.take_layers(variables, (1, 11))["params"]
    assert params["layer0_query"] is variables["params"]["layer1_query"]
    assert params["layer1_query"] is variables["params"]["layer11_query"]


def test_full_rank_factors_are_the_same_network(small_bert, variables, ids):
    module = small_bert.clone(embedding_width=16)
    logits, _ = module.apply(shrink.factorise(variables, 16), ids)
    np.testing.assert_allclose(logits, small_bert.apply(variables, ids)[0], atol=1e-3)


@settings(max_examples=20, deadline=None)
@given(rank=st.integers(1, 8), seed=st.integers(0, 99))
def test_no_factors_of_a_rank_come_nearer(rank, seed):
    """What is left is the root of the sum of the squares of the other singular values (Eckart and Young)."""
    table = np.random.default_rng(seed).normal(size=(30, 8))
    variables = {"params": {"word": {"embedding": jnp.asarray(table, jnp.float32)}, "other": {"x": jnp.ones(1)}}}
    made = shrink.factorise(variables, rank)["params"]
    factors = np.asarray(made["word"]["embedding"]), np.asarray(made["projection"]["kernel"])
    assert factors[0].shape == (30, rank) and factors[1].shape == (rank, 8) and made["other"]["x"] == 1
    left = np.sqrt((np.linalg.svd(table, compute_uv=False)[rank:] ** 2).sum())
    np.testing.assert_allclose(np.linalg.norm(table - factors[0] @ factors[1]), left, atol=1e-3)
    np.testing.assert_allclose(factors[1] @ factors[1].T, np.eye(rank), atol=1e-4)
    largest = factors[1][np.arange(rank), np.abs(factors[1]).argmax(1)]
    assert (largest > 0).all()
    np.testing.assert_array_equal(shrink.narrow_table(variables, rank), factors[0])


def test_a_rank_beyond_the_table_is_refused(variables):
    for rank in (0, 17):
        with pytest.raises(UserError, match=r"directions of a word table \[50, 16\]; expected 1 to 16"):
            shrink.factorise(variables, rank)


def test_kept_words_compute_what_they_did(small_bert, variables, ids):
    kept = [int(word) for word in [0, *np.unique(ids[ids != 0])[::-1]]]
    cut, pad = shrink.keep_words(variables, kept)
    renumbered = jnp.asarray(np.vectorize(kept.index)(np.asarray(ids)), jnp.int32)
    module = small_bert.clone(vocab=len(kept))
    assert pad == 0 and cut["params"]["word"]["embedding"].shape == (len(kept), 16)
    np.testing.assert_array_equal(module.apply(cut, renumbered)[0], small_bert.apply(variables, ids)[0])
    _, moved = shrink.keep_words(variables, [5, 0, 7])
    assert moved == 1


@pytest.mark.parametrize("kept", [[0, 50], [0, -1], [0, 3, 3], [1, 2]])
def test_words_that_cannot_be_kept_are_refused(variables, kept):
    with pytest.raises(UserError, match="expected each once, from 0 to 49, and the padding 0 among them"):
        shrink.keep_words(variables, kept)


def test_fewer_positions_compute_what_they_did(small_bert, variables, ids):
    cut = shrink.keep_positions(variables, 6)
    logits, _ = small_bert.clone(positions=6).apply(cut, ids)
    np.testing.assert_array_equal(logits, small_bert.apply(variables, ids)[0])
    with pytest.raises(UserError, match="positions: 21 of a table of 20"):
        shrink.keep_positions(variables, 21)


def test_narrowing_to_the_same_size_changes_nothing(small_bert, variables):
    assert digest.of_tree(shrink.narrow(variables, small_bert, 16, 4, 24)) == digest.of_tree(variables)


def test_units_that_do_nothing_are_the_first_to_go(small_bert, variables, ids):
    """Dead heads, dead feed-forward units and dead units of a head are cut without a change of any hidden state."""
    params = {name: dict(leaf) for name, leaf in variables["params"].items()}
    dead = jnp.array([4, 5, 6, 7, 8, 9, 10, 11])  # heads 1 and 2 of 4
    for n in range(2):
        for name in ("query", "key", "value"):
            params[f"layer{n}_{name}"]["kernel"] = params[f"layer{n}_{name}"]["kernel"].at[:, dead].set(0)
        params[f"layer{n}_attention_output"]["kernel"] = params[f"layer{n}_attention_output"]["kernel"].at[dead].set(0)
        params[f"layer{n}_output"]["kernel"] = params[f"layer{n}_output"]["kernel"].at[::2].set(0)
    before = {"params": params}
    cut = shrink.narrow(before, small_bert, 16, 4, 12)
    student = small_bert.clone(feed_forward=12)
    _, taps = small_bert.apply(before, ids)
    np.testing.assert_allclose(student.apply(cut, ids)[1]["layer1/hidden"], taps["layer1/hidden"], atol=1e-5)
    chosen = shrink.narrow(before, small_bert, 8, 2, 24)["params"]["layer0_value"]
    np.testing.assert_array_equal(
        chosen["bias"], params["layer0_value"]["bias"][jnp.array([0, 1, 2, 3, 12, 13, 14, 15])]
    )


def test_products_of_query_and_key_that_stay_count_as_before(small_bert, variables, ids):
    """Two dead units of four a head: cutting them leaves the scores as they are, though d is in their scale."""
    params = {name: dict(leaf) for name, leaf in variables["params"].items()}
    dead = jnp.array([1, 3, 4, 7, 8, 10, 13, 14])
    for part in ("query", "key"):
        leaf = params[f"layer0_{part}"]
        params[f"layer0_{part}"] = {"kernel": leaf["kernel"].at[:, dead].set(0), "bias": leaf["bias"].at[dead].set(0)}
    cut = shrink.narrow({"params": params}, small_bert, 8, 4, 24)["params"]
    live = np.setdiff1d(np.arange(16), dead)
    np.testing.assert_allclose(cut["layer0_key"]["bias"], params["layer0_key"]["bias"][live])
    np.testing.assert_allclose(
        cut["layer0_query"]["bias"], params["layer0_query"]["bias"][live] * np.sqrt(0.5), rtol=1e-6
    )


def test_the_widest_coordinates_stay(small_bert, variables):
    params = dict(variables["params"])
    loud = jnp.array([1, 2, 5, 6, 9, 11, 12, 15])
    params["word"] = {"embedding": params["word"]["embedding"].at[:, loud].multiply(50)}
    params["embedding_norm"] = {"scale": jnp.ones(16), "bias": jnp.arange(16.0)}
    cut = shrink.narrow({"params": params}, small_bert, 8, 2, 24)["params"]
    np.testing.assert_array_equal(cut["embedding_norm"]["bias"], loud.astype(jnp.float32))
    np.testing.assert_array_equal(cut["word"]["embedding"], params["word"]["embedding"][:, loud])
    np.testing.assert_array_equal(cut["classifier"]["kernel"], params["classifier"]["kernel"][loud])


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((32, 4, 24), "width: 32 cannot be cut out of 16"),
        ((16, 4, 25), "feed_forward: 25 cannot be cut out of 24"),
        ((16, 2, 24), "heads: 2 of 16 / 2 units cannot be cut out of 4 of 4"),
        ((9, 2, 24), "heads: 2 of 9 / 2 units"),
    ],
)
def test_what_would_grow_is_refused(small_bert, variables, sizes, message):
    with pytest.raises(UserError, match=message):
        shrink.narrow(variables, small_bert, *sizes)


STUDENTS = {
    "shallow": dict(depth=1),
    "narrow": dict(width=8, heads=2, feed_forward=12),
    "thin heads": dict(width=8),
    "factorised": dict(embedding_width=4),
    "everything": dict(depth=1, width=8, heads=2, feed_forward=6, embedding_width=4, positions=8, types=1, vocab=30),
    "mean": dict(pooling="mean"),
    "classes": dict(classes=7),
}


@pytest.mark.parametrize("name", STUDENTS)
def test_a_start_fits_the_student_and_takes_all_that_it_can(small_bert, variables, fill, ids, name):
    student = small_bert.clone(**STUDENTS[name])
    fresh = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 7.0), fill(student))
    kept = range(30) if student.vocab == 30 else None
    before = digest.of_tree(variables)
    made = shrink.start(small_bert, variables, student, fresh, kept=kept)
    assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, fresh)
    left = {path.split("/")[1] for path, leaf in digest.flatten(made).items() if (leaf == 7).all()}
    assert left == ({"classifier"} if name in ("mean", "classes") else set())
    assert digest.of_tree(variables) == before
    logits, _ = student.apply(made, ids)
    assert np.isfinite(logits).all()


def test_a_start_of_the_same_size_is_the_teacher(small_bert, variables):
    assert digest.of_tree(shrink.start(small_bert, variables, small_bert, variables)) == digest.of_tree(variables)


def test_a_start_with_other_words_asks_which(small_bert, variables, fill):
    student = small_bert.clone(vocab=30)
    with pytest.raises(UserError, match=r"50 words with padding 0 for a student of 30 with 0\. Give the ids to keep"):
        shrink.start(small_bert, variables, student, fill(student))


def test_a_start_with_another_activation_is_refused(small_bert, variables):
    student = small_bert.clone(activation="relu")
    with pytest.raises(UserError, match=r"'relu' for a student of a teacher with 'gelu'\. Set that"):
        shrink.start(small_bert, variables, student, variables)


def test_a_start_from_a_factorised_teacher_keeps_its_rank(small_bert, fill):
    teacher = small_bert.clone(embedding_width=5)
    student = teacher.clone(width=8, heads=2)
    made = shrink.start(teacher, fill(teacher), student, fill(student))
    assert made["params"]["word"]["embedding"].shape == (50, 5)
    other = small_bert.clone(embedding_width=4)
    with pytest.raises(UserError, match=r"does not fit in its teacher: projection/kernel \[5, 16\] for \[4, 16\]"):
        shrink.start(teacher, fill(teacher), other, fill(other))
