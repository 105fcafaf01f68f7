"""Differences of a grid's arms to its baseline: in pairs where they can be, with intervals, adjusted after Holm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from workbench.core.errors import WorkbenchError
from workbench.metrics.comparison import holm, paired, smallest_detectable
from workbench.metrics.statistics import LEVEL, Estimate, paired_difference, student_quantile
from workbench.metrics.value import Better, Value
from workbench.report.arms import Arm
from workbench.report.grid_tables import columns_for
from workbench.report.tables import Cell, Column, Row, Table

SEEDS = "over {n} repetitions, in pairs; t interval"
UNITS = "one training each; over {n} common units, in pairs, bootstrap: sampling error, not that of training"
APART = "one training each; from both standard errors: sampling error, not that of training"
BARE = "one repetition without standard errors: no interval"
UNTESTED = "not tested for want of spread, and counted in the family after Holm"
ROUNDING = 1e-12
"""Differences that spread by less than this share of the figures spread by rounding alone."""


@dataclass(frozen=True)
class Difference:
    """An arm's figure minus the baseline's.

    ``p``: of no difference, two-sided, None without a standard error; ``adjusted``: after Holm within the figure's
    family; ``relations``: of the arm's figure and of the baseline's to the true ones; ``detectable``: the smallest
    difference that would be seen with 80 % power; ``better``: which way is better.
    """

    arm: str
    figure: str
    estimate: Estimate
    better: Better
    how: str
    relations: tuple[str, str] = ("=", "=")
    p: float | None = None
    adjusted: float | None = None
    detectable: float | None = None

    @property
    def verdict(self) -> str:
        """Better, worse, higher, lower, or that no difference is shown."""
        if self.adjusted is None:
            return ""
        if self.adjusted >= 1 - LEVEL:
            return "not shown"
        up = "higher" if self.estimate.value > 0 else "lower"
        ours, theirs = self.relations
        if (up == "higher" and (ours == "≤" or theirs == "≥")) or (up == "lower" and (theirs == "≤" or ours == "≥")):
            return f"{up} bound"  # the true figures may lie the other way round
        return up if self.better == "neither" else ("better" if up == self.better else "worse")


def compared(arms: Sequence[Arm], names: Sequence[str]) -> list[Difference]:
    """All arms against the baseline (the first arm, where there is none), a family for each figure."""
    base = next((arm for arm in arms if arm.baseline), next(iter(arms), None))
    found: list[Difference] = []
    for name in names:
        family = [one for arm in arms if arm is not base and base is not None and (one := _difference(arm, base, name))]
        if all(one.p is None for one in family):
            found += family
            continue
        # one that cannot be tested stays a member, with the p of no difference: the others pay for the look at it
        adjusted = holm([1.0 if one.p is None else one.p for one in family])
        found += [
            replace(one, how=f"{one.how}; {UNTESTED}") if one.p is None else replace(one, adjusted=p)
            for one, p in zip(family, adjusted, strict=True)
        ]
    return found


def differences_table(found: Sequence[Difference], arms: Sequence[Arm]) -> Table:
    """Arms by figures."""
    figures = list(dict.fromkeys(one.figure for one in found))
    columns = columns_for(arms, figures)
    cells = {(one.arm, one.figure): one for one in found}
    rows = [
        Row(label, tuple(_cell(cells.get((label, column.key)), column) for column in columns))
        for label in dict.fromkeys(one.arm for one in found)
    ]
    return Table(columns, tuple(rows), tuple(_notes(found)) if found else ())


def _difference(arm: Arm, base: Arm, name: str) -> Difference | None:
    ours, theirs = arm.values(name), base.values(name)
    common = [key for key in ours if key in theirs]
    if not common:
        return None
    better, relations = ours[common[0]].better, (ours[common[0]].relation, theirs[common[0]].relation)
    if len(common) > 1:
        a, b = (np.asarray([side[key].value for key in common], dtype=np.float64) for side in (ours, theirs))
        estimate, spread = paired_difference(a, b), float((a - b).std(ddof=1))
        flat = not estimate.se or estimate.se <= ROUNDING * float(np.abs(np.concatenate([a, b])).max())
        p = None if flat or not estimate.se else _student_p(estimate.value / estimate.se, len(common) - 1)
        how = SEEDS.format(n=len(common))
        seen = smallest_detectable(spread, len(common))
        return Difference(arm.label, name, estimate, better, how, relations, p, None, seen)
    estimate, how = _single(ours[common[0]], theirs[common[0]])
    if not estimate.se:
        return Difference(arm.label, name, estimate, better, how, relations)
    normal = NormalDist()
    p = 2 * (1 - normal.cdf(abs(estimate.value) / estimate.se))
    seen = (normal.inv_cdf(0.5 + LEVEL / 2) + normal.inv_cdf(0.8)) * estimate.se
    return Difference(arm.label, name, estimate, better, how, relations, p, None, seen)


def _single(ours: Value, theirs: Value) -> tuple[Estimate, str]:
    """The difference of two figures of one repetition each."""
    try:
        estimate = paired(ours, theirs)
        return estimate, UNITS.format(n=estimate.n)
    except WorkbenchError:  # no units, or not the same ones
        pass
    assert ours.value is not None and theirs.value is not None
    gap = ours.value - theirs.value
    if ours.se is None or theirs.se is None:
        return Estimate(gap, n=1), BARE
    se = math.hypot(ours.se, theirs.se)
    half = NormalDist().inv_cdf(0.5 + LEVEL / 2) * se
    return Estimate(gap, se, gap - half, gap + half, min(ours.n, theirs.n)), APART


def _student_p(t: float, df: int) -> float:
    """Two-sided p of a t statistic, by inverting the quantile function."""
    low, high = 0.5, 1 - 1e-12
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_quantile(middle, df) < abs(t) else (low, middle)
    return 2 * (1 - low)


def _cell(one: Difference | None, column: Column) -> Cell:
    if one is None:
        return Cell()
    text = _signed(column, one.estimate.value)
    details = []
    if one.estimate.low is not None and one.estimate.high is not None:
        details.append(f"95 % interval {_signed(column, one.estimate.low)} to {_signed(column, one.estimate.high)}")
    if one.adjusted is not None and one.p is not None:
        text += f" {one.verdict}"
        details.append(f"p {one.p:.2g}, after Holm {one.adjusted:.2g}")
    if one.detectable is not None:
        details.append(f"smallest difference seen with 80 % power: {column.write(one.detectable)}")
    return Cell(text, "; ".join([*details, one.how]))


def _signed(column: Column, number: float) -> str:
    return ("+" if number >= 0 else "−") + column.write(abs(number))


def _notes(found: Sequence[Difference]) -> list[str]:
    return [
        "Arm minus baseline; better, worse, higher or lower where p after Holm (over the arms, for each figure) is "
        "below 0.05, else a difference is not shown, which does not say that there is none. Of bounds the difference "
        "is one of bounds: the true figures may lie the other way round.",
        *dict.fromkeys(f"{one.figure}: {one.how}" for one in found),
    ]
