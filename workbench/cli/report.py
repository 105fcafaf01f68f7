"""``workbench report``: one page for several runs, for a grid, or for two grids beside each other, from files alone."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.core.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.grid.cells import Planned
    from workbench.grid.status import Standing
    from workbench.study.plan import PlannedStudy


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("run", nargs="+", type=Path, help="run folders, the first rows first; or a grid's file, or two")
    parser.add_argument("--out", type=Path, help="its folder (default: runs/report, or the grid's own)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="of a grid: folder of run folders")
    parser.add_argument("--grids", type=Path, default=Path("grids"), help="of a grid: folder of grids' folders")


def run(args: argparse.Namespace) -> int:
    """Write the page beside its table as Markdown and data, and print the table. Nothing is trained or evaluated."""
    from workbench.cli.tables import console
    from workbench.core.reading import is_yaml
    from workbench.report.tables import print_table
    from workbench.report.write import write_report

    if any(map(is_yaml, args.run)):
        return _grid(args)
    written = write_report(args.run, args.out or Path("runs/report"))
    print_table(args.run, console(wide=None))
    print(f"report: {written.html}\n        {written.markdown}\n        {written.data}")
    return 0


def _grid(args: argparse.Namespace) -> int:
    from workbench.core.reading import is_yaml
    from workbench.grid.folder import GridFolder
    from workbench.grid.status import standings
    from workbench.study.plan import planned as plan

    if not all(map(is_yaml, args.run)) or len(args.run) > 2:
        raise WorkbenchError("report on a grid's file, on two (the second beside the first), or on run folders")
    plans = [plan(path) for path in args.run]
    folders = [GridFolder.open(planned, args.grids) for planned in plans]
    found = [standings(planned, folder, args.runs) for planned, folder in zip(plans, folders, strict=True)]
    if len(plans) > 1:
        files = _beside(plans, found, args.out or args.grids / "-beside-".join(f.path.name for f in folders[::-1]))
    else:
        files = report_on(plans[0], found[0], args.out or folders[0].path)
    print("report: " + "\n        ".join(str(path) for path in files[:4]))
    return 0


def _beside(plans: Sequence[Planned | PlannedStudy], found: Sequence[Sequence[Standing]], out: Path) -> list[Path]:
    """The page of the second grid beside the first, its tables on the terminal."""
    from workbench.cli.tables import console
    from workbench.report.terminal import show
    from workbench.report.two_grids import sides, two_grids, write_two

    page = two_grids(*sides(plans, found))
    files = write_two(page, out)
    print(page.lead)
    for table in (page.gaps, page.settings):
        if table.rows:
            show(table, console())
    return files


def report_on(planned: Planned | PlannedStudy, found: Sequence[Standing], out: Path) -> list[Path]:
    """Write the page of a grid or a study, and its tables on the terminal; the files, the HTML first."""
    from workbench.cli.tables import console, print_rows
    from workbench.report.grid_page import grid_page, write_page
    from workbench.report.terminal import show
    from workbench.study.page import study_page, write_study
    from workbench.study.plan import PlannedStudy

    if isinstance(planned, PlannedStudy):
        study = study_page(planned, found)
        files = write_study(study, out)
        for table in study.tables:
            show(table, console())
        print_rows(("claim", "here", "measured"), [(one.name, one.answer, one.verdict.measured) for one in study.told])
        return files
    page = grid_page(planned, found)
    files = write_page(page, out)
    show(page.table, console())
    return files
