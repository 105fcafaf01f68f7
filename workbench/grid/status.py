"""What has become of each cell of a grid, read from files alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench.grid.cells import Cell, Planned
from workbench.grid.folder import GridFolder
from workbench.run import RunFolder, every, furthest, status_line


@dataclass(frozen=True)
class Standing:
    """A cell now.

    ``state``: "done", "failed", "running", "trained", "begun" or "waiting"; ``detail``: a step, a cause; ``run``: its
    run, where there is one; ``figures``: their file, where they are there.
    """

    cell: Cell
    state: str
    detail: str = ""
    run: RunFolder | None = None
    figures: Path | None = None


def standings(planned: Planned, folder: GridFolder, runs: Path) -> list[Standing]:
    """Every cell's standing. Each run folder is looked at once."""
    by_hash: dict[str, RunFolder] = {}
    for run in sorted(every(runs), key=furthest):
        by_hash.setdefault(run.hash, run)
    given = {cell.run: RunFolder(cell.run) for cell in planned.cells if cell.run is not None}
    return [
        _standing(cell, folder, by_hash.get(cell.resolved.hash) if cell.run is None else given[cell.run])
        for cell in planned.cells
    ]


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


def tally(found: Sequence[Standing]) -> dict[str, int]:
    """How many cells are in each state, those there are."""
    states = ("done", "failed", "running", "trained", "begun", "waiting")
    counts = {state: sum(one.state == state for one in found) for state in states}
    return {state: count for state, count in counts.items() if count}


def _so_far(run: RunFolder | None) -> str:
    return "" if run is None else status_line({**run.read_status(), "error": None})
