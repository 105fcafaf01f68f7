"""``workbench report``: one table and one page for several runs, or for a grid, from what folders hold."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.core.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.grid.cells import Planned
    from workbench.grid.status import Standing


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("run", nargs="+", type=Path, help="run folders, the first rows first; or a grid's file")
    parser.add_argument("--out", type=Path, help="its folder (default: runs/report, or the grid's own)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="of a grid: folder of run folders")
    parser.add_argument("--grids", type=Path, default=Path("grids"), help="of a grid: folder of grids' folders")


def run(args: argparse.Namespace) -> int:
    """Write the page beside its table as Markdown and data, and print the table. Nothing is trained or evaluated."""
    from workbench.cli.tables import console
    from workbench.report.tables import print_table
    from workbench.report.write import write_report

    if any(path.suffix in (".yaml", ".yml") for path in args.run):
        return _grid(args)
    written = write_report(args.run, args.out or Path("runs/report"))
    print_table(args.run, console(wide=None))
    print(f"report: {written.html}\n        {written.markdown}\n        {written.data}")
    return 0


def _grid(args: argparse.Namespace) -> int:
    from workbench.grid.cells import plan
    from workbench.grid.folder import GridFolder
    from workbench.grid.status import standings
    from workbench.report.grid_page import write_grid_report

    if len(args.run) > 1:
        raise WorkbenchError("report on one grid at a time, or on run folders")
    planned = plan(args.run[0])
    folder = GridFolder.open(planned, args.grids)
    found = standings(planned, folder, args.runs)
    files = write_grid_report(planned, found, args.out or folder.path)
    print_table_of(planned, found)
    print("report: " + "\n        ".join(str(path) for path in files[:4]))
    return 0


def print_table_of(planned: Planned, found: Sequence[Standing]) -> None:
    """A grid's table on the terminal."""
    from workbench.cli.tables import console
    from workbench.report.arms import arms_of
    from workbench.report.grid_tables import arms_table
    from workbench.report.terminal import show

    show(arms_table(arms_of(found, planned.report.over), planned.report.columns), console())
