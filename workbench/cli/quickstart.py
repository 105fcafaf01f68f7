"""``workbench quickstart``: a small SEDD and a GPT-2 on the same real prose, trained, sampled, evaluated, compared."""

from __future__ import annotations

import argparse
import time

from workbench.cli.places import add_places

RECIPES = ("quickstart/sedd.yaml", "quickstart/gpt2.yaml")
"""What is compared; the report's rows are in this order."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    add_places(parser)


def run(args: argparse.Namespace) -> int:
    """Train what is not trained, evaluate what is not evaluated, print the table and where things lie."""
    from workbench.core.places import recipes_folder
    from workbench.report.tables import print_table
    from workbench.report.write import write_report

    began = time.monotonic()
    folders = [_finished(recipes_folder() / name, args) for name in RECIPES]
    paths = [folder.path for folder in folders]
    written = write_report(paths, args.runs / "quickstart-report")
    print_table(paths)
    for path in paths:
        print(f"run:         {path}")
    print(f"report:      {written.html}")
    print(f"TensorBoard: tensorboard --logdir {args.runs}")
    print(f"more text:   workbench sample {paths[0]} --infill 'The ____ of the ____ States'")
    print(f"took {time.monotonic() - began:.0f} s")
    return 0


def _finished(recipe, args):  # type: ignore[no-untyped-def]
    from workbench import experiment
    from workbench.cli.progress import evaluation_bar, packing_bar
    from workbench.recipe import load

    resolved = load(recipe)
    folder = experiment.create(resolved, args.runs)
    if not folder.finished:
        with packing_bar() as packing:
            experiment.train(folder, resolved, args.cache, packing)
    if not folder.results.is_file():
        with evaluation_bar(folder.path.name) as tell, packing_bar() as packing:
            experiment.evaluate(folder.path, args.cache, tell, packing)
    return folder
