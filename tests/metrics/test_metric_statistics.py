"""Intervals cover what they should, standard errors are the textbook's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from workbench.metrics.statistics import (
    bootstrap_median,
    bootstrap_ratio,
    cluster_sums,
    draw_variance,
    jackknife,
    paired_difference,
    ratio,
    student_quantile,
    student_tail,
)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 8, 20, 100, 5000])
@pytest.mark.parametrize("p", [0.9, 0.95, 0.975])
def test_student_quantile(df: int, p: float) -> None:
    assert student_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-6)
    assert student_quantile(1 - p, df) == pytest.approx(-student_quantile(p, df))


@pytest.mark.parametrize("df", [1, 2, 3, 4, 7, 30, 999])
@pytest.mark.parametrize("t", [-1.3, 0.0, 2.0, 12.0, 50.0])
def test_student_tail(df: int, t: float) -> None:
    assert student_tail(t, df) == pytest.approx(stats.t.sf(t, df), rel=1e-5, abs=1e-15)


def test_ratio_of_equal_denominators_is_the_mean_with_its_standard_error() -> None:
    x = np.random.default_rng(0).normal(3, 1, 40)
    found = ratio(x, np.full(40, 2.0))
    assert found.value == pytest.approx(x.mean() / 2)
    assert found.se == pytest.approx(stats.sem(x) / 2)
    low, high = stats.t.interval(0.95, 39, x.mean() / 2, stats.sem(x) / 2)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-4)


def ratios(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of uneven size whose nats go with their bytes: true ratio 1.5."""
    below = rng.gamma(4, 50, n)
    return below * rng.gamma(9, 1.5 / 9, n), below


def test_ratio_interval_covers() -> None:
    rng = np.random.default_rng(1)
    intervals = [ratio(*ratios(rng, 40)) for _ in range(1000)]
    covered = np.mean([found.low <= 1.5 <= found.high for found in intervals])
    assert 0.92 < covered < 0.975
    spread = np.std([found.value for found in intervals])
    assert np.mean([found.se for found in intervals]) == pytest.approx(spread, rel=0.08)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_bootstrap_interval_covers(method: str) -> None:
    rng = np.random.default_rng(2)
    intervals = [bootstrap_ratio(*ratios(rng, 40), resamples=500, method=method) for _ in range(400)]
    covered = np.mean([found.low <= 1.5 <= found.high for found in intervals])
    assert 0.90 < covered < 0.98


def test_bca_follows_the_skew() -> None:
    """On skewed data the percentile interval misses on one side; BCa balances its misses."""
    rng = np.random.default_rng(3)
    samples = [rng.exponential(1.0, 20) for _ in range(600)]
    tilt = {}
    for method in ("percentile", "bca"):
        found = [bootstrap_ratio(x, resamples=600, method=method) for x in samples]
        tilt[method] = np.mean([f.high < 1 for f in found]) - np.mean([f.low > 1 for f in found])
    assert tilt["percentile"] > 0.04
    assert abs(tilt["bca"]) < 0.75 * tilt["percentile"]


def test_bootstrap_is_seeded_and_agrees_with_scipy() -> None:
    x = np.random.default_rng(4).gamma(2, 1, 60)
    found = bootstrap_ratio(x, seed=7)
    assert found == bootstrap_ratio(x, seed=7)
    assert found != bootstrap_ratio(x, seed=8)
    ours = bootstrap_ratio(x, resamples=20000)
    other = stats.bootstrap((x,), np.mean, n_resamples=20000, method="BCa", random_state=0).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((other.low, other.high), abs=0.02)


def test_degenerate_units() -> None:
    assert bootstrap_ratio(np.array([2.0])).low is None
    assert ratio(np.array([2.0]), np.array([4.0])).se is None
    same = bootstrap_ratio(np.full(10, 0.3))
    assert (same.low, same.high) == pytest.approx((0.3, 0.3))
    sparse = bootstrap_ratio(np.array([1.0, 0, 0]), np.array([2.0, 0, 0]))
    assert sparse.value == sparse.low == sparse.high == 0.5
    with pytest.raises(ValueError, match="over nothing"):
        bootstrap_ratio(np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match="over nothing"):
        ratio(np.zeros(3), np.zeros(3))


def test_cluster_sums() -> None:
    assert cluster_sums(np.array([1.0, 2, 4]), np.array([7, 3, 7])).tolist() == [2, 5]
    assert cluster_sums(np.array([1.0, 2]), None).tolist() == [1, 2]


def test_draw_variance_of_independent_draws_is_unbiased_and_ignores_the_trend() -> None:
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 2, (20000, 8))
    assert draw_variance(noise).mean() == pytest.approx(4 / 8, rel=0.03)
    trend = noise + np.linspace(0, 10, 8)
    assert draw_variance(trend).mean() < 0.35 * (trend.var(axis=1, ddof=1) / 8).mean()


def test_jackknife_of_a_mean_is_the_standard_error() -> None:
    x = np.random.default_rng(6).normal(size=30)
    found = jackknife(x.mean(), (x.sum() - x) / 29)
    assert found.se == pytest.approx(stats.sem(x))


def test_bootstrap_median() -> None:
    rng = np.random.default_rng(7)
    found = [bootstrap_median(rng.normal(100, 5, 50), resamples=500) for _ in range(200)]
    assert 0.89 < np.mean([f.low <= 100 <= f.high for f in found]) <= 0.99
    long = rng.normal(100, 5, 30_000)
    assert bootstrap_median(long).value == np.median(long)


def test_paired_difference_takes_out_what_is_common() -> None:
    rng = np.random.default_rng(8)
    common = rng.normal(0, 10, 50)
    found = paired_difference(common + 0.5 + rng.normal(0, 0.1, 50), common)
    assert found.low < 0.5 < found.high
    assert found.se < 0.05
    with pytest.raises(ValueError, match="different shapes"):
        paired_difference(np.zeros(3), np.zeros(4))
