"""Claims that a figure rises or falls from arm to arm, and that a gap is wider in one figure than in another."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from annotated_types import MinLen

from workbench.core.errors import Problem
from workbench.core.node import Node
from workbench.metrics.statistics import by_normal
from workbench.report.arms import Arm
from workbench.report.contrasts import Contrast, Term, contrast
from workbench.study.base import Claim, Verdict, arm_of, decided
from workbench.study.words import figure_of, slope


class Trend(Claim):
    """The least-squares slope of a figure over arms in order, per doubling of ``at``, tested at 5 %.

    Settings:
        figure: the figure's name.
        arms: labels of three arms or more, in order.
        at: where each arm stands (steps, tokens), above 0, a number for each; the slope is over its base-2 logarithm.
        log: the slope of the figure's logarithm.
    """

    def __init__(
        self,
        figure: str,
        arms: Annotated[list[str], MinLen(3)],
        at: Annotated[list[float], MinLen(3)],
        log: bool = False,
    ) -> None:
        """Keep the settings."""
        self.figure, self.arms, self.at, self.log = figure, arms, at, log

    @classmethod
    def example(cls) -> dict[str, Any]:
        """Three arms."""
        return {"figure": "x", "arms": ["a", "b", "c"], "at": [1, 2, 4]}

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """Places that are not those of the arms."""
        yield from super().misfits(node, root)
        arms, at = node.settings["arms"], node.settings["at"]
        if len(arms) != len(at):
            yield Problem(f"{node.path}.at", f"{len(at)} numbers for {len(arms)} arms: one for each is due")
        elif min(at) <= 0 or len(set(at)) < len(at):
            yield Problem(f"{node.path}.at", "numbers above 0, no two alike: the slope is over their logarithm")

    @abstractmethod
    def sides(self, found: Contrast) -> tuple[float | None, float | None]:
        """(p of the opposite, p of the claim)."""

    def names(self) -> Iterable[str]:
        """The arms."""
        return self.arms

    def needs(self) -> Iterable[str]:
        """The one."""
        return (self.figure,)

    def __call__(self, arms: Sequence[Arm]) -> Verdict:
        """The slope over the arms that were measured, three at least."""
        paired = zip(self.arms, self.at, strict=True)
        found = [(arm, at) for label, at in paired if (arm := arm_of(arms, label)) and arm.values(self.figure)]
        if len(found) < 3:
            return Verdict(
                "not measured", f"{self.figure} of {len(found)} of {len(self.arms)} arms; a trend needs three"
            )
        x = np.log2([at for _, at in found])
        weights = (x - x.mean()) / np.square(x - x.mean()).sum()
        terms = [Term(arm, self.figure, float(w)) for (arm, _), w in zip(found, weights, strict=True)]
        sloped = contrast(terms, log=self.log)
        if sloped is None:
            return Verdict("not measured", f"{self.figure}: no repetition that all arms share")
        values = ", ".join(f"{arm.label} {figure_of(arm, self.figure)}" for arm, _ in found)
        what = "log figure" if self.log else "figure"
        words = f"{self.figure.replace('_', ' ')}: {values}; {what} a doubling {slope(sloped.estimate)}"
        return Verdict(decided(*self.sides(sloped)), words, f"least-squares slope, 5 %; {sloped.how}")


@Claim.register("rises")
class Rises(Trend):
    """A figure rises from arm to arm."""

    def sides(self, found: Contrast) -> tuple[float | None, float | None]:
        """Above 0, below 0."""
        return found.p_above(), found.p_below()


@Claim.register("falls")
class Falls(Trend):
    """A figure falls from arm to arm."""

    def sides(self, found: Contrast) -> tuple[float | None, float | None]:
        """Below 0, above 0."""
        return found.p_below(), found.p_above()


@Claim.register("wider")
class Wider(Claim):
    """An arm's gap to another is larger in one figure than in a second (after short prompts than after long ones).

    Of one repetition the two gaps are taken as independent, which is on the safe side where they share prompts.

    Settings:
        figure: where the gap is said to be larger.
        than: the figure of the smaller gap.
        arm: the arm's label.
        against: the arm compared with; row zero unless said otherwise.
    """

    def __init__(self, figure: str, than: str, arm: str, against: str = "baseline") -> None:
        """Keep the settings."""
        self.figure, self.than, self.arm, self.against = figure, than, arm, against

    @classmethod
    def example(cls) -> dict[str, Any]:
        """Two figures."""
        return {"figure": "x", "than": "y", "arm": "a"}

    def names(self) -> Iterable[str]:
        """Both arms."""
        return [self.arm, self.against]

    def needs(self) -> Iterable[str]:
        """Both figures."""
        return (self.figure, self.than)

    def __call__(self, arms: Sequence[Arm]) -> Verdict:
        """The difference of the two differences."""
        arm, other = arm_of(arms, self.arm), arm_of(arms, self.against)
        if arm is None or other is None:
            return Verdict("not measured", f"no arm {self.arm if arm is None else self.against}")
        gaps = [contrast([Term(arm, name, 1.0), Term(other, name, -1.0)]) for name in (self.figure, self.than)]
        first, second = gaps
        if first is None or second is None:
            return Verdict("not measured", f"no {self.figure if first is None else self.than}")
        words = f"{self.arm}: {first.estimate.value:+.3g} in {self.figure}, {second.estimate.value:+.3g} in {self.than}"
        found = self._apart(arm, other, first, second)
        if found is None:
            return Verdict("open", words, first.how)
        how = f"difference of two gaps, 5 %; {found.how}"
        return Verdict(decided(found.p_above(), found.p_below()), f"{words}; apart {slope(found.estimate)}", how)

    def _apart(self, arm: Arm, other: Arm, first: Contrast, second: Contrast) -> Contrast | None:
        """The first gap minus the second: repetition by repetition where there are several, else from both errors."""
        if first.df:
            wide, narrow = ([Term(arm, name, 1.0), Term(other, name, -1.0)] for name in (self.figure, self.than))
            return contrast([*wide, *(replace(term, coefficient=-term.coefficient) for term in narrow)])
        if not first.estimate.se or not second.estimate.se:
            return None
        se = float(np.hypot(first.estimate.se, second.estimate.se))
        value = first.estimate.value - second.estimate.value
        return Contrast(by_normal(value, se), f"gaps taken as independent; {first.how}", ("=",), "neither")
