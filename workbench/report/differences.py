"""Differences of a grid's arms to its baseline: paired where they can be, with intervals, adjusted for their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.report.arms import Arm
from workbench.report.tables import Table


@dataclass(frozen=True)
class Difference:
    """An arm's figure minus the baseline's."""

    arm: str
    figure: str


def compared(arms: Sequence[Arm], names: Sequence[str]) -> list[Difference]:
    """To be filled in."""
    return []


def differences_table(found: Sequence[Difference]) -> Table:
    """To be filled in."""
    return Table((), ())
