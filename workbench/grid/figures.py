"""Names of the figures that a recipe's evaluations can give, known before anything is measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from workbench import assemble
from workbench.core.errors import Problem
from workbench.core.loading import Resolved
from workbench.core.part import did_you_mean
from workbench.grid.section import Reported
from workbench.metrics.base import Evaluation, owed


def measurable(resolved: Resolved) -> set[str]:
    """Names that the recipe's evaluations without a cadence (all, where every one has one) can give."""
    every = assemble.evaluations(resolved).values()
    return set().union(*map(_of, [one for one in every if not one.every] or every))


def unknown_figures(report: Reported, recipes: Iterable[Resolved]) -> Iterator[Problem]:
    """Figures that a page asks for and that no cell of its grid can give."""
    asked = [(f"report.columns[{i}]", name) for i, name in enumerate(report.columns or ())]
    if report.compare != Reported().compare:
        asked += [(f"report.compare[{i}]", name) for i, name in enumerate(report.compare)]
    for kind, plots in (("frontiers", report.frontiers), ("scaling", report.scaling)):
        for i, one in enumerate(plots):
            asked += [(f"report.{kind}[{i}].x", one.x), (f"report.{kind}[{i}].y", one.y)]
    if not asked:
        return
    by_hash = {recipe.measured: recipe for recipe in recipes}
    known = set().union(*map(measurable, by_hash.values()))
    for path, name in asked:
        if name not in known:
            yield Problem(path, f"no cell measures a figure {name!r}.{did_you_mean(name, sorted(known))}")


def _of(evaluation: Evaluation) -> Iterator[str]:
    for metric in evaluation.metrics:
        yield from owed(metric, evaluation.kinds())
