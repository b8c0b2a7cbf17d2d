import math

import pytest

from jkd.evaluate import Interval, interval, paired, student_t_quantile

# upper 2.5 % points of Student's t, from printed tables
TABLE = {1: 12.7062, 2: 4.30265, 4: 2.77645, 10: 2.22814, 15: 2.13145, 30: 2.04227, 120: 1.97993}


@pytest.mark.parametrize(("freedom", "expected"), TABLE.items())
def test_t_quantile_equals_the_printed_table(freedom, expected):
    assert student_t_quantile(0.975, freedom) == pytest.approx(expected, abs=6e-5)


def test_t_quantile_equals_scipy():
    stats = pytest.importorskip("scipy.stats")
    for freedom in (1, 2, 2.5, 7, 15, 100, 10_000):
        for probability in (0.001, 0.05, 0.5001, 0.75, 0.95, 0.975, 0.995, 0.99999):
            expected = stats.t.ppf(probability, freedom)
            assert student_t_quantile(probability, freedom) == pytest.approx(expected, rel=1e-8)


def test_t_quantile_is_odd_and_tends_to_the_normal():
    assert student_t_quantile(0.025, 9) == -student_t_quantile(0.975, 9)
    assert student_t_quantile(0.5, 9) == 0
    assert student_t_quantile(0.975, 1e7) == pytest.approx(1.959964, abs=1e-6)


def test_interval_by_hand():
    mean, sd, n, low, high = interval([1.0, 2.0, 3.0, 4.0])
    assert (mean, n) == (2.5, 4)
    assert sd == pytest.approx(math.sqrt(5 / 3))
    half = 3.18245 * math.sqrt(5 / 3) / 2
    assert (low, high) == pytest.approx((2.5 - half, 2.5 + half), abs=1e-4)


def test_interval_of_one_value_is_its_mean_alone_and_of_none_nothing():
    assert interval([0.5]) == Interval(0.5, None, 1, None, None)
    assert interval([]) == Interval(None, None, 0, None, None)


def test_interval_does_not_depend_on_the_order():
    values = [0.1, 0.7, 0.3, 1e-9, 12.5]
    assert interval(values) == interval(values[::-1])


def test_interval_grows_with_confidence():
    assert interval([1.0, 2.0, 4.0], 0.99).high > interval([1.0, 2.0, 4.0], 0.9).high


def test_paired_is_the_interval_of_the_differences():
    assert paired([3.0, 5.0, 4.0], [1.0, 2.0, 3.0]) == interval([2.0, 3.0, 1.0])
    assert paired([2.0], [1.0]) == Interval(1.0, None, 1, None, None)
    with pytest.raises(ValueError):
        paired([1.0], [1.0, 2.0])
