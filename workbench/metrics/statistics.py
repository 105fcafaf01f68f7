"""Standard errors and intervals: ratio estimators, bootstrap, paired differences. Seeded."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

Floats = npt.NDArray[np.float64]
LEVEL = 0.95
"""Coverage of every interval."""
SIDE = (1 - LEVEL) / 2
"""Level of a one-sided test, 2.5 %: what one shows is what the 95 % interval beside it shows, equivalence too."""
RESAMPLES = 2000
"""Bootstrap resamples."""
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Estimate:
    """A figure with its standard error and its 95 % interval; None where one unit leaves no room for them."""

    value: float
    se: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0


def by_student(value: float, se: float, df: int, n: int = 0) -> Estimate:
    """A figure with the interval of Student's law; ``df`` 0: of the normal law."""
    half = (student_quantile(0.5 + LEVEL / 2, df) if df else NormalDist().inv_cdf(0.5 + LEVEL / 2)) * se
    return Estimate(value, se, value - half, value + half, n)


def by_normal(value: float, se: float, n: int = 0) -> Estimate:
    """A figure with the interval of the normal law."""
    return by_student(value, se, 0, n)


def student_tail(t: float, df: int) -> float:
    """P(T > t) of Student's law."""
    return float(stdtr(df, -t))


def student_quantile(p: float, df: int) -> float:
    """Quantile of Student's law."""
    return float(stdtrit(df, p))


def cluster_sums(values_N: Floats, cluster_N: npt.NDArray[np.int64] | None) -> Floats:
    """Sums of ``values`` by cluster, in order of cluster id; the values themselves where there are no
    clusters.
    """
    if cluster_N is None:
        return np.asarray(values_N, dtype=np.float64)
    _, index = np.unique(cluster_N, return_inverse=True)
    return np.bincount(index, weights=values_N).astype(np.float64)


def ratio(above_N: Floats, below_N: Floats) -> Estimate:
    """Σ above / Σ below over independent units, with the linearised (delta-method) standard error and a t
    interval.

    se² = n/(n−1) Σ (above_i − r·below_i)² / (Σ below)²  (Cochran 1977, §6.4, without finite-population
    correction).
    """
    above, below = np.asarray(above_N, dtype=np.float64), np.asarray(below_N, dtype=np.float64)
    n, total = len(above), float(below.sum())
    if total <= 0:
        raise ValueError("a ratio over nothing: the denominators sum to zero")
    value = float(above.sum()) / total
    if n < 2:
        return Estimate(value, n=n)
    se = float(np.sqrt(n / (n - 1) * np.square(above - value * below).sum())) / total
    half = student_quantile(0.5 + LEVEL / 2, n - 1) * se
    return Estimate(value, se, value - half, value + half, n)


def draw_variance(nats_BK: Floats) -> Floats:
    """Variance [B] of each block's mean over its K ≥ 2 noise draws, by successive differences.

    The draws of a block are stratified in time: their spread holds the trend over time, which stratifying
    takes out of the mean. Differences of neighbouring strata hold little of it (Wolter 2007, §8.2, estimator
    v₂).
    """
    draws = nats_BK.shape[1]
    return np.asarray(np.square(np.diff(nats_BK, axis=1)).sum(1) / (2 * (draws - 1) * draws))


def bootstrap_ratio(
    above_N: Floats,
    below_N: Floats | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    method: Literal["percentile", "bca"] = "bca",
) -> Estimate:
    """Σ above / Σ below (the mean where ``below`` is left out) with a bootstrap interval over the N units.

    ``bca`` corrects percentiles for bias and skew (Efron 1987), its acceleration from the jackknife.
    """
    above = np.asarray(above_N, dtype=np.float64)
    below = np.ones_like(above) if below_N is None else np.asarray(below_N, dtype=np.float64)
    n, total = len(above), float(below.sum())
    if total <= 0:
        raise ValueError("a ratio over nothing: the denominators sum to zero")
    value = float(above.sum()) / total
    if n < 2:
        return Estimate(value, n=n)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    rows = max(1, _CHUNK // n)
    for start in range(0, resamples, rows):
        weight_RN = rng.multinomial(n, np.full(n, 1 / n), size=min(rows, resamples - start)).astype(np.float64)
        bottom = weight_RN @ below
        # A resample without a single unit of the denominator says nothing: it repeats the estimate.
        means[start : start + rows] = np.where(bottom > 0, weight_RN @ above, value) / np.where(bottom > 0, bottom, 1)
    levels = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    if method == "bca":
        levels = _bca_levels(levels, means, value, above, below)
    low, high = np.quantile(means, levels)
    return Estimate(value, float(means.std(ddof=1)), float(low), float(high), n)


def bootstrap_median(values_N: Floats, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """The median with a percentile bootstrap interval."""
    values = np.asarray(values_N, dtype=np.float64)
    if len(values) == 0:
        raise ValueError("a median of nothing")
    value, n = float(np.median(values)), len(values)
    if n < 2:
        return Estimate(value, n=n)
    values = values[np.linspace(0, n - 1, min(n, 1000)).astype(int)]  # a long log is thinned evenly
    rng = np.random.default_rng(seed)
    medians = np.median(values[rng.integers(len(values), size=(resamples, len(values)))], axis=1)
    low, high = np.quantile(medians, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(medians.std(ddof=1)), float(low), float(high), n)


def jackknife(value: float, without_N: Floats) -> Estimate:
    """A figure with its jackknife standard error and t interval; ``without_N``: the figure with unit i left
    out.

    In expectation not too small (Efron & Stein 1981).
    """
    n = len(without_N)
    if n < 2:
        return Estimate(value, n=n)
    se = float(np.sqrt((n - 1) / n * np.square(without_N - without_N.mean()).sum()))
    half = student_quantile(0.5 + LEVEL / 2, n - 1) * se
    return Estimate(value, se, value - half, value + half, n)


def paired_difference(a_N: Floats, b_N: Floats) -> Estimate:
    """Mean of a − b over units measured on both (the same seeds, blocks or documents), with a t interval.

    Raises:
        ValueError: the two have different shapes.
    """
    a, b = np.asarray(a_N, dtype=np.float64), np.asarray(b_N, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"paired figures of different shapes: {a.shape} and {b.shape}")
    return ratio(a - b, np.ones(len(a)))


def _bca_levels(levels: list[float], means: Floats, value: float, above: Floats, below: Floats) -> list[float]:
    normal = NormalDist()
    share = float((means < value).mean() + 0.5 * (means == value).mean())
    without_bottom = below.sum() - below
    if not 0 < share < 1 or np.any(without_bottom <= 0):
        return levels
    bias = normal.inv_cdf(share)
    without = (above.sum() - above) / without_bottom
    deviation = without.mean() - without
    spread = float(np.square(deviation).sum())
    if spread <= 1e-300:
        return levels
    skew = float((deviation**3).sum()) / (6 * spread**1.5)
    shifted = []
    for level in levels:
        z = bias + normal.inv_cdf(level)
        shifted.append(normal.cdf(bias + z / (1 - skew * z)))
    return shifted
