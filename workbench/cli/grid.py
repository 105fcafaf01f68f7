"""``workbench grid``: run a grid of recipes, see how it stands, make its page."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.cli.places import add_places
from workbench.core.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.grid.cells import Cell, Planned
    from workbench.grid.folder import GridFolder
    from workbench.launch.base import Launcher

EVERY = 10.0
"""Seconds between lines on how it stands, where the output is no terminal."""
SHARE = 20.0
"""A look at how all cells stand reads all their figures: the next one waits this many times as long as it took."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("grid", type=Path, help="a grid's file")
    parser.add_argument("override", nargs="*", help="settings of the grid to change, as in set.train.steps=100")
    parser.add_argument("--dry-run", action="store_true", help="show cells and what they cost, run nothing")
    parser.add_argument("--status", action="store_true", help="show how each cell stands, run nothing")
    parser.add_argument("--retry", action="store_true", help="try failed cells again")
    parser.add_argument(
        "--launcher", default="local", metavar="WHO", help="local, slurm, or a file with a launcher's settings"
    )
    parser.add_argument("--workers", type=int, help="workers (local: one a GPU, else one for two cores)")
    parser.add_argument("--grids", type=Path, default=Path("grids"), help="folder of grids' folders (default: grids)")
    parser.add_argument("--json", action="store_true", help="with --dry-run or --status: data for another program")
    parser.add_argument("--worker", choices=("child", "alone"), help=argparse.SUPPRESS)
    add_places(parser)


def run(args: argparse.Namespace) -> int:
    """Plan, check that it is fair, run what is due, write the page. 1 where a cell failed."""
    from workbench.grid import fairness
    from workbench.grid.cells import plan
    from workbench.grid.folder import GridFolder

    if args.workers is not None and args.workers < 1:
        raise WorkbenchError("--workers is their number, at least 1")
    planned = plan(args.grid, args.override)
    if args.worker:
        return _work(args, planned)
    networks = fairness.costed(planned.cells)
    if args.dry_run:
        _show_plan(planned, networks, args.json)
    fairness.require_fair(planned, networks)
    if args.dry_run:
        return 0
    folder = GridFolder.open(planned, args.grids)
    if args.status:
        return _show_status(planned, folder, args)
    if args.retry:
        folder.forgive(planned.cells)
    _run_all(args, planned, folder, launcher(args.launcher, args.workers))
    return _report(args, planned, folder)


def _run_all(args: argparse.Namespace, planned: Planned, folder: GridFolder, by: Launcher) -> None:
    """Have workers at it, and say how it goes until nothing is left to do."""
    from workbench.grid.status import standings, tally
    from workbench.launch.base import Job
    from workbench.launch.together import processes
    from workbench.train.progress import clock

    began, next_words, next_look, more = time.monotonic(), 0.0, 0.0, True
    first = tally(standings(planned, folder, args.runs))
    before, total = first.get("done", 0), len(planned.cells)
    due = total - before - first.get("failed", 0)
    if not due:
        return
    print(f"{folder.path}: {total} cells, {before} done before", flush=True)

    def watch() -> bool:
        nonlocal next_words, next_look, more
        if (now := time.monotonic()) < next_look:
            return more
        found = standings(planned, folder, args.runs)
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
            print(f"{planned.grid.name}: {words}{left}{' · ' * bool(running)}{running}", file=sys.stderr, flush=True)
        return more

    most = max(processes(cell.resolved) for cell in planned.cells)
    words = by.run(Job(planned.grid.name, folder, _command(args), due, watch, most))
    if words:
        print(words, file=sys.stderr)


def launcher(wish: str, workers: int | None) -> Launcher:
    """The launcher of a name, or of a file with its ``type`` and settings.

    Raises:
        RecipeError: there is none such, or its settings are wrong.
    """
    from workbench.core.build import build
    from workbench.core.errors import RecipeError
    from workbench.core.index import import_parts
    from workbench.core.reading import read_yaml
    from workbench.core.spec import resolve
    from workbench.launch.base import Launcher

    import_parts()
    data = read_yaml(Path(wish)) if wish.endswith((".yaml", ".yml")) else {"type": wish}
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


def _work(args: argparse.Namespace, planned: Planned) -> int:
    """A worker's life."""
    from workbench.grid.folder import GridFolder
    from workbench.grid.work import Places, work
    from workbench.launch.local import end_with_parent

    if args.worker == "child":
        end_with_parent()

    def heard(cell: Cell, what: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {cell.name}: {what}", flush=True)

    work(planned, GridFolder.open(planned, args.grids), Places(args.runs, args.cache), heard)
    return 0


def _report(args: argparse.Namespace, planned: Planned, folder: GridFolder) -> int:
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


def _show_plan(planned: Planned, networks: Any, as_json: bool) -> None:
    from workbench.cli.tables import amount, print_json, print_rows
    from workbench.grid.folder import described

    rows = [
        {
            "training": one.name,
            "cells": len(one.cells),
            "hash": one.cells[0].resolved.hash,
            "non_embedding": one.cost.non_embedding,
            "parameters": one.cost.parameters,
            "flops_per_token": one.cost.flops_per_token,
            "tokens": one.tokens,
            "memory": one.cost.training_bytes,
            "flops": 3 * one.cost.flops_per_token * one.tokens,
        }
        for one in networks
    ]
    if as_json:
        print_json({**described(planned), "trainings": rows})
        return
    print_rows(
        ("cell", "trains", "measures"), [(cell.name, cell.work[0][:8], cell.work[1][:8]) for cell in planned.cells],
        f"{planned.grid.name}: {len(planned.cells)} cells, {len(networks)} trainings",
    )
    print_rows(
        ("training", "cells", "parameters", "non-embedding", "FLOPs/token", "tokens", "memory", "training FLOPs"),
        [
            (
                row["training"],
                str(row["cells"]),
                amount(row["parameters"]),
                amount(row["non_embedding"]),
                amount(row["flops_per_token"]),
                amount(row["tokens"]),
                amount(row["memory"]) + "B",
                amount(row["flops"]),
            )
            for row in rows
        ],
    )


def _show_status(planned: Planned, folder: GridFolder, args: argparse.Namespace) -> int:
    from workbench.cli.tables import print_json, print_rows
    from workbench.grid.status import standings, tally

    found = standings(planned, folder, args.runs)
    if args.json:
        facts = [(one.cell.name, one.state, one.detail, str(one.run.path) if one.run else None) for one in found]
        print_json([dict(zip(("cell", "state", "detail", "run"), each, strict=True)) for each in facts])
    else:
        print_rows(("cell", "state", ""), [(one.cell.name, one.state, one.detail) for one in found], str(folder.path))
        print(", ".join(f"{number} {state}" for state, number in tally(found).items()))
    return 0
