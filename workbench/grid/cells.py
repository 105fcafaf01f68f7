"""From a grid's file to its cells: the recipe of each, and of each value that is tried for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.core.build import build
from workbench.core.errors import Problem, RecipeError, WorkbenchError
from workbench.core.loading import Resolved
from workbench.core.tree import stable_hash
from workbench.grid.expand import Arm, baselines, expand
from workbench.grid.figures import unknown_figures
from workbench.grid.section import Grid, Reported, load_grid
from workbench.recipe import load
from workbench.run import RunFolder, slug

SHOWN_PROBLEMS = 10


@dataclass(frozen=True)
class Cell:
    """An arm with its recipe.

    ``key``: a name for files, unique in its grid; ``run``: the run it is of, if given; ``options``: what is tried for
    it, where the grid sweeps a setting (its recipe is then that of the first, until one is chosen); ``trained_by``: the
    recipe that makes its run, where ``resolved`` measures something else of it; ``question``: of a study.
    """

    key: str
    arm: Arm
    resolved: Resolved
    run: Path | None = None
    options: tuple[Option, ...] = ()
    trained_by: Resolved | None = None
    question: str = ""

    @property
    def name(self) -> str:
        """That of its arm."""
        return f"{self.question}: {self.arm.name}" if self.question else self.arm.name

    @property
    def work(self) -> tuple[str, str]:
        """What its figures depend on: hashes of the training and of all."""
        return self.resolved.hash, self.resolved.measured

    @property
    def training(self) -> Resolved:
        """The recipe that its run is trained by."""
        return self.trained_by or self.resolved


@dataclass(frozen=True)
class Option:
    """One value (or several together) of a sweep, tried for a cell.

    ``values``: by setting; ``resolved``: the cell's recipe where it is chosen; ``trial``: trains it and measures it on
    the part of the held-out text that serves to select. Cells that differ after training share their trials.
    """

    values: Mapping[str, Any]
    resolved: Resolved
    trial: Cell


@dataclass(frozen=True)
class Plan(ABC):
    """What can be worked on: cells (of each grid the baseline's first), the file they are of, a hash of them all."""

    source: Path
    cells: tuple[Cell, ...]
    hash: str

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called."""

    @property
    @abstractmethod
    def grids(self) -> tuple[Planned, ...]:
        """What is held to bounds of its own."""

    @property
    def folder_name(self) -> str:
        """``<name>-<hash8>``."""
        return f"{slug(self.name)}-{self.hash[:8]}"

    @property
    def trials(self) -> tuple[Cell, ...]:
        """What is tried before cells can be measured, each once."""
        return tuple({option.trial.key: option.trial for cell in self.cells for option in cell.options}.values())

    @property
    def due(self) -> tuple[Cell, ...]:
        """All that is to be worked on, trials first."""
        return (*self.trials, *self.cells)

    @property
    def trainings(self) -> tuple[Cell, ...]:
        """Trials, and the cells that need none: every recipe that is trained is that of one of them."""
        return (*self.trials, *(cell for cell in self.cells if not cell.options))


@dataclass(frozen=True)
class Planned(Plan):
    """A grid that can be run, with its settings."""

    grid: Grid

    @property
    def name(self) -> str:
        """The grid's."""
        return self.grid.name

    @property
    def grids(self) -> tuple[Planned, ...]:
        """Itself."""
        return (self,)

    @property
    def report(self) -> Reported:
        """How its page is made."""
        return self.grid.report


def plan(source: Path | str | Mapping[str, Any], overrides: Iterable[str] = ()) -> Planned:
    """Read a grid and resolve the recipe of every cell.

    ``source``: its file; or its settings as plain data, files then named relative to the working folder.

    Raises:
        RecipeError: with the problems of the file, or those of cells (each told once, with the cells that have it).
        WorkbenchError: a file cannot be read; no cell is left.
    """
    return plan_of(load_grid(source, tuple(overrides)))


def plan_of(resolved: Resolved) -> Planned:
    """The cells of a grid that is read.

    Raises:
        RecipeError: with the problems of cells (each told once, with the cells that have it).
        WorkbenchError: a recipe cannot be read; no cell is left.
    """
    from workbench.grid.sweep import options_of  # it makes cells of cells

    grid: Grid = build(resolved.node)
    place = resolved.source or Path("grid.yaml")
    arms = [*baselines(grid, place.parent), *expand(grid, place.parent)]
    if all(arm.baseline for arm in arms):
        raise WorkbenchError(f"{place}: `skip` leaves no cell")
    cells: list[Cell] = []
    trials: dict[str, Cell] = {}
    problems: dict[tuple[str, str], list[str]] = {}
    for number, arm in enumerate(arms):
        try:
            run, recipe = _recipe_of(arm)
            cell = Cell(f"{number:03d}-{slug(arm.name)[:60]}", arm, recipe, run)
            cells.append(options_of(cell, grid, trials) if grid.sweep else cell)
        except RecipeError as error:
            for problem in error.problems:
                problems.setdefault((problem.path, problem.message), []).append(arm.name)
    if problems:
        raise RecipeError(_told(problems, len(arms)), str(place))
    unknown = list(unknown_figures(grid.report, (cell.resolved for cell in cells)))
    if unknown:
        raise RecipeError(unknown, str(place))
    return Planned(place, tuple(cells), stable_hash([_content(cell) for cell in cells]), grid)


def _content(cell: Cell) -> list[Any]:
    """What counts in a grid's hash."""
    tried = [[one.resolved.measured, one.trial.resolved.measured] for one in cell.options]
    return [dict(cell.arm.labels), cell.arm.baseline, *cell.work, *([tried] if tried else [])]


def _recipe_of(arm: Arm) -> tuple[Path | None, Resolved]:
    """The recipe of an arm, and the run folder that it starts from where its base is one: that run is not trained.

    Raises:
        RecipeError: the recipe's problems; a patch that would train the given run anew.
    """
    if not (arm.base / "status").is_file():
        return None, load(arm.base, arm.overrides)
    recipe = load(arm.base / "resolved.yaml", arm.overrides)
    if recipe.hash != load(arm.base / "resolved.yaml").hash:
        why = f"{arm.base} is a trained run: patches of it change the sampler and what is measured, nothing else"
        raise RecipeError([Problem("base", why)])
    if not RunFolder(arm.base).finished:
        why = f"{arm.base} is not trained to its end: workbench train --resume {arm.base}"
        raise RecipeError([Problem("base", why)])
    return arm.base, recipe


def _told(problems: Mapping[tuple[str, str], list[str]], cells: int) -> Iterator[Problem]:
    for (path, message), names in list(problems.items())[:SHOWN_PROBLEMS]:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        yield Problem(path, f"{message} (in {'every cell' if len(names) == cells else f'cells {shown}'})")
    if len(problems) > SHOWN_PROBLEMS:
        yield Problem("", f"and {len(problems) - SHOWN_PROBLEMS} problems more")
