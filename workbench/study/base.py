"""The contract of a claim: a statement about arms of a grid, and what their figures say of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from workbench.core.part import Part
from workbench.metrics.statistics import SIDE
from workbench.metrics.value import Value
from workbench.report.arms import Arm

Answer = Literal["holds", "does not hold", "open", "not measured"]

COUNTED = ("calls", "tokens", "parameters")
"""What is counted, in units as «calls a sequence», has no error to be estimated."""


@dataclass(frozen=True)
class Verdict:
    """What figures say of a statement.

    ``answer``: "open" where the interval allows both; ``measured``: the figures, in words with their intervals;
    ``how``: the test, and what its interval covers.
    """

    answer: Answer
    measured: str
    how: str = ""


def decided(p_for: float | None, p_against: float | None) -> Answer:
    """What two one-sided p values say: of the statement's opposite, and of the statement; None without an error."""
    if p_for is None or p_against is None:
        return "open"
    return "holds" if p_for < SIDE else ("does not hold" if p_against < SIDE else "open")


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """All of several statements: holds where all hold, does not where one does not."""
    order: tuple[Answer, ...] = ("does not hold", "not measured", "open", "holds")
    answers = {verdict.answer for verdict in verdicts}
    answer = next((one for one in order if one in answers), "not measured")
    measured = "; ".join(verdict.measured for verdict in verdicts)
    return Verdict(answer, measured, "; ".join(dict.fromkeys(verdict.how for verdict in verdicts if verdict.how)))


class Claim(Part, ABC, kind="claim"):
    """A form of statement about a grid's arms, which figures bear out, refute, or leave open."""

    @abstractmethod
    def names(self) -> Iterable[str]:
        """Labels of the arms it speaks of, so that slips are told before anything runs."""

    def needs(self) -> Iterable[str]:
        """Names of the figures it speaks of, for the same reason; of one that tells none, slips are not found."""
        return ()

    @abstractmethod
    def __call__(self, arms: Sequence[Arm]) -> Verdict:
        """What the arms' figures say. Pure; an arm without figures makes it "not measured", never an error."""


def is_counted(value: Value) -> bool:
    """Whether a figure without a standard error is a count, and says what it says."""
    return value.se is None and value.unit.partition(" ")[0] in COUNTED


def arm_of(arms: Sequence[Arm], label: str) -> Arm | None:
    """The arm of a label."""
    return next((arm for arm in arms if arm.label == label), None)
