"""``workbench grid``: run a grid of recipes, see how it stands, make its page."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.cli.places import add_places
from workbench.core.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.grid.cells import Cell, Plan
    from workbench.grid.folder import GridFolder
    from workbench.launch.base import Launcher

EVERY = 10.0
"""Seconds between lines on how it stands, where the output is no terminal."""
ROUNDS = 3
"""Times that workers are started anew where they ended and nothing came of it."""
SHARE = 20.0
"""A look at how all cells stand reads all their figures: the next one waits this many times as long as it took."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("grid", type=Path, help="a grid's file")
    parser.add_argument("override", nargs="*", help="settings of the grid to change, as in set.train.steps=100")
    parser.add_argument("--dry-run", action="store_true", help="show cells and what they cost, run nothing")
    parser.add_argument(
        "--trial",
        type=int,
        default=0,
        metavar="N",
        help="time N updates of every network of which no finished run tells how long one takes",
    )
    parser.add_argument("--status", action="store_true", help="show how each cell stands, run nothing")
    parser.add_argument("--retry", action="store_true", help="try failed cells, and figures that failed, again")
    parser.add_argument(
        "--launcher", default="local", metavar="WHO", help="local, slurm, or a file with a launcher's settings"
    )
    parser.add_argument("--workers", type=int, help="workers (local: one a GPU, else one for two cores)")
    parser.add_argument("--grids", type=Path, default=Path("grids"), help="folder of grids' folders (default: grids)")
    parser.add_argument("--json", action="store_true", help="with --dry-run or --status: data for another program")
    parser.add_argument("--worker", choices=("child", "alone"), help=argparse.SUPPRESS)
    parser.add_argument("--plan", help=argparse.SUPPRESS)
    add_places(parser)


def run(args: argparse.Namespace) -> int:
    """Plan, check that it is fair, run what is due, write the page. 1 where a cell failed."""
    from workbench.cli.grid_plan import show_plan
    from workbench.grid import fairness
    from workbench.grid.folder import GridFolder
    from workbench.grid.pace import timed
    from workbench.grid.status import standings
    from workbench.grid.work import measure_again
    from workbench.study.plan import planned as plan

    if args.workers is not None and args.workers < 1:
        raise WorkbenchError("--workers is their number, at least 1")
    planned = plan(args.grid, args.override)
    if args.worker:
        require_same_plan(planned, args.plan)
        return _work(args, planned)
    if args.status:
        return _show_status(planned, GridFolder.open(planned, args.grids), args)
    networks = fairness.costed(planned.trainings)
    if args.dry_run or any(grid.grid.fair.seconds is not None for grid in planned.grids):
        networks = timed(networks, args.runs, args.trial, args.cache)
    if args.dry_run:
        show_plan(planned, networks, args.workers or 1, args.json)
    for grid in planned.grids:
        own = fairness.costed(grid.trainings, networks)
        for sentence in fairness.unchecked(grid, own):
            print(sentence, file=sys.stderr)
        fairness.require_fair(grid, own)
    if args.dry_run:
        return 0
    folder = GridFolder.open(planned, args.grids)
    if args.retry:
        folder.forgive(planned.due)
        for one in measure_again(standings(planned, folder, args.runs)):
            print(f"{one.cell.name}: figures that failed are the run's own: workbench eval {one.run.path}")
    if not _run_all(args, planned, folder, launcher(args.launcher, args.workers)):
        return 0  # the work goes on without us
    return _report(args, planned, folder)


def _run_all(args: argparse.Namespace, planned: Plan, folder: GridFolder, by: Launcher) -> bool:
    """Have workers at it, and say how it goes until nothing is left to do; false where they go on without us."""
    from workbench.grid.status import standings, tally
    from workbench.launch.base import Job
    from workbench.launch.together import processes
    from workbench.study.plan import planned as plan
    from workbench.train.progress import clock

    began, next_words, next_look, more, looked = time.monotonic(), 0.0, 0.0, True, 0
    first = tally(standings(planned, folder, args.runs, trials=True))
    before, total = first.get("done", 0), len(planned.due)
    due = total - before - first.get("failed", 0)
    if not due:
        return True
    tried = f" and {len(planned.trials)} trials" * bool(planned.trials)
    print(f"{folder.path}: {len(planned.cells)} cells{tried}, {before} done before", flush=True)

    def watch() -> bool:
        nonlocal next_words, next_look, more, looked
        looked += 1
        if (now := time.monotonic()) < next_look:
            return more
        found = standings(planned, folder, args.runs, trials=True)
        counts = tally(found)
        done, over = counts.get("done", 0), counts.get("done", 0) + counts.get("failed", 0)
        more, next_look = over < total, now + SHARE * (time.monotonic() - now)
        if now >= next_words:
            next_words = now + EVERY if over < total else float("inf")
            left = ""
            if done - before > 0 and over < total:
                left = f" · about {clock((now - began) / (done - before) * (total - over))} left"
            running = ", ".join(one.cell.name for one in found if one.state == "running")
            words = ", ".join(f"{number} {state}" for state, number in counts.items())
            print(f"{planned.name}: {words}{left}{' · ' * bool(running)}{running}", file=sys.stderr, flush=True)
        return more

    most = max(processes(cell.training) for cell in planned.due)
    job = Job(planned.name, folder, [*_command(args), "--plan", planned.hash], due, watch, most)
    stuck, stood = 0, first
    while stuck < ROUNDS:
        looks, words = looked, by.run(job)
        if words:
            print(words, file=sys.stderr)
        if looked == looks:  # it does not wait
            return False
        counts = tally(standings(planned, folder, args.runs, trials=True))
        if counts.get("done", 0) + counts.get("failed", 0) >= total:
            return True
        # workers ended, in error it may be, before all was done: others take their place, unless nothing comes of it
        require_same_plan(plan(args.grid, args.override), planned.hash)
        stuck, stood = (stuck + 1 if counts == stood else 0), counts
        next_look = 0.0
    return True


def require_same_plan(planned: Plan, digest: str | None) -> None:
    """Check that a grid is the one that was started: its file, or one that it is made of, may have changed since.

    Raises:
        WorkbenchError: it has.
    """
    if digest is not None and planned.hash != digest:
        raise WorkbenchError(
            f"{planned.source}, or a recipe that it is made of, was changed while the grid ran (its cells had hash "
            f"{digest[:8]}, now {planned.hash[:8]}): what runs goes on as it was begun; start the grid again for the "
            "rest, what is done and alike is kept"
        )


def launcher(wish: str, workers: int | None) -> Launcher:
    """The launcher of a name, or of a file with its ``type`` and settings.

    Raises:
        RecipeError: there is none such, or its settings are wrong.
    """
    from workbench.core.build import build
    from workbench.core.errors import RecipeError
    from workbench.core.index import import_parts
    from workbench.core.reading import is_yaml, read_yaml
    from workbench.core.spec import resolve
    from workbench.launch.base import Launcher

    import_parts()
    data = read_yaml(Path(wish)) if is_yaml(wish) else {"type": wish}
    if workers is not None and isinstance(data, dict):
        data = {**data, "workers": workers}
    node, problems = resolve(Launcher, data, "launcher")
    if problems or node is None:
        raise RecipeError(problems, wish if isinstance(data, dict) else "")
    made: Launcher = build(node)
    return made


def _command(args: argparse.Namespace) -> list[str]:
    """How a worker is called."""
    cache = ["--cache", str(args.cache)] if args.cache is not None else []
    places = ["--runs", str(args.runs), "--grids", str(args.grids), *cache]
    return ["grid", str(args.grid), *args.override, *places]


def _work(args: argparse.Namespace, planned: Plan) -> int:
    """A worker's life."""
    from workbench.grid.folder import GridFolder
    from workbench.grid.work import Places, work
    from workbench.launch.local import end_with_parent

    if args.worker == "child":
        end_with_parent()

    def heard(cell: Cell, what: str) -> None:
        with contextlib.suppress(OSError):  # a disk too full for the log
            print(f"{time.strftime('%H:%M:%S')} {cell.name}: {what}", flush=True)

    work(planned, GridFolder.open(planned, args.grids), Places(args.runs, args.cache), heard)
    return 0


def _report(args: argparse.Namespace, planned: Plan, folder: GridFolder) -> int:
    """Write the page; say what failed."""
    from workbench.cli.report import report_on
    from workbench.grid.status import standings

    found = standings(planned, folder, args.runs)
    print(f"report: {report_on(planned, found, folder.path)[0]}")
    failed = [one for one in found if one.state == "failed"]
    for one in failed:
        print(f"failed: {one.cell.name}: {one.detail}")
    if failed:
        print(f"{len(failed)} of {len(found)} cells failed; the same command with --retry tries them again")
    unfinished = [one for one in found if one.state not in ("done", "failed")]
    return 1 if failed or unfinished else 0


def _show_status(planned: Plan, folder: GridFolder, args: argparse.Namespace) -> int:
    from workbench.cli.tables import print_json, print_rows
    from workbench.grid.status import standings, tally

    found = standings(planned, folder, args.runs, trials=True)
    if args.json:
        facts = [(one.cell.name, one.state, one.detail, str(one.run.path) if one.run else None) for one in found]
        print_json([dict(zip(("cell", "state", "detail", "run"), each, strict=True)) for each in facts])
    else:
        print_rows(("cell", "state", ""), [(one.cell.name, one.state, one.detail) for one in found], str(folder.path))
        print(", ".join(f"{number} {state}" for state, number in tally(found).items()))
    return 0
