"""Figures, differences and ratios as claims say them."""

from __future__ import annotations

import math
from collections.abc import Callable

from workbench.metrics.statistics import Estimate
from workbench.report.arms import Arm
from workbench.report.grid_tables import columns_for


def figure_of(arm: Arm, name: str) -> str:
    """An arm's figure as its column writes it; "–" where there is none."""
    value = arm.figure(name)
    if value is None or value.value is None:
        return "–"
    (column,) = columns_for([arm], [name])
    return ("" if value.relation == "=" else f"{value.relation} ") + column.write(value.value)


def gap(arm: Arm, name: str, found: Estimate, ratio: bool) -> str:
    """A difference with its interval; of logarithms, the ratio."""
    if math.isnan(found.value):
        return "not compared: two judges or machines"
    if ratio:
        return f"× {_exp(found.value):.3g}" + _interval(found, _exp, "")
    (column,) = columns_for([arm], [name])

    def write(number: float) -> str:
        return ("+" if number >= 0 else "−") + column.write(abs(number))

    text = write(found.value)
    if found.low is not None and found.high is not None:
        text += f" ({write(found.low)} … {write(found.high)})"
    return text


def slope(found: Estimate) -> str:
    """A slope with its interval."""
    return f"{found.value:+.3g}" + _interval(found, float, "+")


def _interval(found: Estimate, change: Callable[[float], float], sign: str) -> str:
    if found.low is None or found.high is None:
        return ""
    low, high = (format(change(number), sign + ".3g") for number in (found.low, found.high))
    return f" ({low} … {high})"


def _exp(number: float) -> float:
    return math.exp(min(number, 700.0))  # an interval that says nothing may have an end beyond all floats
