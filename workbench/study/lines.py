"""The claim that arms lie below a line of others, at the same place along another figure: a frontier moved."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import MinLen

from workbench.metrics.comparison import holm
from workbench.metrics.statistics import by_student
from workbench.report.arms import Arm
from workbench.report.contrasts import APART, OTHER, Contrast
from workbench.study.base import Claim, Verdict, arm_of, decided, is_counted
from workbench.study.comparisons import Names
from workbench.study.words import figure_of, gap


@dataclass(frozen=True)
class Point:
    """An arm's place: ``x``, ln y, their standard errors (nan: not known), who measured both, and the degrees of
    freedom of the errors (0: many)."""

    x: float
    y: float
    x_se: float = 0.0
    y_se: float = 0.0
    by: tuple[str, str] = ("", "")
    df: int = 0


@Claim.register("below_line")
class BelowLine(Claim):
    """A figure lies below what arms of a line have at the same second figure: judge perplexity at matched entropy.

    The line is straight between neighbours in the figure's logarithm. The standard error takes all six figures as
    independent, those along the line times its slope: on the safe side, where high entropy and high perplexity go
    together. An arm beyond the line's ends is compared with nothing. What refutes is adjusted after Holm over the arms.

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

    def needs(self) -> Iterable[str]:
        """Both."""
        return (self.figure, self.at)

    def __call__(self, arms: Sequence[Arm]) -> Verdict:
        """Each arm against the line; all must lie below it."""
        places = {label: self._place(arm) for label in self.names() if (arm := arm_of(arms, label)) is not None}
        missing = [label for label in self.names() if places.get(label) is None]
        if missing:
            return Verdict("not measured", f"{self.figure} and {self.at} are due of {', '.join(missing)}")
        known = {label: place for label, place in places.items() if place is not None}
        line = sorted((known[label] for label in self.line), key=lambda place: place.x)
        found = [(arm, self._gap(known[arm.label], line)) for label in self.arms if (arm := arm_of(arms, label))]
        words = "; ".join(self._words(arm, known[arm.label], line, one) for arm, one in found)
        pairs = [(one.p_below(), one.p_above()) if isinstance(one, Contrast) else (None, None) for _, one in found]
        # an arm that is compared with nothing bears nothing out, refutes nothing, and stays in the family
        p_for, p_against = ([1.0 if p is None else p for p in side] for side in zip(*pairs, strict=True))
        errors = "from standard errors over repetitions" if any(place.df for place in known.values()) else APART
        answer = decided(max(p_for), min(holm(p_against)))
        return Verdict(answer, words, f"below the line at the same {self.at}, 5 %; {errors}")

    def _gap(self, place: Point, line: Sequence[Point]) -> Contrast | str:
        """ln figure minus the line's at the same place; or why there is none."""
        if len({point.by for point in (place, *line)}) > 1:
            return OTHER
        beside = between(line, place.x)
        if beside is None:
            return f"beyond the line's ends ({line[0].x:.3g} … {line[-1].x:.3g})"
        on_line, slope = beside
        se = math.hypot(place.y_se, on_line.y_se, slope * place.x_se)
        if math.isnan(se):
            return "a figure has no standard error"
        df = min((point.df for point in (place, *line) if point.df), default=0)
        return Contrast(by_student(place.y - on_line.y, se, df), "", ("=",), "lower", df)

    def _words(self, arm: Arm, place: Point, line: Sequence[Point], found: Contrast | str) -> str:
        words = f"{arm.label}: {figure_of(arm, self.figure)} at {figure_of(arm, self.at)}"
        if isinstance(found, str):
            return f"{words}, {found}"
        there = math.exp(place.y - found.estimate.value)
        return f"{words}, the line {there:.4g} there: {gap(arm, self.figure, found.estimate, ratio=True)}"

    def _place(self, arm: Arm) -> Point | None:
        x, y = arm.figure(self.at), arm.figure(self.figure)
        if x is None or y is None or x.value is None or y.value is None or y.value <= 0:
            return None
        repeated = len(arm.values(self.figure))
        x_se = 0.0 if is_counted(x) else _number(x.se)
        return Point(x.value, math.log(y.value), x_se, _number(y.se) / y.value, (x.by, y.by), repeated - 1)


def between(line: Sequence[Point], x: float) -> tuple[Point, float] | None:
    """The line's point at ``x``, with the errors of both neighbours along and across, and its slope there; None beyond
    its ends. ``line``: ascending in x."""
    for left, right in itertools.pairwise(line):
        if left.x <= x <= right.x and right.x > left.x:
            share, slope = (x - left.x) / (right.x - left.x), (right.y - left.y) / (right.x - left.x)
            left_se, right_se = (math.hypot(point.y_se, slope * point.x_se) for point in (left, right))
            se = math.hypot((1 - share) * left_se, share * right_se)
            return Point(x, (1 - share) * left.y + share * right.y, 0.0, se), slope
    return None


def _number(se: float | None) -> float:
    return math.nan if se is None else se
