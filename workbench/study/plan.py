"""From a study's file to the cells of all its questions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workbench.core.build import build
from workbench.core.errors import Problem, RecipeError, WorkbenchError
from workbench.core.loading import resolve_as
from workbench.core.part import did_you_mean
from workbench.core.tree import merge, stable_hash
from workbench.grid.cells import Cell, Plan, Planned, plan, plan_of
from workbench.grid.figures import measurable
from workbench.grid.section import Grid
from workbench.run import slug
from workbench.study.section import Study, is_study, load_study


@dataclass(frozen=True)
class PlannedStudy(Plan):
    """A study that can be run: a grid for each question, and the cells of all of them. Workers see one plan."""

    study: Study
    questions: Mapping[str, Planned]

    @property
    def name(self) -> str:
        """The study's."""
        return self.study.name

    @property
    def grids(self) -> tuple[Planned, ...]:
        """Its questions'."""
        return tuple(self.questions.values())


def planned(path: Path | str, overrides: Iterable[str] = ()) -> Planned | PlannedStudy:
    """A grid's or a study's file as cells.

    Raises:
        RecipeError: with the problems of the file, or those of cells.
        WorkbenchError: a file cannot be read; no cell is left.
    """
    return plan_study(path, overrides) if is_study(path) else plan(path, overrides)


def plan_study(path: Path | str, overrides: Iterable[str] = ()) -> PlannedStudy:
    """Read a study's file and resolve the recipe of every cell of every question.

    Raises:
        RecipeError: with the problems of the file, of the questions, of claims that name arms which there are not.
        WorkbenchError: a file cannot be read.
    """
    resolved = load_study(path, tuple(overrides))
    study: Study = build(resolved.node)
    source = resolved.source or Path(path)
    questions: dict[str, Planned] = {}
    problems: list[Problem] = []
    for name, asked in study.questions.items():
        try:
            questions[name] = plan_of(resolve_as(Grid, _grid(study, name, asked), source))
        except RecipeError as error:
            problems += [Problem(f"questions.{name}.{one.path}".rstrip("."), one.message) for one in error.problems]
        except WorkbenchError as error:
            problems.append(Problem(f"questions.{name}", str(error)))
    problems += _strangers(study, questions)
    if problems:
        raise RecipeError(problems, str(source))
    cells = tuple(
        _asked(cell, f"{number:02d}-{slug(name)}", name)
        for number, (name, grid) in enumerate(questions.items())
        for cell in grid.cells
    )
    told = {name: claim.as_data() for name, claim in resolved.node.settings["claims"].items()}
    digest = stable_hash([{name: grid.hash for name, grid in questions.items()}, told])
    return PlannedStudy(source, cells, digest, study, questions)


def _asked(cell: Cell, prefix: str, question: str) -> Cell:
    """A question's cell, and what is tried for it, under names that no other question's have."""
    options = tuple(replace(one, trial=_asked(one.trial, prefix, question)) for one in cell.options)
    return replace(cell, key=f"{prefix}-{cell.key}", question=question, options=options)


def _grid(study: Study, name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """A question as a grid's data."""
    pair = {"base": study.candidate, "baseline": study.baseline}
    rest = {key: value for key, value in asked.items() if key != "asks"}
    return {"name": slug(name), **pair, **rest, "set": merge(study.set, rest.get("set") or {})}


def _strangers(study: Study, questions: Mapping[str, Planned]) -> Iterable[Problem]:
    """Arms and figures that claims name and questions have not."""
    measured: dict[str, set[str]] = {}
    for name, claim in study.claims.items():
        grid = questions.get(claim.question)
        if grid is None:
            continue  # told above
        if claim.question not in measured:
            recipes = {cell.resolved.measured: cell.resolved for cell in grid.cells}
            measured[claim.question] = set().union(*map(measurable, recipes.values()))
        labels = dict.fromkeys(cell.arm.row(grid.report.over) for cell in grid.cells)
        for number, test in enumerate(claim.tests):
            for what, named, known in (
                ("has no arm", test.names(), labels),
                ("measures no figure", test.needs(), sorted(measured[claim.question])),
            ):
                for one in dict.fromkeys(named):
                    if one not in known:
                        message = f"question {claim.question!r} {what} {one!r}.{did_you_mean(one, known)}"
                        yield Problem(f"claims.{name}.tests[{number}]", message)
