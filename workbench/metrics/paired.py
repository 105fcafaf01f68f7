"""Two models on the same items: McNemar's exact test of right and wrong, and the paired difference of any figure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from workbench.metrics.statistics import Estimate, bootstrap_ratio


@dataclass(frozen=True)
class Paired:
    """One model against a baseline on ``n`` items: accuracies, their difference with its interval, and ``p``.

    ``gained`` and ``lost``: items that only the model, or only the baseline, has right.
    """

    n: int
    accuracy: float
    baseline: float
    difference: Estimate
    gained: int
    lost: int
    p: float


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p of McNemar's test (McNemar 1947): under no difference each discordant item is a fair coin.

    Twice the smaller tail of Binomial(gained + lost, ½), at most 1; in whole numbers, so that none underflows.

    Raises:
        ValueError: a negative number of items.
    """
    if gained < 0 or lost < 0:
        raise ValueError(f"numbers of items are not negative; {gained} and {lost}")
    n = gained + lost
    tail = term = 1
    for i in range(min(gained, lost)):
        term = term * (n - i) // (i + 1)
        tail += term
    return float(min(Fraction(1), Fraction(2 * tail, 1 << n)))


def compare_right(right_N: npt.NDArray[np.bool_], baseline_N: npt.NDArray[np.bool_], seed: int = 0) -> Paired:
    """Right and wrong of both on the same items, in the same order; the interval by a bootstrap over items.

    Raises:
        ValueError: not the same number of items, or none.
    """
    a, b = np.asarray(right_N, dtype=bool), np.asarray(baseline_N, dtype=bool)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise ValueError(f"both models answer the same items, at least one; here {a.shape} and {b.shape}")
    gained, lost = int((a & ~b).sum()), int((b & ~a).sum())
    return Paired(
        n=len(a),
        accuracy=float(a.mean()),
        baseline=float(b.mean()),
        difference=compare_figures(a.astype(np.float64), b.astype(np.float64), seed),
        gained=gained,
        lost=lost,
        p=mcnemar(gained, lost),
    )


def compare_figures(
    values_N: npt.NDArray[np.float64], baseline_N: npt.NDArray[np.float64], seed: int = 0
) -> Estimate:
    """The mean paired difference with a percentile bootstrap interval over items.

    Raises:
        ValueError: not the same number of items, or none.
    """
    a, b = np.asarray(values_N, dtype=np.float64), np.asarray(baseline_N, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or not a.size or math.isnan(float((a - b).sum())):
        raise ValueError(f"figures of the same items, at least one and all numbers; here {a.shape} and {b.shape}")
    return bootstrap_ratio(a - b, seed=seed, method="percentile")
