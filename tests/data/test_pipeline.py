import functools
import multiprocessing
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.data import Images, batches, open_dataset, order
from jkd.data.sources import ArraySource

SIZE, BATCH = 23, 5


def _source(size: int = 40) -> ArraySource:
    pixels = np.arange(size, dtype=np.uint8).reshape(size, 1, 1, 1) * np.ones((1, 2, 3, 1), np.uint8)
    return ArraySource("set", ["a", "b"], [f"train/{i:03d}" for i in range(size)], np.arange(size) % 2, pixels)


SOURCE = _source()
INPUTS = {"input": Images(SOURCE.shape, (0.5,), (0.5,))}
SUBSET = np.arange(SIZE) + 10
LABELS = np.where(np.arange(SIZE) % 3, SUBSET % 2, -1)


def _stream(steps: int = 14, **differs: object):
    options = dict(inputs=INPUTS, batch=BATCH, steps=steps, per_call=1, seed=0, replicate=0)
    return batches(SOURCE, SUBSET, LABELS, **(options | differs))


@settings(deadline=None, max_examples=40)
@given(size=st.integers(1, 40), batch=st.integers(1, 60), seed=st.integers(0, 3), replicate=st.integers(0, 3))
def test_every_epoch_of_the_order_is_a_permutation(size, batch, seed, replicate):
    steps = -(-3 * size // batch)
    stream = np.concatenate([order(seed, replicate, size, batch, step) for step in range(steps)])
    for epoch in range(3):
        assert sorted(stream[epoch * size : (epoch + 1) * size]) == list(range(size))


@settings(deadline=None, max_examples=40)
@given(size=st.integers(1, 40), batch=st.integers(1, 60), step=st.integers(0, 50))
def test_a_batch_is_a_window_of_the_same_stream_whatever_its_size(size, batch, step):
    singles = [order(7, 1, size, 1, step * batch + j)[0] for j in range(batch)]
    np.testing.assert_array_equal(order(7, 1, size, batch, step), singles)


class Lengths(Images):
    """Images that claim a length each, as texts have one."""

    def sizes(self, source, index):
        return (np.asarray(index) * 7 % 4).astype(np.int32)


@settings(deadline=None, max_examples=40)
@given(
    group=st.integers(1, 9),
    batch=st.integers(1, 30),
    steps=st.integers(1, 20),
    start=st.integers(0, 19),
    per_call=st.integers(1, 5),
)
def test_groups_hold_the_samples_of_the_stream_sorted_by_length_wherever_it_starts(
    group, batch, steps, start, per_call
):
    lengths = {"input": Lengths(SOURCE.shape, (0.5,), (0.5,))}
    options = dict(inputs=lengths, batch=batch, steps=steps, group=group)
    group = min(group, max(1, SIZE // batch))  # not over an epoch

    def nodes(**differs):
        chunks = list(_stream(**(options | differs)))
        return np.concatenate([chunk["node"][: chunk["count"]] for chunk in chunks] or [np.zeros((0, batch), int)])

    whole = nodes()
    assert whole.shape == (steps, batch)
    np.testing.assert_array_equal(nodes(start_step=min(start, steps), per_call=per_call), whole[start:])
    for first in range(0, steps, group):
        found, count = whole[first : first + group], min(group, steps - first)
        stream = np.concatenate([order(0, 0, SIZE, batch, step) for step in range(first, first + count)])
        assert sorted(found.ravel()) == sorted(stream)
        sizes = lengths["input"].sizes(SOURCE, SUBSET[found])
        low, high = zip(*sorted((row.min(), row.max()) for row in sizes), strict=True)
        assert all(b <= a for a, b in zip(low[1:], high, strict=False))  # no two batches overlap in length


def test_groups_of_short_and_long_batches_come_mixed():
    lengths = {"input": Lengths(SOURCE.shape, (0.5,), (0.5,))}
    chunks = [chunk["node"][0] for chunk in _stream(46, inputs=lengths, batch=2, group=11)]
    longest = [int(lengths["input"].sizes(SOURCE, SUBSET[nodes]).max()) for nodes in chunks]
    assert sorted(longest[:11]) != longest[:11] and len(set(longest[:11])) == 4
    assert longest[:11] != longest[11:22]


@settings(deadline=None, max_examples=30)
@given(labelled=st.integers(1, BATCH), start=st.integers(0, 13), per_call=st.integers(1, 5))
def test_a_share_of_each_batch_has_labels_and_each_kind_its_epochs(labelled, start, per_call):
    whole = [chunk for chunk in _stream(steps=40, labelled=labelled)]
    for chunk in whole:
        assert np.count_nonzero(chunk["label"] >= 0) == labelled
    nodes = np.concatenate([chunk["node"].ravel() for chunk in whole])
    for kind in (LABELS >= 0, LABELS < 0):
        seen = nodes[kind[nodes]]
        for epoch in range(len(seen) // kind.sum()):
            part = seen[epoch * kind.sum() : (epoch + 1) * kind.sum()]
            assert sorted(part) == np.flatnonzero(kind).tolist()
    later = _stream(steps=40, labelled=labelled, start_step=start, per_call=per_call)
    rows = np.concatenate([chunk["node"][: int(chunk["count"])] for chunk in later])
    np.testing.assert_array_equal(rows, np.concatenate([chunk["node"] for chunk in whole])[start:])


def test_labelled_rows_are_dealt_over_the_batch_so_that_every_shard_has_some():
    for chunk in _stream(steps=3, batch=8, labelled=4):
        assert np.count_nonzero(chunk["label"].reshape(4, 2) >= 0, axis=1).tolist() == [1, 1, 1, 1]


def test_where_all_have_labels_a_share_of_them_changes_nothing():
    ours = batches(SOURCE, SUBSET, SUBSET % 2, inputs=INPUTS, batch=BATCH, steps=3, seed=0, replicate=0, labelled=2)
    plain = batches(SOURCE, SUBSET, SUBSET % 2, inputs=INPUTS, batch=BATCH, steps=3, seed=0, replicate=0)
    for one, other in zip(ours, plain, strict=True):
        np.testing.assert_array_equal(one["node"], other["node"])


def test_epochs_seeds_and_replicates_differ():
    orders = [
        order(seed, replicate, 40, 40, step) for seed, replicate, step in ((0, 0, 0), (0, 0, 1), (1, 0, 0), (0, 1, 0))
    ]
    assert len({each.tobytes() for each in orders}) == 4
    assert orders[0].dtype == np.int32


def test_batches_follow_the_order_and_their_arrays_belong_together():
    for step, chunk in enumerate(_stream()):
        at = order(0, 0, SIZE, BATCH, step)
        assert chunk["step"].tolist() == [step] and chunk["count"] == 1
        np.testing.assert_array_equal(chunk["node"][0], at)
        np.testing.assert_array_equal(chunk["id"][0], SUBSET[at])
        np.testing.assert_array_equal(chunk["label"][0], LABELS[at])
        np.testing.assert_array_equal(chunk["input"][0, :, 0, 0, 0], SUBSET[at])
    assert step == 13
    assert chunk["input"].shape == (1, BATCH, 2, 3, 1) and chunk["input"].dtype == np.uint8
    assert {chunk[name].dtype for name in ("node", "id", "label", "step", "count")} == {np.dtype(np.int32)}


@functools.cache
def _whole_stream():
    return [chunk["id"][0] for chunk in _stream()]


@settings(deadline=None, max_examples=40)
@given(start=st.integers(0, 14), per_call=st.integers(1, 6))
def test_starting_anywhere_in_chunks_of_any_size_gives_the_same_stream(start, per_call):
    whole = _whole_stream()
    parts = [chunk["id"][: chunk["count"]] for chunk in _stream(start_step=start, per_call=per_call)]
    resumed = np.concatenate(parts) if parts else np.empty((0, BATCH), np.int32)
    np.testing.assert_array_equal(resumed, np.array(whole[start:]).reshape(-1, BATCH))


def test_the_last_chunk_is_filled_by_repeating_its_last_step():
    chunks = list(_stream(steps=7, per_call=5))
    assert [int(chunk["count"]) for chunk in chunks] == [5, 2]
    assert chunks[1]["step"].tolist() == [5, 6, 6, 6, 6]
    np.testing.assert_array_equal(chunks[1]["input"][1], chunks[1]["input"][4])


def test_nodes_can_be_given_for_a_subset_of_the_pool():
    nodes = np.arange(SIZE)[::-1]
    chunk = next(_stream(nodes=nodes))
    np.testing.assert_array_equal(chunk["node"][0], nodes[order(0, 0, SIZE, BATCH, 0)])


def test_an_empty_subset_is_refused_before_the_first_batch():
    with pytest.raises(ValueError, match="0 samples, 0 labels"):
        batches(SOURCE, SUBSET[:0], LABELS[:0], inputs=INPUTS, batch=1, steps=1, seed=0, replicate=0)


def test_workers_change_neither_order_nor_content_and_leave_nothing_behind():
    plain = list(_stream(per_call=4))
    loaded = list(_stream(per_call=4, workers=2))
    assert len(plain) == len(loaded)
    for one, other in zip(plain, loaded, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
            assert type(other[name]) is np.ndarray
    assert multiprocessing.active_children() == []


def test_stopping_early_ends_worker_processes():
    stream = _stream(workers=1)
    next(stream)
    assert multiprocessing.active_children()
    stream.close()
    assert multiprocessing.active_children() == []


def test_stopping_early_ends_decoding_threads():
    source = _source()
    source.in_memory = False
    stream = batches(source, SUBSET, LABELS, inputs=INPUTS, batch=BATCH, steps=100, seed=0, replicate=0)
    np.testing.assert_array_equal(next(stream)["node"][0], order(0, 0, SIZE, BATCH, 0))
    del stream
    deadline = time.monotonic() + 5
    while any("grain" in thread.name for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [thread for thread in threading.enumerate() if "grain" in thread.name]


def test_a_set_decoded_on_demand_streams_the_same(settings, image_files, write_folder, tmp_path, monkeypatch):
    root = write_folder(tmp_path, image_files())
    options = dict(batch=4, steps=6, seed=0, replicate=0)
    whole = open_dataset(settings(path=root)).train
    monkeypatch.setattr("jkd.data.images.IN_MEMORY_BYTES", 0)
    lazy = open_dataset(settings(path=root)).train
    index = np.arange(6)
    for one, other in zip(
        batches(whole, index, whole.labels, inputs=INPUTS, **options),
        batches(lazy, index, lazy.labels, inputs=INPUTS, **options),
        strict=True,
    ):
        np.testing.assert_array_equal(one["input"], other["input"])
