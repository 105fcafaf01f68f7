"""Claims that arms' figures lie below, above, or near another arm's."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, MinLen

from workbench.core.errors import Problem
from workbench.core.node import Node
from workbench.metrics.comparison import holm
from workbench.metrics.statistics import SIDE
from workbench.report.arms import Arm
from workbench.report.contrasts import Contrast, Term, contrast
from workbench.study.base import Answer, Claim, Verdict, arm_of, decided
from workbench.study.words import figure_of, gap

Names = Annotated[list[str], MinLen(1)]
NotNegative = Annotated[float, Ge(0)]


@dataclass(frozen=True)
class Compared:
    """One figure of one arm against the other arm's. ``p_for``, ``p_against``: one-sided p of the claim's opposite and
    of the claim, None without a standard error."""

    arm: Arm
    figure: str
    found: Contrast
    p_for: float | None
    p_against: float | None


class Comparison(Claim):
    """Every figure of every arm named is compared with the other arm's; the whole claim is tested at 2.5 % a side.

    Where all comparisons must hold each is tested at its own level (an intersection-union test); where one is enough,
    and for what refutes, p values are adjusted after Holm over the comparisons, those that are still due among them.
    What is said of bounds holds of bounds.

    Settings:
        figures: names of figures.
        arms: labels of arms.
        against: the arm compared with; row zero unless said otherwise.
        within: the margin, as a share of the other arm's figure, stated beforehand; below 1 for ratios.
        ratio: compare as ratios (of times, of perplexities) in place of differences.
        any: one comparison that holds is enough; otherwise all must.
    """

    def __init__(
        self,
        figures: Names,
        arms: Names,
        against: str = "baseline",
        within: NotNegative = 0.0,
        ratio: bool = False,
        any: bool = False,
    ) -> None:
        """Keep the settings."""
        self.figures, self.arms, self.against = figures, arms, against
        self.within, self.ratio, self.any = within, ratio, any

    @classmethod
    def example(cls) -> dict[str, Any]:
        """Two arms."""
        return {"figures": ["x"], "arms": ["a", "b"], "within": 0.05}

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """A ratio that cannot be lower by the whole."""
        yield from super().misfits(node, root)
        if node.settings["ratio"] and node.settings["within"] >= 1:
            yield Problem(f"{node.path}.within", "of a ratio the margin is a share below 1: 0.05 for 5 %")

    @abstractmethod
    def one_sided(self, found: Contrast, down: float, up: float) -> tuple[float | None, float | None]:
        """(p of the claim's opposite, p of the claim): small in the first bears it out, in the second refutes it.

        ``down``, ``up``: where the margin ends below no difference and above it, in the contrast's unit.
        """

    @abstractmethod
    def said(self) -> str:
        """What is tested, in words."""

    def names(self) -> Iterable[str]:
        """The arms and the one compared with."""
        return [*self.arms, self.against]

    def needs(self) -> Iterable[str]:
        """The figures."""
        return self.figures

    def __call__(self, arms: Sequence[Arm]) -> Verdict:
        """Compare all, then judge the whole."""
        found: list[Compared] = []
        missing = []
        other = arm_of(arms, self.against)
        for label in self.arms:
            arm = arm_of(arms, label)
            for figure in self.figures:
                one = None if arm is None or other is None else self._compared(arm, other, figure)
                if one is None:
                    missing.append(f"{label}: {figure}")
                else:
                    found.append(one)
        answer = self._answer(found, len(missing)) if found else "not measured"
        if missing and answer != ("holds" if self.any else "does not hold"):
            return Verdict("not measured", f"no {', '.join(missing)}")
        told = [self._words(one, other) for one in found if other is not None]
        words = "; ".join([*told, *[f"due: {', '.join(missing)}"] * bool(missing)])
        how = f"{self.said()}, {100 * SIDE:g} % a side; " + "; ".join(dict.fromkeys(one.found.how for one in found))
        return Verdict(answer, words, how)

    def _compared(self, arm: Arm, other: Arm, figure: str) -> Compared | None:
        found = contrast([Term(arm, figure, 1.0), Term(other, figure, -1.0)], log=self.ratio)
        beside = other.figure(figure)
        if found is None or beside is None or beside.value is None:
            return None
        share = self.within * abs(beside.value)
        down, up = (math.log1p(-self.within), math.log1p(self.within)) if self.ratio else (-share, share)
        return Compared(arm, figure, found, *self.one_sided(found, down, up))

    def _answer(self, found: Sequence[Compared], missing: int) -> Answer:
        if any(one.p_for is None or one.p_against is None for one in found):
            return "open"
        ours, theirs = (
            [p for one in found if (p := getattr(one, side)) is not None] + [1.0] * missing
            for side in ("p_for", "p_against")
        )
        if self.any:
            return decided(min(holm(ours)), max(theirs))
        return decided(max(ours), min(holm(theirs)))

    def _words(self, one: Compared, other: Arm) -> str:
        bounds = " of bounds" if any(relation != "=" for relation in one.found.relations) else ""
        name = one.figure.replace("_", " ")
        pair = f"{figure_of(one.arm, one.figure)} beside {figure_of(other, one.figure)}"
        return f"{one.arm.label}: {name} {pair}, {gap(one.arm, one.figure, one.found.estimate, self.ratio)}{bounds}"


@Claim.register("lies_below")
class LiesBelow(Comparison):
    """Figures lie below the other arm's by more than the margin."""

    def one_sided(self, found: Contrast, down: float, up: float) -> tuple[float | None, float | None]:
        """Below the margin's lower end, above it."""
        return found.p_below(down), found.p_above(down)

    def said(self) -> str:
        """One side of a two-sided test."""
        return "lower" + f" by more than {self.within:.0%}" * bool(self.within)


@Claim.register("lies_above")
class LiesAbove(Comparison):
    """Figures lie above the other arm's by more than the margin."""

    def one_sided(self, found: Contrast, down: float, up: float) -> tuple[float | None, float | None]:
        """Above the margin's upper end, below it."""
        return found.p_above(up), found.p_below(up)

    def said(self) -> str:
        """One side of a two-sided test."""
        return "higher" + f" by more than {self.within:.0%}" * bool(self.within)


@Claim.register("not_above")
class NotAbove(Comparison):
    """Figures do not lie above the other arm's by the margin or more (non-inferiority, where lower is better)."""

    def one_sided(self, found: Contrast, down: float, up: float) -> tuple[float | None, float | None]:
        """Below the margin's upper end, above it."""
        return found.p_below(up), found.p_above(up)

    def said(self) -> str:
        """With its margin."""
        return f"not higher by {self.within:.0%}"


@Claim.register("not_below")
class NotBelow(Comparison):
    """Figures do not lie below the other arm's by the margin or more (non-inferiority, where higher is better)."""

    def one_sided(self, found: Contrast, down: float, up: float) -> tuple[float | None, float | None]:
        """Above the margin's lower end, below it."""
        return found.p_above(down), found.p_below(down)

    def said(self) -> str:
        """With its margin."""
        return f"not lower by {self.within:.0%}"


@Claim.register("alike")
class Alike(Comparison):
    """Figures differ from the other arm's by less than the margin either way: two one-sided tests (Schuirmann 1987) at
    2.5 % each, so that the 95 % interval lies within the margins (at the usual 5 % each a 90 % interval would)."""

    def one_sided(self, found: Contrast, down: float, up: float) -> tuple[float | None, float | None]:
        """Inside the margins, outside of one."""
        sides = [found.p_below(up), found.p_above(down)]
        beyond = [found.p_above(up), found.p_below(down)]
        if None in sides or None in beyond:
            return None, None
        return max(p for p in sides if p is not None), min(p for p in beyond if p is not None)

    def said(self) -> str:
        """With its margin."""
        return f"alike within {self.within:.0%}"
