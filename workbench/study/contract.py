"""What every claim must satisfy: run on any registered part, a plug-in's included."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from workbench.core.checks import run_checks
from workbench.grid.expand import BASELINE
from workbench.metrics.results import Results
from workbench.metrics.value import Value
from workbench.report.arms import Arm
from workbench.report.collect import Run
from workbench.study.base import Claim

LABELS = (BASELINE, "a", "b", "c")
"""Arms that an example may name; each has figures ``x`` and ``y``."""
WIDE = 1e6


def check_claim(part: type[Claim]) -> list[str]:
    """Problems of a claim, in words."""
    return run_checks(Claim, part, (_speaks_of_arms_there_are, _says_the_same_twice, _needs_figures, _hears_errors))


def example_arms(se: float | None, figures: Sequence[str] = ("x", "y")) -> list[Arm]:
    """Row zero and three arms whose figures go up from one to the next, with this standard error."""
    arms = []
    for number, label in enumerate(LABELS):
        values = [Value(name, 10.0 + number, 9.0, 12.0, "lower", n=8, se=se) for name in figures]
        results = Results("0" * 16, label, label, "x", values)
        run = Run(Path(label), label, label, "0" * 16, "trained", results=results)
        arms.append(Arm(label, {}, label == BASELINE, {(): run}))
    return arms


def _speaks_of_arms_there_are(claim: Claim) -> Iterator[str]:
    """The arms of its example are told by `names`: without them nothing is measured."""
    for label in claim.names():
        if label not in LABELS:
            yield f"names() has {label!r}, and its example may speak of {', '.join(LABELS)} only"
        left = [arm for arm in example_arms(0.1) if arm.label != label]
        claim(left)


def _says_the_same_twice(claim: Claim) -> Iterator[str]:
    """A verdict is a function of the figures."""
    if claim(example_arms(0.1)) != claim(example_arms(0.1)):
        yield "two calls on the same figures give two verdicts"


def _needs_figures(claim: Claim) -> Iterator[str]:
    """Without figures, or without arms, there is no verdict, and no error."""
    for arms in ([], example_arms(0.1, figures=())):
        found = claim(arms)
        if found.answer != "not measured":
            yield f"nothing is measured, and it says {found.answer!r}"


def _hears_errors(claim: Claim) -> Iterator[str]:
    """Figures that may be anything decide nothing."""
    found = claim(example_arms(WIDE))
    if found.answer != "open":
        yield f"standard errors are a million, and it says {found.answer!r}"


CHECKS: dict[str, Callable[[Any], list[str]]] = {"claim": check_claim}
"""Kind → the function that checks a part of it."""
