"""What has become of each cell of a grid, read from files alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from workbench.core.errors import WorkbenchError
from workbench.grid.cells import Cell, Plan, Planned
from workbench.grid.folder import GridFolder
from workbench.grid.sweep import Tried, chosen, tried
from workbench.run import RunFolder, by_hash, status_line


@dataclass(frozen=True)
class Standing:
    """A cell now.

    ``state``: "done", "failed", "running", "trained", "begun" or "waiting"; ``detail``: a step, a cause; ``run``: its
    run, where there is one; ``figures``: their file, where they are there; ``tried``: how its trials stand. The cell of
    a sweep has the recipe that was chosen, once one is.
    """

    cell: Cell
    state: str
    detail: str = ""
    run: RunFolder | None = None
    figures: Path | None = None
    tried: tuple[Tried, ...] = ()


def standings(planned: Plan, folder: GridFolder, runs: Path, trials: bool = False) -> list[Standing]:
    """Every cell's standing, that of trials before them if asked. Each run folder is looked at once."""
    known = by_hash(runs)
    given = {cell.run: RunFolder(cell.run) for cell in planned.cells if cell.run is not None}
    found = []
    for cell in planned.due if trials else planned.cells:
        if cell.options:
            found.append(_swept(cell, folder, known))
        else:
            run = known.get(cell.resolved.hash) if cell.run is None else given[cell.run]
            found.append(_standing(cell, folder, run))
    return found


def _swept(cell: Cell, folder: GridFolder, known: Mapping[str, RunFolder]) -> Standing:
    found = tuple(tried(cell, folder, known.get))
    try:
        settled = chosen(cell, found)
    except WorkbenchError as error:
        return Standing(cell, "failed", str(error), tried=found)
    if settled is None:
        over = sum(one.state != "due" for one in found)
        return Standing(cell, "waiting", f"{over} of {len(found)} values tried", tried=found)
    return replace(_standing(settled, folder, known.get(settled.resolved.hash)), tried=found)


def _standing(cell: Cell, folder: GridFolder, run: RunFolder | None) -> Standing:
    figures = run.figures(cell.resolved.measured) if run is not None else None
    if figures is not None:
        return Standing(cell, "done", "", run, figures)
    failure = folder.failure(cell)
    if failure is not None:
        return Standing(cell, "failed", failure["cause"], run)
    if folder.in_hand(cell):
        return Standing(cell, "running", _so_far(run), run)
    if run is not None:
        return Standing(cell, "trained" if run.finished else "begun", _so_far(run), run)
    return Standing(cell, "waiting")


def by_grid(planned: Plan, found: Iterable[Standing]) -> list[tuple[str, Planned, list[Standing]]]:
    """The grids of a plan, each with the question that it answers ("" where it is one of its own) and its cells."""
    asked: dict[str, list[Standing]] = {}
    for one in found:
        asked.setdefault(one.cell.question, []).append(one)
    return [
        (question, grid, cells) for grid, (question, cells) in zip(planned.grids, asked.items(), strict=True)
    ]


def tally(found: Sequence[Standing]) -> dict[str, int]:
    """How many cells are in each state, those there are."""
    states = ("done", "failed", "running", "trained", "begun", "waiting")
    counts = {state: sum(one.state == state for one in found) for state in states}
    return {state: count for state, count in counts.items() if count}


def _so_far(run: RunFolder | None) -> str:
    return "" if run is None else status_line({**run.read_status(), "error": None})
