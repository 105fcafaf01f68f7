"""Curves of training: a line for each run, or for each arm with a band over its repetitions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from workbench.metrics.value import Floats
from workbench.report.collect import Curve, Run
from workbench.report.plots import INK, POINTS, Plot, colour, draw_line, panel, svg_of
from workbench.report.tables import significant

TRAIN = ("train/bits_per_byte", "train/loss_nats_per_token")
UNITS = {"train/bits_per_byte": "bits per byte", "train/loss_nats_per_token": "nats per token"}
BANDS = " Lines: means over repetitions; bands: from the least to the greatest of them."
BETWEEN = 200
"""Places at which curves without common ones (by the clock) are averaged."""


@dataclass(frozen=True)
class Group:
    """Runs drawn as one line: the repetitions of an arm, or one run."""

    label: str
    runs: tuple[Run, ...]

    def curves(self, name: str) -> list[Curve]:
        """A logged value of each repetition that has it."""
        return [curve for run in self.runs if (curve := run.curve(name)).values]


def alone(runs: Iterable[Run]) -> list[Group]:
    """Each run by itself."""
    return [Group(run.label, (run,)) for run in runs]


def all_plots(groups: Sequence[Group]) -> list[Plot]:
    """Every panel for which some run logged something."""
    makers = (training_by_step, training_by_time, validation, bound_by_noise, calibration)
    return [plot for plot in (maker(groups) for maker in makers) if plot is not None]


def training_by_step(groups: Sequence[Group]) -> Plot | None:
    """Training loss against updates."""
    return _training(groups, "steps", "updates", "training-steps", "Training loss by update")


def training_by_time(groups: Sequence[Group]) -> Plot | None:
    """Training loss against wall-clock seconds."""
    return _training(groups, "seconds", "seconds of training", "training-seconds", "Training loss by time")


def validation(groups: Sequence[Group]) -> Plot | None:
    """What evaluators measured while training: held-out bits per byte against updates."""
    figure, axes = panel("updates", "bits per byte")
    drawn = False
    for index, group in enumerate(groups):
        logged = sorted({name for run in group.runs for name in run.logged()})
        for name in logged:
            if name.endswith("/bits_per_byte") and name not in TRAIN:
                pairs = [(_floats(curve.steps), _floats(curve.values)) for curve in group.curves(name)]
                drawn = drawn or bool(pairs)
                _draw(axes, index, pairs, marker="o")
    if not drawn:
        return None
    caption = "Averaged weights, on part of the held-out text; a bound for diffusion, exact for left to right."
    caption += BANDS * _several(groups)
    return Plot("validation", "Held-out text while training", caption, svg_of(figure, "validation"))


def bound_by_noise(groups: Sequence[Group]) -> Plot | None:
    """The bound's integrand by noise bucket, late in training."""
    return _by_bucket(
        groups,
        "bound",
        "nats per token",
        "Bound by noise level",
        "Training loss by the time t that was drawn, over the last quarter of training. Their mean is the loss.",
    )


def calibration(groups: Sequence[Group]) -> Plot | None:
    """The score sum's slack Z − 1 − ln Z by noise bucket, late in training."""
    return _by_bucket(
        groups,
        "calibration",
        "nats a masked token",
        "Calibration of the score sum",
        "Z − 1 − ln Z of the summed score Z (1 where exact): what the bound would gain if Z were made exact.",
        logarithmic=True,
    )


def _training(groups: Sequence[Group], against: str, x_label: str, stem: str, title: str) -> Plot | None:
    runs = [run for group in groups for run in group.runs]
    name = next((n for n in TRAIN if all(r.curve(n).values for r in runs if r.log)), TRAIN[-1])
    drawn = [(index, curves) for index, group in enumerate(groups) if (curves := group.curves(name))]
    if not drawn:
        return None
    figure, axes = panel(x_label, UNITS[name])
    tops, bottoms = [], []
    for index, curves in drawn:
        pairs = []
        for curve in curves:
            x, y = _floats(curve.steps if against == "steps" else curve.seconds), _floats(curve.values)
            smooth = smoothed(y)
            early = y[min(len(y) - 1, math.ceil(len(y) * 0.03))]
            tops.append(max(early, float(np.quantile(y, 0.95))))
            bottoms.append(float(smooth.min()))
            if len(curves) == 1:
                axes.plot(_thin(x), _thin(y), color=colour(index), linewidth=0.7, alpha=0.28)
            pairs.append((_thin(x), _thin(smooth)))
        _draw(axes, index, pairs)
    levels = [run.results and run.results.value("unigram_bits_per_byte") for run in runs]
    known = sorted({round(value.value, 3) for value in levels if value and value.value is not None})
    note = ""
    if name == TRAIN[0] and known:
        for level in known:
            axes.axhline(level, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
        tops.append(known[-1])
        note = " Dotted: the held-out text under token frequencies alone."
    room = max(tops) - min(bottoms) or 1.0
    axes.set_ylim(min(bottoms) - 0.06 * room, max(tops) + 0.06 * room)
    how = "Running means." + BANDS if _several(groups) else "Thin: as logged; thick: running mean."
    return Plot(stem, title, how + note, svg_of(figure, stem))


def _by_bucket(
    groups: Sequence[Group], name: str, y_label: str, title: str, caption: str, logarithmic: bool = False
) -> Plot | None:
    figure, axes = panel("noise level t (0 = clean text, 1 = noise)", y_label)
    drawn = False
    for index, group in enumerate(groups):
        pairs = []
        for run in group.runs:
            means = run.buckets(name)
            points = [((i + 0.5) / len(means), mean) for i, mean in enumerate(means) if mean is not None]
            points = [(x, mean) for x, mean in points if mean > 0 or not logarithmic]
            if points:
                pairs.append((_floats([x for x, _ in points]), _floats([y for _, y in points])))
        drawn = drawn or bool(pairs)
        _draw(axes, index, pairs, marker="o")
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
    return Plot(f"noise-{name}", title, caption + BANDS * _several(groups), svg_of(figure, name))


def _draw(axes: Axes, index: int, pairs: Sequence[tuple[Floats, Floats]], marker: str = "") -> None:
    """The line of a group: of one curve as it is; of several their mean, in a band from the least to the greatest."""
    if len(pairs) == 1:
        draw_line(axes, index, *pairs[0], marker=marker)
    elif pairs:
        x_N, y_RN = together(pairs)
        axes.fill_between(x_N, y_RN.min(0), y_RN.max(0), color=colour(index), alpha=0.2, linewidth=0)
        draw_line(axes, index, x_N, y_RN.mean(0), marker=marker)


def together(pairs: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """Curves (x, y) at common places: x [N], y [curves, N]. Where they share no two places, between them by lines."""
    shared = sorted(set.intersection(*(set(x.tolist()) for x, _ in pairs)))
    low, high = max(x[0] for x, _ in pairs), min(x[-1] for x, _ in pairs)
    x_N = _floats(shared) if len(shared) > 1 else np.linspace(low, max(low, high), BETWEEN)
    return x_N, np.stack([np.interp(x_N, x, y) for x, y in pairs])


def smoothed(values: Floats) -> Floats:
    """Running mean over the last 4 % of the entries: a curve that never looks ahead."""
    width = max(1, round(len(values) * 0.04))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(0, end - width)
    return np.asarray((sums[end] - sums[start]) / (end - start))


def _thin(values: Floats) -> Floats:
    """At most POINTS entries, evenly picked, the last one kept."""
    if len(values) <= POINTS:
        return values
    return np.asarray(values[np.linspace(0, len(values) - 1, POINTS).astype(int)])


def _floats(values: Iterable[float]) -> Floats:
    return np.asarray(list(values), dtype=np.float64)


def _several(groups: Sequence[Group]) -> bool:
    return any(len(group.runs) > 1 for group in groups)
