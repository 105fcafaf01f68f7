"""Differences of a grid's arms to its baseline: in pairs where they can be, with intervals, adjusted after Holm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from workbench.metrics.comparison import holm
from workbench.metrics.statistics import LEVEL, Estimate
from workbench.metrics.value import Better
from workbench.report.arms import Arm, names_of
from workbench.report.collect import Run
from workbench.report.contrasts import Term, contrast
from workbench.report.grid_tables import columns_for
from workbench.report.tables import ASIDE, Cell, Column, Row, Table

RESOLVED = 1e-4
"""Smaller p are told as below this: so far out the tail is the assumed law's, about errors known to a percent or two
from resamples, or from a few repetitions."""
UNTESTED = "not tested for want of spread, and counted in the family after Holm"


@dataclass(frozen=True)
class Difference:
    """An arm's figure minus the baseline's; nan where they are by two judges or on two machines.

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
        """Better, worse, higher, lower, or that no difference is shown; whether it is one of bounds alone."""
        if self.adjusted is None:
            return ""
        if self.adjusted >= 1 - LEVEL:
            return "not shown"
        up = "higher" if self.estimate.value > 0 else "lower"
        ours, theirs = self.relations
        if (up == "higher" and (ours == "≤" or theirs == "≥")) or (up == "lower" and (theirs == "≤" or ours == "≥")):
            return f"{up} (of bounds)"  # the true figures may lie the other way round
        return up if self.better == "neither" else ("better" if up == self.better else "worse")


def compared(arms: Sequence[Arm], names: Sequence[str]) -> list[Difference]:
    """All arms against the baseline (the first arm, where there is none), a family for each figure."""
    base = next((arm for arm in arms if arm.baseline), next(iter(arms), None))
    return in_pairs([(arm, base) for arm in arms if base is not None and arm is not base], names)


def in_pairs(pairs: Sequence[tuple[Arm, Arm]], names: Sequence[str]) -> list[Difference]:
    """The first of each pair minus the second, a family for each figure."""
    found: list[Difference] = []
    for name in names:
        family = [one for arm, base in pairs if (one := _difference(arm, base, name))]
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


def beside(runs: Sequence[Run]) -> Table:
    """What differs in the figures of runs: each against the first, in pairs where they were measured on the same."""
    arms = [Arm(run.label, {}, i == 0, {(): run}) for i, run in enumerate(runs) if run.results]
    if len(arms) < 2 or not arms[0].baseline:
        return Table((), ())
    names = [name for name in names_of(arms) if name not in ASIDE and moves(arms, name)]
    return differences_table(compared(arms, names), arms)


def moves(arms: Sequence[Arm], name: str) -> bool:
    """Whether a figure differs in more than what the machine made of it: times are told in the main table."""
    found = [value for arm in arms for value in arm.values(name).values()]
    return not any(value.timed for value in found) and len({value.value for value in found}) > 1


def differences_table(found: Sequence[Difference], arms: Sequence[Arm], minus: str = "Arm minus baseline") -> Table:
    """Arms by figures; ``minus``: what the numbers are."""
    figures = list(dict.fromkeys(one.figure for one in found))
    columns = columns_for(arms, figures)
    cells = {(one.arm, one.figure): one for one in found}
    rows = [
        Row(label, tuple(_cell(cells.get((label, column.key)), column) for column in columns))
        for label in dict.fromkeys(one.arm for one in found)
    ]
    return Table(columns, tuple(rows), tuple(_notes(found, minus)) if found else ())


def _difference(arm: Arm, base: Arm, name: str) -> Difference | None:
    found = contrast([Term(arm, name, 1.0), Term(base, name, -1.0)])
    if found is None:
        return None
    ours, theirs = found.relations
    return Difference(
        arm.label,
        name,
        found.estimate,
        found.better,
        found.how,
        (ours, theirs),
        found.p_differs(),
        None,
        found.detectable,
    )


def _cell(one: Difference | None, column: Column) -> Cell:
    if one is None:
        return Cell()
    if math.isnan(one.estimate.value):
        return Cell("not comparable", one.how)
    text = _signed(column, one.estimate.value)
    details = []
    if one.estimate.low is not None and one.estimate.high is not None:
        details.append(f"95 % interval {_signed(column, one.estimate.low)} to {_signed(column, one.estimate.high)}")
    if one.adjusted is not None and one.p is not None:
        text += f" {one.verdict}"
        details.append(f"p {_told(one.p)}, after Holm {_told(one.adjusted)}")
    if one.detectable is not None:
        details.append(f"smallest difference seen with 80 % power: {column.gap(one.detectable)}")
    return Cell(text, "; ".join([*details, one.how]))


def _signed(column: Column, number: float) -> str:
    return ("+" if number >= 0 else "−") + column.gap(abs(number))


def _told(p: float) -> str:
    return f"{p:.2g}" if p >= RESOLVED else f"< {RESOLVED:.0e}".replace("e-0", "e-")


def _notes(found: Sequence[Difference], minus: str) -> list[str]:
    return [
        f"{minus}; better, worse, higher or lower where p after Holm (over the arms, for each figure) is "
        "below 0.05, else a difference is not shown, which does not say that there is none. (of bounds): it "
        "is the bounds that lie so, the true figures may lie the other way round.",
        *dict.fromkeys(f"{one.figure}: {one.how}" for one in found),
    ]
