"""How a figure falls with size, by arms: a fitted power law with the intervals of its constants, and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from workbench.core.errors import WorkbenchError
from workbench.metrics.scaling import Fitted, PowerLaw, fit_power_law
from workbench.report.arms import Arm
from workbench.report.frontiers import MARKERS
from workbench.report.grid_tables import columns_for
from workbench.report.plots import Plot, colour, panel, svg_of
from workbench.report.tables import Cell, Column, Row, Table, millions, significant

if TYPE_CHECKING:
    from workbench.grid.section import Scaling

OPEN = "open"


@dataclass(frozen=True)
class Law:
    """Arms that differ in size alone. ``points``: (size, figure) of every repetition; ``law``: None where none fits."""

    label: str
    points: tuple[tuple[float, float], ...]
    law: PowerLaw | None
    why: str = ""


def laws(arms: Sequence[Arm], wanted: Scaling) -> list[Law]:
    """A law for all arms that agree but for the axis ``along``."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for arm in arms:
        if arm.baseline:
            continue
        sizes, figures = arm.values(wanted.x), arm.values(wanted.y)
        label = " · ".join(label for axis, label in arm.labels.items() if axis != wanted.along) or "all arms"
        both = [(sizes[key].value, figures[key].value) for key in figures if key in sizes]
        groups.setdefault(label, []).extend((float(x), float(y)) for x, y in both if x is not None and y is not None)
    found = []
    for label, points in groups.items():
        try:
            found.append(Law(label, tuple(points), fit_power_law(*zip(*points, strict=True) if points else ([], []))))
        except WorkbenchError as error:
            found.append(Law(label, tuple(points), None, str(error)))
    return found


def scaling_table(found: Sequence[Law], wanted: Scaling) -> Table:
    """Constants with their 95 % intervals, a row a law."""
    columns = tuple(Column(key, head, unit, str) for key, head, unit in (
        ("exponent", "exponent", "a"), ("floor", "floor", "E"), ("scale", "scale", "A"), ("rms", "error", "rms"),
        ("points", "runs", "of sizes"),
    ))  # fmt: skip
    rows = []
    for one in found:
        sizes = sorted({x for x, _ in one.points})
        spread = Cell(f"{len(one.points)}: {', '.join(map(millions, sizes))}" if sizes else "none")
        if one.law is None:
            rows.append(Row(one.label, (*[Cell(error=one.why)] * 4, spread), remark=one.why))
            continue
        scale, rms = (Cell(significant(number)) for number in (one.law.scale, one.law.rms))
        rows.append(Row(one.label, (_constant(one.law.exponent), _constant(one.law.floor, "0"), scale, rms, spread)))
    notes = (
        f"{wanted.y} = E + A · {wanted.x}^−a by least squares over runs; intervals by the profile of squared errors: "
        "what the runs do not tell from the best fit. «open»: that end is not bounded by these runs.",
    )
    return Table(columns, tuple(rows), notes)


def scaling_plot(arms: Sequence[Arm], found: Sequence[Law], wanted: Scaling, number: int) -> Plot | None:
    """Runs and fitted laws over sizes; None without a run."""
    drawn = [one for one in found if one.points]
    if not drawn:
        return None
    x_column, y_column = columns_for(arms, [wanted.x, wanted.y])
    figure, axes = panel(x_column.line, y_column.line)
    figure.set_size_inches(7.2, 4.6)
    for index, one in enumerate(drawn):
        style: Any = {"color": colour(index), "marker": MARKERS[index % len(MARKERS)], "markersize": 5}
        axes.plot(*zip(*one.points, strict=True), linestyle="none", **style)
        if one.law is not None:
            sizes = np.geomspace(min(x for x, _ in one.points), max(x for x, _ in one.points), 60)
            axes.plot(sizes, one.law.at(sizes), linewidth=1.3, color=colour(index))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: millions(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    name = f"scaling-{number}-{wanted.x}-{wanted.y}"
    caption = "Points: runs. Lines: E + A · N^−a, where one fits; its constants stand in the table."
    title = f"{y_column.head} by {x_column.head}"
    return Plot(name, title, caption, svg_of(figure, name), tuple(one.label for one in drawn))


def _constant(one: Fitted, least: str = OPEN) -> Cell:
    low = least if one.low is None else significant(one.low)
    high = OPEN if one.high is None else significant(one.high)
    return Cell(f"{significant(one.value)} ({low} … {high})", "95 % interval by the profile of squared errors")
