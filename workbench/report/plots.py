"""Plots as small SVGs, one panel each, so that a page can stack them. No legend inside: the page shows one."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from workbench.report.collect import Curve, Run
from workbench.report.tables import significant

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")
"""Okabe & Ito's palette, in an order whose first ones differ most in lightness too."""
DASHES = ("", "7 3", "2 2", "9 3 2 3", "5 2 1 2 1 2")
"""Line styles as SVG writes them: told apart without colour."""
INK, FAINT = "#33383f", "#d9dce1"
SIZE = (5.6, 3.3)
POINTS = 600
TRAIN = ("train/bits_per_byte", "train/loss_nats_per_token")
UNITS = {"train/bits_per_byte": "bits per byte", "train/loss_nats_per_token": "nats per token"}

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
    legend of its own."""

    name: str
    title: str
    caption: str
    svg: str
    legend: tuple[str, ...] = ()


def colour(index: int) -> str:
    """The colour of run number ``index``."""
    return COLOURS[index % len(COLOURS)]


def dashes(index: int) -> str:
    """The dash pattern of run number ``index``, as SVG writes it."""
    return DASHES[index % len(DASHES)]


def all_plots(runs: Sequence[Run]) -> list[Plot]:
    """Every panel for which some run logged something."""
    makers = (training_by_step, training_by_time, validation, bound_by_noise, calibration)
    return [plot for plot in (maker(runs) for maker in makers) if plot is not None]


def training_by_step(runs: Sequence[Run]) -> Plot | None:
    """Training loss against updates."""
    return _training(runs, "step", "updates")


def training_by_time(runs: Sequence[Run]) -> Plot | None:
    """Training loss against wall-clock seconds."""
    return _training(runs, "seconds", "seconds of training")


def validation(runs: Sequence[Run]) -> Plot | None:
    """What evaluators measured while training: held-out bits per byte against updates."""
    figure, axes = panel("updates", "bits per byte")
    drawn = False
    for index, run in enumerate(runs):
        for name in run.logged():
            if name.endswith("/bits_per_byte") and name not in TRAIN:
                curve = run.curve(name)
                drawn = drawn or bool(curve.values)
                draw_line(axes, index, curve.steps, curve.values, marker="o")
    if not drawn:
        return None
    caption = "Averaged weights, on part of the held-out text; a bound for diffusion, exact for left to right."
    return Plot("validation", "Held-out text while training", caption, svg_of(figure, "validation"))


def bound_by_noise(runs: Sequence[Run]) -> Plot | None:
    """The bound's integrand by noise bucket, late in training."""
    return _by_bucket(
        runs,
        "bound",
        "nats per token",
        "Bound by noise level",
        "Training loss by the time t that was drawn, over the last quarter of training. Their mean is the loss.",
    )


def calibration(runs: Sequence[Run]) -> Plot | None:
    """The score sum's slack Z − 1 − ln Z by noise bucket, late in training."""
    return _by_bucket(
        runs,
        "calibration",
        "nats a masked token",
        "Calibration of the score sum",
        "Z − 1 − ln Z of the summed score Z (1 where exact): what the bound would gain if Z were made exact.",
        logarithmic=True,
    )


# --- panels -------------------------------------------------------------------------------------------------


def _training(runs: Sequence[Run], against: str, x_label: str) -> Plot | None:
    name = next((n for n in TRAIN if all(r.curve(n).values for r in runs if r.log)), TRAIN[-1])
    curves = [(index, run.curve(name)) for index, run in enumerate(runs)]
    curves = [(index, curve) for index, curve in curves if curve.values]
    if not curves:
        return None
    figure, axes = panel(x_label, UNITS[name])
    tops, bottoms = [], []
    for index, curve in curves:
        x = np.asarray(curve.steps if against == "step" else curve.seconds, dtype=np.float64)
        y = np.asarray(curve.values, dtype=np.float64)
        smooth = _smoothed(y)
        x, y, smooth = (_thin(values) for values in (x, y, smooth))
        axes.plot(x, y, color=colour(index), linewidth=0.7, alpha=0.28)
        draw_line(axes, index, x, smooth)
        early = y[min(len(y) - 1, math.ceil(len(y) * 0.03))]
        tops.append(max(early, float(np.quantile(y, 0.95))))
        bottoms.append(float(smooth.min()))
    levels = [(run.results and run.results.value("unigram_bits_per_byte"), run) for run in runs]
    known = sorted({round(value.value, 3) for value, _ in levels if value and value.value is not None})
    note = ""
    if name == TRAIN[0] and known:
        for level in known:
            axes.axhline(level, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
        tops.append(known[-1])
        note = " Dotted: the held-out text under token frequencies alone."
    room = max(tops) - min(bottoms) or 1.0
    axes.set_ylim(min(bottoms) - 0.06 * room, max(tops) + 0.06 * room)
    stem = "training-steps" if against == "step" else "training-seconds"
    title = "Training loss by update" if against == "step" else "Training loss by time"
    return Plot(stem, title, f"Thin: as logged; thick: running mean.{note}", svg_of(figure, stem))


def _by_bucket(
    runs: Sequence[Run], name: str, y_label: str, title: str, caption: str, logarithmic: bool = False
) -> Plot | None:
    figure, axes = panel("noise level t (0 = clean text, 1 = noise)", y_label)
    drawn = False
    for index, run in enumerate(runs):
        means = run.buckets(name)
        points = [((i + 0.5) / len(means), mean) for i, mean in enumerate(means) if mean is not None]
        if logarithmic:
            points = [(x, mean) for x, mean in points if mean > 0]
        if points:
            drawn = True
            draw_line(axes, index, [x for x, _ in points], [y for _, y in points], marker="o")
    if not drawn:
        return None
    axes.set_xlim(0, 1)
    if logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: significant(value, 2)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
    return Plot(f"noise-{name}", title, caption, svg_of(figure, name))


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


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Running mean over the last 4 % of the entries: a curve that never looks ahead."""
    width = max(1, round(len(values) * 0.04))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(0, end - width)
    return np.asarray((sums[end] - sums[start]) / (end - start))


def _thin(values: np.ndarray) -> np.ndarray:
    """At most POINTS entries, evenly picked, the last one kept."""
    if len(values) <= POINTS:
        return values
    return np.asarray(values[np.linspace(0, len(values) - 1, POINTS).astype(int)])


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
