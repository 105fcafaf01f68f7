"""``workbench eval``: measure a trained run and keep the figures in its folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from workbench.cli.places import add_places


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("run", nargs="+", type=Path, help="run folders")
    parser.add_argument("--json", action="store_true", help="print results.json's content instead of a table")
    add_places(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate each run anew, then print the table."""
    import json

    from workbench import experiment
    from workbench.cli.progress import evaluation_bar, packing_bar
    from workbench.cli.tables import console
    from workbench.report.tables import print_table
    from workbench.run import RunFolder

    for path in args.run:
        RunFolder(path)  # a slip in the last name is said before the first is measured
    found = []
    for path in args.run:
        with evaluation_bar(path.name) as tell, packing_bar() as packing:
            found.append(experiment.evaluate(path, args.cache, tell, packing))
    if args.json:
        print(json.dumps([results.as_data() for results in found], allow_nan=False))
    else:
        print_table(args.run, console(wide=None))
    return 0
