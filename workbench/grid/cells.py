"""From a grid's file to its cells: which combinations there are, and the recipe of each."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.core.build import build
from workbench.core.errors import Problem, RecipeError, WorkbenchError
from workbench.core.loading import Resolved
from workbench.core.tree import stable_hash
from workbench.grid.faults import wanted_labels
from workbench.grid.figures import unknown_figures
from workbench.grid.section import Grid, Reported, load_grid
from workbench.recipe import found, load
from workbench.run import RunFolder, slug

BASELINE = "baseline"
"""The label of row zero."""
MOST_CELLS = 10_000
MOST_PRODUCTS = 1_000_000
SHOWN_PROBLEMS = 10


@dataclass(frozen=True)
class Arm:
    """One combination: its label on each axis ({} for the baseline), the recipe it starts from, its patches in order.

    An axis that does not vary here (``only``) has no label.
    """

    labels: Mapping[str, str]
    base: Path
    patches: tuple[Mapping[str, Any], ...]
    baseline: bool = False

    @property
    def overrides(self) -> list[str]:
        """The patches as overrides."""
        return [f"{setting}={json.dumps(value)}" for patch in self.patches for setting, value in patch.items()]

    @property
    def name(self) -> str:
        """``mamba2 · 0``, or ``baseline · 0``."""
        return " · ".join([*([BASELINE] if self.baseline else []), *self.labels.values()]) or BASELINE


@dataclass(frozen=True)
class Cell:
    """An arm with its recipe. ``key``: a name for files, unique in its grid; ``run``: the run it is of, if given."""

    key: str
    arm: Arm
    resolved: Resolved
    run: Path | None = None

    @property
    def name(self) -> str:
        """That of its arm."""
        return self.arm.name

    @property
    def work(self) -> tuple[str, str]:
        """What its figures depend on: hashes of the training and of all."""
        return self.resolved.hash, self.resolved.measured


@dataclass(frozen=True)
class Planned:
    """A grid that can be run: its settings, its cells (the baseline's first), and a hash of them all."""

    grid: Grid
    source: Path
    cells: tuple[Cell, ...]
    hash: str

    @property
    def report(self) -> Reported:
        """How its page is made."""
        return self.grid.report

    @property
    def folder_name(self) -> str:
        """``<name>-<hash8>``."""
        return f"{slug(self.grid.name)}-{self.hash[:8]}"


def plan(path: Path | str, overrides: Iterable[str] = ()) -> Planned:
    """Read a grid's file and resolve the recipe of every cell.

    Raises:
        RecipeError: with the problems of the file, or those of cells (each told once, with the cells that have it).
        WorkbenchError: a file cannot be read; no cell is left.
    """
    resolved = load_grid(path, tuple(overrides))
    grid: Grid = build(resolved.node)
    source = resolved.source or Path(path)
    arms = [*baselines(grid, source.parent), *expand(grid, source.parent)]
    if all(arm.baseline for arm in arms):
        raise WorkbenchError(f"{source}: `skip` leaves no cell")
    cells, problems = [], dict[tuple[str, str], list[str]]()
    for number, arm in enumerate(arms):
        try:
            run, recipe = _recipe_of(arm)
        except RecipeError as error:
            for problem in error.problems:
                problems.setdefault((problem.path, problem.message), []).append(arm.name)
            continue
        cells.append(Cell(f"{number:03d}-{slug(arm.name)[:60]}", arm, recipe, run))
    if problems:
        raise RecipeError(_told(problems, len(arms)), str(source))
    unknown = list(unknown_figures(grid.report, (cell.resolved for cell in cells)))
    if unknown:
        raise RecipeError(unknown, str(source))
    digest = stable_hash([[dict(cell.arm.labels), cell.arm.baseline, *cell.work] for cell in cells])
    return Planned(grid, source, tuple(cells), digest)


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


def expand(grid: Grid, folder: Path) -> Iterator[Arm]:
    """All combinations of the axes, in the order of the file (the last axis runs fastest), skips left out.

    Raises:
        WorkbenchError: there are more than `MOST_CELLS`.
    """
    axes = {axis: _arms(axis, arms) for axis, arms in grid.axes.items()}
    together = _zipped(axes, grid.zip)
    product = math.prod(len(axes[group[0]]) for group in together)
    if product > MOST_PRODUCTS:
        raise WorkbenchError(f"the axes multiply to {product:,} combinations: take fewer, or `zip` some")
    seen: set[tuple[tuple[str, str], ...]] = set()
    for combination in itertools.product(*(range(len(axes[group[0]])) for group in together)):
        picked = {axis: axes[axis][i] for group, i in zip(together, combination, strict=True) for axis in group}
        chosen = {axis: picked[axis] for axis in axes}  # in the file's order, whatever went together
        labels = {axis: label for axis, (label, _) in chosen.items()}
        kept = {axis: label for axis, label in labels.items() if _matches(labels, grid.only.get(axis, {}))}
        mark = tuple(kept.items())
        if mark in seen or any(_matches(kept, one) for one in grid.skip):
            continue
        seen.add(mark)
        if len(seen) > MOST_CELLS:
            raise WorkbenchError(f"a grid of more than {MOST_CELLS:,} cells: take fewer axes, or `zip` or `skip` some")
        base, patches = grid.base, [grid.set]
        for axis in kept:
            patch = dict(chosen[axis][1])
            base = str(patch.pop("extends", base))
            patches.append(patch)
        yield Arm(kept, folder / base, tuple(_here(patch, folder) for patch in patches))


def baselines(grid: Grid, folder: Path) -> Iterator[Arm]:
    """Row zero, once for every combination of the axes that are repetitions."""
    if grid.baseline is None:
        return
    over = [axis for axis in grid.report.over if axis in grid.axes]
    for picked in itertools.product(*(_arms(axis, grid.axes[axis]) for axis in over)):
        labels = dict(zip(over, (label for label, _ in picked), strict=True))
        patches = tuple(_here(patch, folder) for patch in (grid.set, *(patch for _, patch in picked)))
        yield Arm(labels, folder / grid.baseline, patches, baseline=True)


def _here(patch: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A patch whose files are named relative to the grid's, as a recipe's are relative to the recipe."""

    def placed(name: Any) -> Any:
        if not isinstance(name, str) or (not (folder / name).exists() and found(Path(name)) != Path(name)):
            return name  # no file's name, or that of a shipped recipe
        return str((folder / name).resolve())

    known = dict(patch)
    if isinstance(start := known.get("start"), Mapping) and "recipe" in start:
        known["start"] = {**start, "recipe": placed(start["recipe"])}
    if "start.recipe" in known:
        known["start.recipe"] = placed(known["start.recipe"])
    if isinstance(plugins := known.get("plugins"), list):
        known["plugins"] = [placed(name) for name in plugins]
    return known


def _arms(axis: str, arms: Any) -> list[tuple[str, Mapping[str, Any]]]:
    if isinstance(arms, list):
        return [(str(value), {axis: value}) for value in arms]
    return [(str(label), patch or {}) for label, patch in arms.items()]


def _zipped(axes: Mapping[str, Any], groups: list[list[str]]) -> list[list[str]]:
    """Axes in groups that go along together, in the order of their first axes; most are alone."""
    of = {axis: group for group in groups for axis in group}
    together: list[list[str]] = []
    for axis in axes:
        group = of.get(axis, [axis])
        if group not in together:
            together.append(group)
    return together


def _matches(labels: Mapping[str, str], wanted: Mapping[str, Any]) -> bool:
    return all(labels.get(axis) in wanted_labels(these) for axis, these in wanted.items())


def _told(problems: Mapping[tuple[str, str], list[str]], cells: int) -> Iterator[Problem]:
    for (path, message), names in list(problems.items())[:SHOWN_PROBLEMS]:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        yield Problem(path, f"{message} (in {'every cell' if len(names) == cells else f'cells {shown}'})")
    if len(problems) > SHOWN_PROBLEMS:
        yield Problem("", f"and {len(problems) - SHOWN_PROBLEMS} problems more")
