"""Contrasts of arms' figures (differences, slopes, differences of differences): in pairs where they can be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from workbench.core.errors import WorkbenchError
from workbench.metrics.comparison import contrasted, smallest_detectable
from workbench.metrics.statistics import LEVEL, Estimate, by_normal, ratio, student_tail
from workbench.metrics.value import Better, Value
from workbench.report.arms import Arm

SEEDS = "over {n} repetitions, in pairs; t interval"
UNITS = "one training each; over {n} common units, in pairs, bootstrap: sampling error, not that of training"
APART = "one training each; from both standard errors: sampling error, not that of training"
ROUNDING = 1e-12
"""Contrasts that spread by less than this share of the figures spread by rounding alone."""
OTHER = "by two judges or on two machines, or not by one that is known: not compared; evaluate all by the same"
BARE = "one repetition without standard errors: no interval"


@dataclass(frozen=True)
class Term:
    """An arm's figure and what it is multiplied by."""

    arm: Arm
    figure: str
    coefficient: float


@dataclass(frozen=True)
class Contrast:
    """Σ coefficient · figure. ``df``: degrees of freedom of its t law, 0 for the normal law; ``relations``: of each
    figure to the true one; ``better``: which way the first figure is better; ``detectable``: the smallest contrast
    that would be seen with 80 % power."""

    estimate: Estimate
    how: str
    relations: tuple[str, ...]
    better: Better
    df: int = 0
    detectable: float | None = None

    def p_above(self, bound: float = 0.0) -> float | None:
        """One-sided p of «no larger than ``bound``»; None without a standard error."""
        if not self.estimate.se:
            return None
        t = (self.estimate.value - bound) / self.estimate.se
        return student_tail(t, self.df) if self.df else 1 - NormalDist().cdf(t)

    def p_below(self, bound: float = 0.0) -> float | None:
        """One-sided p of «no smaller than ``bound``»; None without a standard error."""
        above = self.p_above(bound)
        return None if above is None else 1 - above

    def p_differs(self) -> float | None:
        """Two-sided p of no difference."""
        above = self.p_above()
        return None if above is None else 2 * min(above, 1 - above)


def contrast(terms: Sequence[Term], log: bool = False) -> Contrast | None:
    """A contrast of figures, of their logarithms where ``log``: paired by repetition where there are several, by common
    units where there are any, else from standard errors. None where a figure was not measured in any one repetition;
    nan where figures are by two judges or on two machines.
    """
    found = [term.arm.values(term.figure) for term in terms]
    common = [key for key in found[0] if all(key in values for values in found)]
    if not common:
        return None
    first = [values[common[0]] for values in found]
    if log and any(values[key].number <= 0 for values in found for key in common):
        return None
    relations, better = tuple(value.relation for value in first), first[0].better
    coefficients = [term.coefficient for term in terms]
    if len({values[key].by for values in found for key in common}) > 1:
        return Contrast(Estimate(math.nan), OTHER, relations, better)
    if len(common) > 1:
        each = np.asarray(
            [_total([values[key] for values in found], coefficients, log) for key in common], dtype=np.float64
        )
        largest = max(abs(values[key].number) for values in found for key in common)
        if each.std(ddof=1) <= ROUNDING * (1.0 if log else largest):
            same = replace(ratio(each, np.ones(len(each))), se=0.0)
            return Contrast(same, SEEDS.format(n=len(each)), relations, better)
        seen = smallest_detectable(float(each.std(ddof=1)), len(each))
        return Contrast(
            ratio(each, np.ones(len(each))), SEEDS.format(n=len(each)), relations, better, len(each) - 1, seen
        )
    estimate, how = _single(first, coefficients, log)
    normal = NormalDist()
    power = normal.inv_cdf(0.5 + LEVEL / 2) + normal.inv_cdf(0.8)
    return Contrast(estimate, how, relations, better, 0, power * estimate.se if estimate.se else None)


def _single(values: Sequence[Value], coefficients: Sequence[float], log: bool) -> tuple[Estimate, str]:
    """The contrast of figures of one repetition each."""
    try:
        estimate = contrasted(values, coefficients, log=log)
        return estimate, UNITS.format(n=estimate.n)
    except WorkbenchError:  # no units, or not the same ones
        pass
    total = _total(values, coefficients, log)
    if any(value.se is None for value in values):
        return Estimate(total, n=1), BARE
    errors = [float(value.se or 0.0) / (value.number if log else 1.0) for value in values]
    se = math.hypot(*(c * error for c, error in zip(coefficients, errors, strict=True)))
    return by_normal(total, se, min(value.n for value in values)), APART


def _total(values: Sequence[Value], coefficients: Sequence[float], log: bool) -> float:
    numbers = [math.log(value.number) if log else value.number for value in values]
    return math.fsum(c * number for c, number in zip(coefficients, numbers, strict=True))
