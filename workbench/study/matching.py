"""The claim that an arm's quality is matched only at a higher price."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from annotated_types import MinLen

from workbench.report.arms import Arm
from workbench.report.contrasts import Term, contrast
from workbench.study.base import SIDE, Claim, Verdict, arm_of, decided
from workbench.study.words import figure_of, gap


@Claim.register("dearer_to_match")
class DearerToMatch(Claim):
    """No arm that reaches the other's figure does so at its price: the cheapest one that does costs more, or none does.

    An arm reaches a figure that it is not shown to be worse than (5 %, one side).

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

    def __call__(self, arms: Sequence[Arm]) -> Verdict:
        """The cheapest arm that matches, and its price."""
        other = arm_of(arms, self.against)
        named = [arm for label in self.arms if (arm := arm_of(arms, label)) is not None]
        known = [arm for arm in named if arm.values(self.figure) and arm.values(self.cost)]
        if other is None or not known or not other.values(self.figure) or not other.values(self.cost):
            return Verdict("not measured", f"{self.figure} and {self.cost} are due of {self.against} and of an arm")
        target = f"{self.against} {figure_of(other, self.figure)} for {figure_of(other, self.cost)}"
        matching = [arm for arm in known if self._matches(arm, other)]
        if not matching:
            best = min(known, key=lambda arm: self._sign(other) * self._number(arm, self.figure))
            words = f"none of {', '.join(arm.label for arm in known)} matches; best {best.label} "
            words += f"{figure_of(best, self.figure)} for {figure_of(best, self.cost)}; {target}"
            return Verdict("holds", words, "an arm matches what it is not shown to be worse than, 5 %, one side")
        cheapest = min(matching, key=lambda arm: self._number(arm, self.cost))
        dearer = contrast([Term(cheapest, self.cost, 1.0), Term(other, self.cost, -1.0)], log=True)
        words = f"cheapest match {cheapest.label} {figure_of(cheapest, self.figure)} for "
        words += f"{figure_of(cheapest, self.cost)}; {target}"
        if dearer is None:
            return Verdict("open", words)
        words += f"; {gap(cheapest, self.cost, dearer.estimate, ratio=True)}"
        above, below = dearer.p_above(), dearer.p_below()
        if above is None or below is None:
            return Verdict("holds" if dearer.estimate.value > 0 else "does not hold", words, dearer.how)
        return Verdict(decided(above, below), words, dearer.how)

    def _matches(self, arm: Arm, other: Arm) -> bool:
        found = contrast([Term(arm, self.figure, 1.0), Term(other, self.figure, -1.0)])
        if found is None:
            return False
        worse = found.p_above() if self._sign(other) > 0 else found.p_below()
        return self._sign(other) * found.estimate.value <= 0 if worse is None else worse >= SIDE

    def _sign(self, other: Arm) -> int:
        value = other.figure(self.figure)
        return -1 if value is not None and value.better == "higher" else 1

    @staticmethod
    def _number(arm: Arm, name: str) -> float:
        value = arm.figure(name)
        return math.inf if value is None or value.value is None else value.value
