"""Plots as small SVGs, one panel each, so that a page can stack them. No legend inside: the page shows one."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from workbench.report.collect import Curve

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")
"""Okabe & Ito's palette, in an order whose first ones differ most in lightness too."""
DASHES = ("", "7 3", "2 2", "9 3 2 3", "5 2 1 2 1 2")
"""Line styles as SVG writes them: told apart without colour."""
INK, FAINT = "#33383f", "#d9dce1"
SIZE = (5.6, 3.3)
POINTS = 600

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "workbench",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
}


@dataclass(frozen=True)
class Plot:
    """One panel: a file name's stem, a heading, what to read in it, the SVG text; what its lines are, where it has a
    legend of its own, and the characters of their markers, where those tell them apart."""

    name: str
    title: str
    caption: str
    svg: str
    legend: tuple[str, ...] = ()
    signs: str = ""


def colour(index: int) -> str:
    """The colour of run number ``index``."""
    return COLOURS[index % len(COLOURS)]


def dashes(index: int) -> str:
    """The dash pattern of run number ``index``, as SVG writes it."""
    return DASHES[index % len(DASHES)]


def panel(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """An empty panel in the house's style."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    return figure, axes


def draw_line(axes: Axes, index: int, x: Any, y: Any, marker: str = "") -> None:
    """A line in the colour and dashes of number ``index``."""
    pattern = tuple(float(part) / 1.8 for part in dashes(index).split())
    style: str | tuple[int, tuple[float, ...]] = (0, pattern) if pattern else "-"
    axes.plot(x, y, color=colour(index), linewidth=1.8, linestyle=style, marker=marker, markersize=4)


def svg_of(figure: Figure, salt: str) -> str:
    """The figure as an SVG element that scales with its place; ids that no other panel has."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": f"workbench-{salt}"}):
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.S)  # it would reach the whole page
    text = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", text, count=2)
    text = text.replace("<svg", '<svg role="img" stroke-linejoin="round"', 1)
    text = re.sub(r"font-family: [^;\"]*", "font-family: sans-serif", text)
    ids = re.findall(r'id="((?:figure|patch|axes|matplotlib|line2d|xtick|ytick|text)[^"]*)"', text)
    for name in sorted(set(ids), key=len, reverse=True):
        text = text.replace(f'id="{name}"', f'id="{salt}-{name}"')
    return text.strip()


def thinned(curve: Curve) -> Curve:
    """A curve of at most POINTS points."""
    if len(curve.steps) <= POINTS:
        return curve
    keep = np.linspace(0, len(curve.steps) - 1, POINTS).astype(int).tolist()
    return Curve(*([values[i] for i in keep] for values in (curve.steps, curve.seconds, curve.values)))
