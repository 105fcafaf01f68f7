"""``workbench train``: train a recipe into its run folder, or go on with a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from workbench.cli.places import add_places
from workbench.core.errors import WorkbenchError


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("recipe", nargs="?", type=Path, help="a recipe file")
    parser.add_argument("override", nargs="*", help="settings to change, as in train.steps=100")
    parser.add_argument("--resume", metavar="RUN", type=Path, help="a run folder to go on with, in place of a recipe")
    parser.add_argument("--no-eval", action="store_true", help="do not evaluate at the end")
    add_places(parser)


def run(args: argparse.Namespace) -> int:
    """Train, then evaluate. A recipe whose run is finished is found by content and only reported."""
    from workbench import experiment
    from workbench.cli.progress import evaluation_bar, packing_bar
    from workbench.recipe import load

    if (args.recipe is None) == (args.resume is None):
        raise WorkbenchError("name a recipe file, or a run folder by --resume (and not both)")
    if args.resume is not None:
        folder, resolved = experiment.reopen(args.resume)
    else:
        resolved = load(args.recipe, args.override)
        folder = experiment.create(resolved, args.runs)
    lead = True
    if folder.finished:
        print(f"{folder.path} is trained already")
    else:
        with packing_bar() as packing:
            lead = experiment.train(folder, resolved, args.cache, packing)
    if lead:
        if not args.no_eval and not folder.results.is_file():
            with evaluation_bar(folder.path.name) as tell, packing_bar() as packing:
                experiment.evaluate(folder.path, args.cache, tell, packing)
        print(f"run: {folder.path}\nTensorBoard: tensorboard --logdir {folder.tb}")
    return 0
