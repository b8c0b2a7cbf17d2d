import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jkd.evaluate import bootstrap, percentiles, resampled_means, resampled_runs
from jkd.evaluate.bootstrap import BLOCK

quick = settings(derandomize=True, deadline=None, max_examples=25)


@pytest.mark.parametrize(("share", "size"), [(0.9, 600), (0.5, 400), (0.7, 2000)])
def test_the_interval_of_a_bernoulli_is_that_of_the_normal_approximation(share: float, size: int) -> None:
    right = (np.arange(size) < share * size).astype(float)
    ((mean, low, high),) = bootstrap(right[:, None])
    half = 1.959964 * math.sqrt(share * (1 - share) / size)
    assert mean == pytest.approx(share)
    assert (low, high) == pytest.approx((share - half, share + half), abs=0.06 * half + 1 / size)


def test_means_over_resamples_are_centred_with_the_spread_of_a_mean() -> None:
    scores = np.random.default_rng(0).normal(size=(300, 2))
    means = resampled_means(scores)
    assert means.shape == (10_000, 2)
    np.testing.assert_allclose(means.mean(0), scores.mean(0), atol=4 * scores.std() / math.sqrt(300 * 10_000))
    np.testing.assert_allclose(means.std(0), scores.std(0) / math.sqrt(300), rtol=0.04)


@quick
@given(st.integers(0, 10**6), st.integers(1, 50))
def test_every_column_sees_the_same_draws_and_a_mean_lies_in_its_interval(seed: int, size: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 2, (size, 2)).astype(float)
    means = resampled_means(np.column_stack([scores, scores[:, 0] - scores[:, 1]]), 200)
    np.testing.assert_allclose(means[:, 0] - means[:, 1], means[:, 2], atol=1e-12)
    assert (means.min(0) >= [0, 0, -1]).all() and (means.max(0) <= 1).all()
    for mean, low, high in bootstrap(scores, resamples=200):
        assert low <= mean + 0.25 and high >= mean - 0.25 and low <= high


def test_two_calls_give_the_same_bytes_and_blocks_are_not_repeated() -> None:
    scores = np.random.default_rng(1).random((BLOCK // 8, 1))
    means = resampled_means(scores, 24)  # three blocks
    assert means.tobytes() == resampled_means(scores, 24).tobytes()
    assert len(np.unique(means)) == 24


def test_equal_scores_have_an_interval_of_no_width() -> None:
    ((mean, low, high),) = bootstrap(np.ones((7, 1)), resamples=50)
    assert mean == low == high == 1


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="N >= 1"):
        bootstrap(np.zeros((0, 1)))


@quick
@given(st.integers(2, 8), st.integers(0, 3))
def test_every_draw_of_runs_is_of_as_many_and_of_two_different_ones(runs: int, group: int) -> None:
    times = resampled_runs(runs, group, 300)
    assert times.shape == (300, runs) and (times == np.rint(times)).all() and times.min() >= 0
    assert (times.sum(axis=1) == runs).all() and ((times > 0).sum(axis=1) >= 2).all()
    assert times.tobytes() == resampled_runs(runs, group, 300).tobytes()
    if runs > 2:  # two can be drawn in one way
        assert times.tobytes() != resampled_runs(runs, group + 1, 300).tobytes()


def test_runs_are_drawn_as_often_as_by_chance() -> None:
    times = resampled_runs(3)
    everyone = (times == 1).all(axis=1).mean()  # 6 of the 24 draws of three that are not of one alone
    assert everyone == pytest.approx(1 / 4, abs=0.02)
    np.testing.assert_allclose(times.mean(axis=0), 1, atol=0.03)


def test_a_lone_run_cannot_be_drawn_in_pairs() -> None:
    with pytest.raises(ValueError, match="two runs or more"):
        resampled_runs(1)


def test_percentiles_leave_out_a_share_at_both_ends() -> None:
    assert percentiles(7.0, np.arange(101.0), 0.9) == pytest.approx((7, 5, 95))
