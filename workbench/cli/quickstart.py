"""``workbench quickstart``: a small SEDD and a GPT-2 on the same real prose, trained, sampled, evaluated, compared."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.cli.places import add_places

if TYPE_CHECKING:
    from workbench.run import RunFolder

RECIPES = ("quickstart/sedd.yaml", "quickstart/gpt2.yaml")
"""What is compared; the report's rows are in this order."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    add_places(parser)


def run(args: argparse.Namespace) -> int:
    """Train what is not trained, evaluate what is not evaluated, print the table and where things lie."""
    from workbench.cli.tables import console
    from workbench.core.places import recipes_folder
    from workbench.report.tables import print_table
    from workbench.report.write import write_report

    began = time.monotonic()
    folders = [_finished(recipes_folder() / name, args) for name in RECIPES]
    paths = [folder.path for folder in folders]
    written = write_report(paths, args.runs / "report-of-quickstart")
    print_table(paths, console(wide=None))
    for path in paths:
        print(f"run:         {path}")
    print(f"report:      {written.html}")
    print(f"TensorBoard: tensorboard --logdir {args.runs}")
    print(f"more text:   workbench sample {paths[0]} --infill 'The ____ of the ____ States'")
    print(f"took {time.monotonic() - began:.0f} s")
    return 0


def _finished(recipe: Path, args: argparse.Namespace) -> RunFolder:
    from workbench import experiment
    from workbench.cli.progress import evaluation_bar, packing_bar
    from workbench.recipe import load

    resolved = load(recipe)
    folder = experiment.create(resolved, args.runs)
    with evaluation_bar(folder.path.name) as tell, packing_bar() as packing:
        experiment.finish(folder, resolved, args.cache, True, packing, tell)
    return folder
