"""The work of a grid: cell after cell, whoever else is at it.

A worker takes the first cell that is due and that nobody has in hand, trains its run where it is not trained,
measures what is not measured, and goes on. What is finished is found by content: other grids' runs too. Locks are the
kernel's and end with their holder, so that any number of workers may be started, and killed, at any time.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from workbench import experiment
from workbench.core.errors import WorkbenchError, in_words
from workbench.core.files import write_json
from workbench.core.loading import Resolved
from workbench.evaluate import Tell, silent
from workbench.grid.cells import Cell, Plan
from workbench.grid.folder import GridFolder
from workbench.grid.status import Standing
from workbench.grid.sweep import chosen, tried
from workbench.launch import together
from workbench.metrics.results import ResultsError
from workbench.recipe import load
from workbench.report.collect import read_results
from workbench.run import InUse, RunFolder, by_hash, find, only_writer, turn
from workbench.train.interrupt import Interrupted

WAIT = 1.0
"""Seconds between looks at cells that others have in hand."""


@dataclass(frozen=True)
class Places:
    """Where runs and packed text are kept."""

    runs: Path
    cache: Path | None = None


Heard = Callable[[Cell, str], None]
"""``heard(cell, what)``: what becomes of a cell."""


def work(planned: Plan, folder: GridFolder, places: Places, heard: Heard, tell: Tell = silent) -> None:
    """Do what is due, until every cell is done or has failed.

    A cell that fails is written down with its cause and harms no other one.

    Raises:
        Interrupted: a signal came; everything is saved.
    """
    waiting = list(planned.due)
    while waiting:
        left: list[Cell] = []
        known: dict[str, RunFolder] = {}
        for waited in waiting:
            cell = waited
            try:
                if waited.options:
                    known = known or by_hash(places.runs)  # trials come first: what they did in this round is known
                    settled = chosen(waited, tried(waited, folder, known.get))
                    if settled is None:
                        left.append(waited)
                        continue
                    cell = settled
                run = run_of(cell, places)
                done = run is not None and run.figures(cell.resolved.measured) is not None
                if not folder.failure(cell) and not done:
                    with folder.claimed(cell, 0 if run is None else int(run.read_status().get("step") or 0)):
                        heard(cell, "begun")
                        finish(cell, places, tell)
                    heard(cell, "done")
            except InUse:
                left.append(waited)
            except Interrupted:
                raise
            except (Exception, SystemExit) as error:  # a plug-in may do anything
                heard(cell, f"failed: {cause(error)}{_written(folder, cell, error)}")
        if left == waiting:
            time.sleep(WAIT)
        waiting = left


def _written(folder: GridFolder, cell: Cell, error: BaseException) -> str:
    """Write a failure down; what to tell where that fails too. The cell is then due to whoever comes next."""
    try:
        folder.fail(cell, cause(error), traceback.format_exc())
    except OSError as second:
        return f"; and that cannot be written down: {cause(second)}"
    return ""


def finish(cell: Cell, places: Places, tell: Tell = silent) -> None:
    """Measure a cell where that is due, and train its run before where that is due: a trained one, too, that has lost
    its weights, unless it was given.

    Raises:
        InUse: another process is at this run, or at these figures.
        Exception: whatever training or opening it raises.
    """
    run = run_of(cell, places)
    if run is not None and run.figures(cell.resolved.measured) is not None:
        return
    if run is None or cell.run is None:
        run = train(cell.training, places)
    if run.figures(cell.resolved.measured) is None:
        measure(run, cell, places.cache, tell)


def train(resolved: Resolved, places: Places) -> RunFolder:
    """The trained run of a recipe; that of the recipe whose weights it starts with is trained before.

    Raises:
        InUse: another process is at it, or at the one before.
    """
    with turn(places.runs / ".creating"):
        run = next(iter(find(resolved.hash, places.runs)), None) or experiment.create(resolved, places.runs)
    if not experiment.trained(run):
        start = resolved.data["start"]
        if start is not None and start["recipe"] and not _is_trained(start["run"], places):
            parent = load(start["recipe"], start["changes"] or ())
            if parent.hash != start["run"]:
                raise WorkbenchError(
                    f"start: {start['recipe']} is now a recipe of hash {parent.hash}, and the run begins with one of "
                    f"hash {start['run']}: undo the change, or plan the grid anew"
                )
            train(parent, places)
        together.train(run, resolved, places.cache, quiet=True)
    return run


def _is_trained(digest: str, places: Places) -> bool:
    return any(run.finished for run in find(digest, places.runs))


def measure(run: RunFolder, cell: Cell, cache: Path | None, tell: Tell = silent) -> None:
    """Measure a trained run by a cell's sampler and evaluations, and keep the figures beside the run's own.

    Raises:
        InUse: another process is at these very figures.
    """
    run.measured.mkdir(exist_ok=True)
    out = run.measured / f"{cell.resolved.measured}.json"
    with only_writer(out.with_suffix(".lock"), out):
        if run.figures(cell.resolved.measured) is None:
            results = experiment.examine(run, cell.resolved, cache, tell)
            write_json(out, results.as_data())
            experiment.forget_shards(run, results)


def measure_again(found: Iterable[Standing]) -> list[Standing]:
    """Set figures aside some of which failed (as ``*.failed``), so that they are due again; the cells whose figures are
    the run's own, which `experiment.evaluate` makes anew and a grid leaves as they are."""
    left = []
    for one in found:
        if one.figures is None or one.run is None:
            continue
        with suppress(OSError, ValueError, ResultsError):  # gone, or changed, since they were looked at
            if not any(value.error for value in read_results(one.figures).values):
                continue
            if one.figures == one.run.results:
                left.append(one)
            else:
                one.figures.rename(one.figures.with_suffix(".failed"))
    return left


def run_of(cell: Cell, places: Places) -> RunFolder | None:
    """The run that a cell is given, or that of its training, whatever it was made for; of several the furthest."""
    if cell.run is not None:
        return RunFolder(cell.run)
    return next(iter(find(cell.resolved.hash, places.runs)), None)


def cause(error: BaseException) -> str:
    """What went wrong, in words for the table."""
    return in_words(error) or f"{type(error).__name__}: {error}"
