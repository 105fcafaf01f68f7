"""Two figures of a grid's arms against each other, real text marked: quality against diversity, against time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from workbench.metrics.value import Value
from workbench.report.arms import Arm
from workbench.report.grid_tables import columns_for
from workbench.report.plots import INK, Plot, colour, panel, svg_of
from workbench.report.tables import HELD_OUT, significant

if TYPE_CHECKING:
    from workbench.grid.section import Frontier

MARKERS = "osD^vP*X<>hp"
SIGNS = "●■◆▲▼✚★✖◀▶⬢⬟"
"""Markers of a frontier's lines, as matplotlib names them and as characters."""
WIDE_RANGE = 20.0
"""A figure whose largest value is so many times its smallest is drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Line:
    """Arms that differ along one axis only, in its order. ``points``: (x, y, label along)."""

    label: str
    points: tuple[tuple[Value, Value, str], ...]


def frontier(arms: Sequence[Arm], wanted: Frontier, number: int) -> Plot | None:
    """One plot; None where no arm has both figures."""
    alike, strangers = judged_alike(arms, wanted)
    drawn = lines(alike, wanted)
    if not drawn:
        return None
    x_column, y_column = columns_for(arms, [wanted.x, wanted.y])
    figure, axes = panel(x_column.line, y_column.line)
    figure.set_size_inches(7.2, 4.6)
    for index, one in enumerate(drawn):
        xs, ys = [x.number for x, _, _ in one.points], [y.number for _, y, _ in one.points]
        style: Any = {"color": colour(index), "marker": MARKERS[index % len(MARKERS)], "markersize": 5}
        bars: Any = {"xerr": _bars([x for x, _, _ in one.points]), "yerr": _bars([y for _, y, _ in one.points])}
        axes.errorbar(xs, ys, linewidth=1.3 if len(xs) > 1 else 0, elinewidth=0.6, capsize=0, **bars, **style)
        for x, y, (_, _, label) in zip(xs, ys, one.points, strict=True) if len(xs) > 1 else ():
            axes.annotate(label, (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7, color=INK)
    beside = references(drawn)
    for name, place in beside.items():
        star: Any = {"marker": "*", "markersize": 13} if name == HELD_OUT else {"marker": "x", "markersize": 8}
        axes.plot(*place, color=INK, linestyle="none", **star)
        axes.annotate(name, place, xytext=(7, -3), textcoords="offset points", fontsize=8, color=INK)
    for axis, at, to_scale in ((axes.xaxis, 0, axes.set_xscale), (axes.yaxis, 1, axes.set_yscale)):
        numbers = [point[:2][at].number for one in drawn for point in one.points]
        numbers += [point[at] for point in beside.values()]
        if min(numbers) > 0 and max(numbers) / min(numbers) > WIDE_RANGE:
            to_scale("log")
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(FuncFormatter(lambda value, _: significant(value, 3)))
    along = f" Lines go along {wanted.along}; labels are its arms." if wanted.along else ""
    caption = f"Bars: 95 % intervals.{along}" + (" Star: held-out text." if HELD_OUT in beside else "")
    caption += " Crosses: made of held-out text by chance." * bool(set(beside) - {HELD_OUT})
    if strangers:
        caption += f" Left out, by another judge or on another machine than the first: {', '.join(strangers)}."
    name = f"frontier-{number}-{wanted.x}-{wanted.y}"
    legend = tuple(one.label for one in drawn)
    return Plot(name, f"{y_column.head} against {x_column.head}", caption, svg_of(figure, name), legend, SIGNS)


def judged_alike(arms: Sequence[Arm], wanted: Frontier) -> tuple[list[Arm], list[str]]:
    """The arms whose two figures are by the judges and machines of the first that has both, and others' labels."""
    alike: list[Arm] = []
    others: list[str] = []
    judges: tuple[str, str] | None = None
    for arm in arms:
        x, y = arm.figure(wanted.x), arm.figure(wanted.y)
        if x is None or y is None or x.value is None or y.value is None:
            continue
        judges = judges or (x.by, y.by)
        if (x.by, y.by) == judges:
            alike.append(arm)
        else:
            others.append(arm.label)
    return alike, others


def references(drawn: Sequence[Line]) -> dict[str, tuple[float, float]]:
    """Where what no model wrote lies, by name: held-out text, and calibration texts that both figures know."""
    found: dict[str, tuple[float, float]] = {}
    for x, y, _ in (point for one in drawn for point in one.points):
        if x.real is not None and y.real is not None:
            found.setdefault(HELD_OUT, (x.real, y.real))
        for name in x.calibration:
            if name in y.calibration:
                found.setdefault(name, (x.calibration[name], y.calibration[name]))
    return found


def lines(arms: Sequence[Arm], wanted: Frontier) -> list[Line]:
    """The arms as lines: those that agree but for the axis ``along``."""
    groups: dict[str, list[tuple[Value, Value, str]]] = {}
    for arm in arms:
        x, y = arm.figure(wanted.x), arm.figure(wanted.y)
        if x is None or y is None or x.value is None or y.value is None:
            continue
        rest = [label for axis, label in arm.labels.items() if axis != wanted.along]
        label = "baseline" if arm.baseline else " · ".join(rest) or arm.label
        groups.setdefault(label, []).append((x, y, arm.labels.get(wanted.along or "", "")))
    return [Line(label, tuple(points)) for label, points in groups.items()]


def _bars(values: Sequence[Value]) -> list[list[float]] | None:
    """Lengths below and above; 0 where a figure has no interval."""
    low = [max(0.0, v.number - v.low) if v.low is not None else 0.0 for v in values]
    high = [max(0.0, v.high - v.number) if v.high is not None else 0.0 for v in values]
    return [low, high] if any(low) or any(high) else None
