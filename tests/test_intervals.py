"""Tests of intervals and paired comparisons against slow loops and cases worked by hand."""

import itertools

import numpy as np
import pytest

from pconv_jax.evaluation import intervals


def test_bootstrap_equals_a_loop():
    """The interval equals percentiles of means from a loop over resamples; all columns take the same rows."""
    values = np.random.default_rng(1).normal(size=(7, 2))
    rng, means = np.random.default_rng(0), []
    for _ in range(2000):
        rows = rng.integers(0, 7, 7)
        means.append([sum(values[row, column] for row in rows) / 7 for column in range(2)])
    low, high = intervals.bootstrap(values)
    np.testing.assert_allclose([low, high], np.percentile(means, [2.5, 97.5], axis=0))
    assert intervals.RESAMPLES == 2000 and intervals.LEVEL == 0.95


def test_bootstrap_does_not_depend_on_how_much_is_computed_at_once(monkeypatch):
    """The interval does not depend on the size of the chunks, nor on the other columns."""
    values = np.random.default_rng(1).normal(size=(50, 3))
    whole = intervals.bootstrap(values)
    monkeypatch.setattr(intervals, "_CHUNK", 1000)
    np.testing.assert_array_equal(intervals.bootstrap(values), whole)
    np.testing.assert_allclose(intervals.bootstrap(values[:, 1:2]), np.asarray(whole)[:, 1:2], rtol=1e-12)


def test_bootstrap_of_two_by_hand():
    """Means of resamples of (0, 1) are 0, 1/2 or 1 with probabilities 1/4, 1/2, 1/4, so the 95 % interval is [0, 1]."""
    low, high = intervals.bootstrap(np.array([[0.0], [1.0]]))
    assert (low[0], high[0]) == (0, 1)
    assert intervals.bootstrap(np.full((5, 1), 3.0)) == ([3.0], [3.0])
    with pytest.raises(ValueError, match="1 example has no interval"):
        intervals.bootstrap(np.zeros((1, 1)))


def test_intervals_cover_the_truth_nearly_as_often_as_they_say():
    """About 92 % of the intervals of 16 normal values contain the mean, a little too few, as the module states."""
    rng = np.random.default_rng(0)
    bounds = [intervals.bootstrap(rng.normal(size=(16, 1))) for _ in range(1000)]
    assert 0.9 < np.mean([low[0] < 0 < high[0] for low, high in bounds]) < 0.95


def test_paired_test_by_hand():
    """p is exact: of 32 ways to sign the ranks 1 to 5, those with a negative sum of at most 1 count, two-sided."""
    difference = np.array([3.0, 1.5, 4.0, -0.5, 2.0])
    base = np.array([20.0, 31.0, 25.0, 28.0, 22.0])
    result = intervals.paired(base + difference, base)
    ranks = [4, 2, 5, 1, 3]
    negative = [sum(r for r, s in zip(ranks, signs, strict=True) if s) for signs in itertools.product((0, 1), repeat=5)]
    assert result.p == pytest.approx(2 * np.mean(np.array(negative) <= 1)) == pytest.approx(4 / 32)
    assert result.difference == pytest.approx(2.0) and result.low < 2 < result.high
    low, high = intervals.bootstrap(difference[:, None])
    assert (result.low, result.high) == pytest.approx((low[0], high[0]))


def test_paired_test_is_antisymmetric():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 60))
    one, other = intervals.paired(first, second), intervals.paired(second, first)
    assert one.difference == -other.difference and one.p == pytest.approx(other.p)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_pairing_sees_what_intervals_of_the_means_do_not():
    """A small difference on every example is found although the examples differ a hundred times as much."""
    rng = np.random.default_rng(0)
    base = rng.normal(30, 10, 50)
    better = base + rng.uniform(0.05, 0.15, 50)
    result = intervals.paired(better, base)
    assert result.p < 1e-8 and 0.09 < result.low < result.difference < result.high < 0.12
    (low,), (high,) = intervals.bootstrap(better[:, None])
    assert high - low > 4


def test_paired_test_without_a_difference():
    """Without differences p is 1; ties are left out; one pair has no interval."""
    values = np.arange(5.0)
    assert intervals.paired(values, values) == intervals.Paired(0.0, 0.0, 0.0, 1.0)
    tied = intervals.paired(np.array([1.0, 2, 3, 4, 9]), np.array([0.0, 1, 2, 3, 9]))
    assert tied.p == pytest.approx(2 / 16) and tied.difference == 0.8
    assert intervals.paired(np.array([2.0]), np.array([1.0])) == intervals.Paired(1.0, None, None, 1.0)
