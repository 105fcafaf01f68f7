"""``workbench eval``: measure a trained run and keep the figures in its folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from workbench.cli.places import add_places
from workbench.core.errors import WorkbenchError


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    says = "run folders; sampler and evaluations to change, as in sampler.steps=32: kept beside the run's own figures"
    parser.add_argument("override", nargs="+", metavar="RUN", help=says)
    parser.add_argument("--plugin", action="append", default=[], metavar="FILE", help="a plug-in file to load first")
    parser.add_argument("--json", action="store_true", help="print results.json's content instead of a table")
    add_places(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate each run anew, then print the table.

    With settings changed (``sampler.steps=32``) the figures are kept beside the run's own, as those of a grid's cell,
    and the table has both.
    """
    import json

    from workbench import experiment
    from workbench.cli.places import plug_in
    from workbench.cli.progress import evaluation_bar, packing_bar
    from workbench.cli.tables import console
    from workbench.report.tables import table_with
    from workbench.report.terminal import show
    from workbench.run import RunFolder

    changes = [word for word in args.override if "=" in word and not Path(word).exists()]
    paths = [Path(word) for word in args.override if word not in changes]
    if not paths:
        raise WorkbenchError("name a run folder to evaluate")
    plug_in(args.plugin)
    for path in paths:
        RunFolder(path)  # a slip in the last name is said before the first is measured
    found = []
    for path in paths:
        with evaluation_bar(path.name) as tell, packing_bar() as packing:
            if changes:
                found.append(experiment.evaluate_as(path, changes, args.cache, tell, packing))
            else:
                found.append(experiment.evaluate(path, args.cache, tell, packing))
    if args.json:
        print(json.dumps([results.as_data() for results in found], allow_nan=False))
    else:
        show(table_with(paths, found, " ".join(changes)), console(wide=None))
        for path, results in zip(paths, found, strict=True) if changes else ():
            print(f"kept in {RunFolder(path).measured / results.provenance['measured']}.json")
    return 0
