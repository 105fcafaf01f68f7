"""The claim that arms lie below a line of others, at the same place along another figure: a frontier moved."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import MinLen

from workbench.metrics.statistics import by_normal
from workbench.report.arms import Arm
from workbench.report.contrasts import APART, Contrast
from workbench.study.base import Claim, Verdict, arm_of, decided, together
from workbench.study.comparisons import Names
from workbench.study.words import figure_of, gap


@dataclass(frozen=True)
class Point:
    """An arm's place: ``x``, ln y, and their standard errors."""

    x: float
    y: float
    x_se: float
    y_se: float


@Claim.register("below_line")
class BelowLine(Claim):
    """A figure lies below what arms of a line have at the same second figure: judge perplexity at matched entropy.

    The line is straight between neighbours in the figure's logarithm. The standard error takes all four figures as
    independent, that along the line times its slope: on the safe side, where high entropy and high perplexity go
    together. An arm beyond the line's ends is compared with nothing.

    Settings:
        figure: the figure that should be low.
        at: the figure that is matched.
        line: labels of two arms or more that the line goes through.
        arms: labels of the arms that should lie below it.
    """

    def __init__(self, figure: str, at: str, line: Annotated[list[str], MinLen(2)], arms: Names) -> None:
        """Keep the settings."""
        self.figure, self.at, self.line, self.arms = figure, at, line, arms

    @classmethod
    def example(cls) -> dict[str, Any]:
        """A line of three."""
        return {"figure": "x", "at": "y", "line": ["baseline", "b", "c"], "arms": ["a"]}

    def names(self) -> Iterable[str]:
        """The line's and the others."""
        return [*self.line, *self.arms]

    def __call__(self, arms: Sequence[Arm]) -> Verdict:
        """Each arm against the line; all must lie below it."""
        places = [self._place(arm) for label in self.line if (arm := arm_of(arms, label)) is not None]
        line = sorted((place for place in places if place is not None), key=lambda place: place.x)
        named = [arm_of(arms, label) for label in self.arms]
        if len(line) < 2 or any(arm is None or self._place(arm) is None for arm in named):
            return Verdict("not measured", f"{self.figure} and {self.at} are due of the arms and of two on the line")
        return together([self._verdict(arm, line) for arm in named if arm is not None])

    def _verdict(self, arm: Arm, line: Sequence[Point]) -> Verdict:
        place = self._place(arm)
        assert place is not None
        words = f"{arm.label}: {figure_of(arm, self.figure)} at {figure_of(arm, self.at)}"
        beside = between(line, place.x)
        if beside is None:
            ends = f"{line[0].x:.3g} … {line[-1].x:.3g}"
            return Verdict("open", f"{words}, beyond the line's ends ({ends})", "nothing at the same place")
        on_line, slope = beside
        value = place.y - on_line.y
        se = math.hypot(place.y_se, on_line.y_se, slope * place.x_se)
        found = Contrast(by_normal(value, se), APART, ("=",), "lower")
        words += f", the line {math.exp(on_line.y):.4g} there: {gap(arm, self.figure, found.estimate, ratio=True)}"
        how = f"below the line at the same {self.at}, 5 %; {APART}"
        return Verdict(decided(found.p_below(), found.p_above()), words, how)

    def _place(self, arm: Arm) -> Point | None:
        x, y = arm.figure(self.at), arm.figure(self.figure)
        if x is None or y is None or x.value is None or y.value is None or y.value <= 0:
            return None
        return Point(x.value, math.log(y.value), x.se or 0.0, (y.se or 0.0) / y.value)


def between(line: Sequence[Point], x: float) -> tuple[Point, float] | None:
    """The line's point at ``x`` and its slope there; None beyond its ends. ``line``: ascending in x."""
    for left, right in itertools.pairwise(line):
        if left.x <= x <= right.x and right.x > left.x:
            share = (x - left.x) / (right.x - left.x)
            se = math.hypot((1 - share) * left.y_se, share * right.y_se)
            return Point(x, (1 - share) * left.y + share * right.y, 0.0, se), (right.y - left.y) / (right.x - left.x)
    return None
