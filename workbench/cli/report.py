"""``workbench report``: one table and one page for several runs, from what their folders hold."""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("run", nargs="+", type=Path, help="run folders; the first rows come first")
    parser.add_argument("--out", type=Path, default=Path("runs/report"), help="its folder (default: runs/report)")


def run(args: argparse.Namespace) -> int:
    """Write report.html, report.md and report.json, and print the table. Nothing is trained or evaluated."""
    from workbench.cli.tables import console
    from workbench.report.tables import print_table
    from workbench.report.write import write_report

    written = write_report(args.run, args.out)
    print_table(args.run, console(wide=None))
    print(f"report: {written.html}\n        {written.markdown}\n        {written.data}")
    return 0
