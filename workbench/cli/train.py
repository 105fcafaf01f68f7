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
    from workbench import experiment, opening
    from workbench.begun import dropped_unless_begun
    from workbench.cli.progress import evaluation_bar, packing_bar
    from workbench.cli.tables import console
    from workbench.launch import together
    from workbench.recipe import load
    from workbench.report.tables import print_table

    if args.resume is not None and "=" in str(args.recipe or ""):
        raise WorkbenchError("--resume changes no settings; train the recipe with them, as a run of its own")
    if (args.recipe is None) == (args.resume is None):
        raise WorkbenchError("name a recipe file, or a run folder by --resume (and not both)")
    if args.recipe is not None and (args.recipe / "status").is_file():
        raise WorkbenchError(f"{args.recipe} is a run, not a recipe: workbench train --resume {args.recipe}")
    if args.resume is not None:
        folder, resolved = opening.reopen(args.resume)
    else:
        resolved = load(args.recipe, args.override)
        folder = experiment.create(resolved, args.runs)
    if folder.finished:
        kept = experiment.stands(folder)
        lost = "has lost the weights of its last step: it is trained from the last that are whole"
        print(f"{folder.path} {'is trained already' if kept else lost}")
    before = folder.own()
    with evaluation_bar(folder.path.name) as tell, packing_bar() as packing:
        if together.by_several(resolved):
            with dropped_unless_begun(folder, folder.made):
                together.train(folder, resolved, args.cache)
        lead = experiment.finish(folder, resolved, args.cache, not args.no_eval, packing, tell)
    if lead:
        if folder.results.is_file():
            print_table([folder.path], console(wide=None))
        if before not in (None, folder.own()):
            print(
                f"its own figures are those of this recipe now; those by the sampler and evaluations before stay in "
                f"{folder.measured / f'{before}.json'}"
            )
        print(f"run: {folder.path}\nTensorBoard: tensorboard --logdir {folder.tb}")
    return 0
