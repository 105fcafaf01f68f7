"""The claim that an arm's quality is matched only at a higher price."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from annotated_types import MinLen

from workbench.metrics.statistics import SIDE
from workbench.report.arms import Arm
from workbench.report.contrasts import Term, contrast
from workbench.study.base import Answer, Claim, Verdict, arm_of, decided, is_counted
from workbench.study.words import figure_of, gap


@Claim.register("dearer_to_match")
class DearerToMatch(Claim):
    """No arm that reaches the other's figure does so at its price: the cheapest one that does costs more, or none does.

    An arm reaches a figure that it is not shown to be worse than (2.5 % a side). Arms that are still due may
    be the cheapest match: it does not hold before they are measured.

    Settings:
        figure: the quality to be matched; its own direction says what is better.
        cost: what it is paid in (seconds, calls).
        arms: labels of the arms that may match it.
        against: the arm to be matched.
    """

    def __init__(
        self, figure: str, cost: str, arms: Annotated[list[str], MinLen(1)], against: str = "baseline"
    ) -> None:
        """Keep the settings."""
        self.figure, self.cost, self.arms, self.against = figure, cost, arms, against

    @classmethod
    def example(cls) -> dict[str, Any]:
        """Three arms."""
        return {"figure": "x", "cost": "y", "arms": ["a", "b", "c"]}

    def names(self) -> Iterable[str]:
        """All of them."""
        return [*self.arms, self.against]

    def needs(self) -> Iterable[str]:
        """Quality and price."""
        return (self.figure, self.cost)

    def __call__(self, arms: Sequence[Arm]) -> Verdict:
        """The cheapest arm that matches, and its price."""
        other = arm_of(arms, self.against)
        named = [arm for label in self.arms if (arm := arm_of(arms, label)) is not None]
        known = [arm for arm in named if arm.values(self.figure) and arm.values(self.cost)]
        if other is None or not known or not other.values(self.figure) or not other.values(self.cost):
            return Verdict("not measured", f"{self.figure} and {self.cost} are due of {self.against} and of an arm")
        found = [(arm, self._matches(arm, other)) for arm in known]
        missing = [label for label in self.arms if label not in {arm.label for arm in known}]
        answer, words, how = self._price([arm for arm, matches in found if matches], known, other)
        unknown = [arm.label for arm, matches in found if matches is None]
        words += f"; {self.against} {figure_of(other, self.figure)} for {figure_of(other, self.cost)}"
        for what, labels in (("not compared", unknown), ("due", missing)):
            words += f"; {what}: {', '.join(labels)}" * bool(labels)
        if answer == "holds" and (missing or unknown):
            answer = "not measured" if missing else "open"
        return Verdict(answer, words, how)

    def _price(self, matching: Sequence[Arm], known: Sequence[Arm], other: Arm) -> tuple[Answer, str, str]:
        """What the cheapest of the arms that match says of the claim, in words, and by which test."""
        if not matching:
            best = min(known, key=lambda arm: self._sign(other) * self._number(arm, self.figure))
            words = f"none of {', '.join(arm.label for arm in known)} matches; best {best.label} "
            words += f"{figure_of(best, self.figure)} for {figure_of(best, self.cost)}"
            return "holds", words, f"an arm matches what it is not shown to be worse than, {SIDE:.1%} on one side"
        cheapest = min(matching, key=lambda arm: self._number(arm, self.cost))
        words = f"cheapest match {cheapest.label} {figure_of(cheapest, self.figure)} for "
        words += figure_of(cheapest, self.cost)
        dearer = contrast([Term(cheapest, self.cost, 1.0), Term(other, self.cost, -1.0)], log=True)
        if dearer is None:
            return "open", words, ""
        words += f"; {gap(cheapest, self.cost, dearer.estimate, ratio=True)}"
        above, below = dearer.p_above(), dearer.p_below()
        price = cheapest.figure(self.cost)
        if above is None and price is not None and is_counted(price) and math.isfinite(dearer.estimate.value):
            return "holds" if dearer.estimate.value > 0 else "does not hold", words, "counted, not estimated"
        return decided(above, below), words, dearer.how

    def _matches(self, arm: Arm, other: Arm) -> bool | None:
        """Whether an arm is not shown to be worse; None where that cannot be told."""
        found = contrast([Term(arm, self.figure, 1.0), Term(other, self.figure, -1.0)])
        if found is None or not math.isfinite(found.estimate.value):
            return None
        worse = found.p_above() if self._sign(other) > 0 else found.p_below()
        if worse is None:  # no error, and no test: the very same figure is matched
            return True if found.estimate.value == 0 else None
        return worse >= SIDE

    def _sign(self, other: Arm) -> int:
        value = other.figure(self.figure)
        return -1 if value is not None and value.better == "higher" else 1

    @staticmethod
    def _number(arm: Arm, name: str) -> float:
        value = arm.figure(name)
        return math.inf if value is None or value.value is None else value.value
