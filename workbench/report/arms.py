"""The arms of a grid, each with what its repetitions gave. Reads files that are there; runs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from workbench.metrics.results import ResultsError
from workbench.metrics.statistics import ratio
from workbench.metrics.value import Value
from workbench.report.collect import Run, collect, read_results

if TYPE_CHECKING:
    from workbench.grid.status import Standing


TWO_JUDGES = "its repetitions are by two judges or on two machines; evaluate them by the same"


@dataclass(frozen=True)
class Arm:
    """One combination of the axes that are compared.

    ``labels``: by axis, in the order of the file; ``repeats``: what each repetition gave, by its labels (those of the
    axes that are repetitions); ``failed``: why the others gave nothing.
    """

    label: str
    labels: Mapping[str, str]
    baseline: bool
    repeats: Mapping[tuple[str, ...], Run]
    failed: tuple[str, ...] = ()

    @property
    def run(self) -> Run | None:
        """The first repetition."""
        return next(iter(self.repeats.values()), None)

    def values(self, name: str) -> dict[tuple[str, ...], Value]:
        """A figure of each repetition that has it."""
        found = {key: run.results.value(name) for key, run in self.repeats.items() if run.results}
        return {key: value for key, value in found.items() if value is not None and value.value is not None}

    def figure(self, name: str) -> Value | None:
        """The figure of the arm: that of its one repetition, or the mean of several with an interval over them.

        None where nothing of that name was measured; a value with ``error`` where it failed.
        """
        found = list(self.values(name).values())
        if not found:
            measured = (run.results.value(name) for run in self.repeats.values() if run.results)
            return next((value for value in measured if value is not None), None)
        return found[0] if len(found) == 1 else _mean(found)


def arms_of(found: Sequence[Standing], over: Sequence[str]) -> list[Arm]:
    """The arms of a grid in its order, the baseline first."""
    runs = {run.path: run for run in collect({one.run.path for one in found if one.run is not None and one.figures})}
    groups: dict[tuple[bool, tuple[tuple[str, str], ...]], list[Standing]] = {}
    for one in found:
        compared = tuple((axis, label) for axis, label in one.cell.arm.labels.items() if axis not in over)
        groups.setdefault((one.cell.arm.baseline, compared), []).append(one)
    arms = []
    for (baseline, compared), group in groups.items():
        labels = dict(compared)
        repeats, failed = {}, []
        for one in group:
            key = tuple(label for axis, label in one.cell.arm.labels.items() if axis in over)
            if one.figures is None or one.run is None:
                failed.append(f"{one.cell.name}: {one.state}{': ' * bool(one.detail)}{one.detail}")
                continue
            try:
                results = read_results(one.figures)
            except (OSError, ValueError, ResultsError) as error:
                failed.append(f"{one.cell.name}: {error}")
                continue
            settings = one.cell.resolved.data
            repeats[key] = replace(runs[one.run.path], label=one.cell.name, settings=settings, results=results)
        arms.append(Arm(group[0].cell.arm.row(over), labels, baseline, repeats, tuple(failed)))
    return arms


def names_of(arms: Iterable[Arm]) -> list[str]:
    """Names of all figures, in the order in which they come."""
    runs = [run for arm in arms for run in arm.repeats.values() if run.results]
    return list(dict.fromkeys(value.name for run in runs if run.results for value in run.results.values))


def _mean(found: Sequence[Value]) -> Value:
    if len({value.by for value in found}) > 1:
        return Value(found[0].name, None, better=found[0].better, unit=found[0].unit, error=TWO_JUDGES)
    estimate = ratio(np.asarray([value.value for value in found], dtype=np.float64), np.ones(len(found)))
    real = [value.real for value in found if value.real is not None]
    shared = set.intersection(*(set(value.calibration) for value in found))
    return replace(
        found[0],
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        se=estimate.se,
        n=len(found),
        method=f"mean of {len(found)} repetitions; t interval over them",
        real=sum(real) / len(real) if real else None,
        real_low=None,
        real_high=None,
        calibration={
            name: sum(value.calibration[name] for value in found) / len(found)
            for name in found[0].calibration
            if name in shared
        },
    )
