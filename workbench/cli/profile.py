"""``workbench profile``: where an update's, or sampling's, time and memory go."""

from __future__ import annotations

import argparse
from pathlib import Path

from workbench.core.errors import WorkbenchError


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("recipe", type=Path, help="a recipe's file")
    parser.add_argument("override", nargs="*", help="settings to change, as in train.batch=8")
    parser.add_argument("--steps", type=int, default=5, help="updates that are profiled (default: 5)")
    parser.add_argument("--warm", type=int, default=2, help="updates, or batches of texts, before (default: 2)")
    parser.add_argument("--sample", action="store_true", help="profile sampling from fresh weights, not training")
    parser.add_argument("--count", type=int, default=4, help="texts of a batch, with --sample (default: 4)")
    parser.add_argument("--out", type=Path, help="folder for a trace: Perfetto, chrome://tracing, TensorBoard")
    parser.add_argument("--json", action="store_true", help="print data for another program")
    parser.add_argument("--cache", type=Path, default=None, help="folder of packed text (as of `workbench train`)")


def run(args: argparse.Namespace) -> int:
    """Profile and print the table."""
    from workbench.cli.tables import print_json, print_rows
    from workbench.profiling.session import profile_sampling, profile_training
    from workbench.profiling.table import in_words, lines
    from workbench.recipe import load

    if min(args.steps, args.count) < 1 or args.warm < 0:
        raise WorkbenchError("--steps and --count are at least 1, --warm at least 0")
    resolved = load(args.recipe, args.override)
    if args.sample:
        table = profile_sampling(resolved, args.count, args.warm, args.out, args.cache)
    else:
        table = profile_training(resolved, args.steps, args.warm, args.out, args.cache)
    if args.json:
        print_json(table.as_data())
        return 0
    what = f"a batch of {args.count} texts" if args.sample else f"an update, mean of {args.steps}"
    print(f"{resolved.name}: {what}; the profiler itself costs time, so that shares say more than milliseconds.")
    print_rows(*lines(table))
    print("\n".join(in_words(table.facts)))
    if args.out is not None:
        print(f"trace: {args.out}; open it at https://ui.perfetto.dev, or with tensorboard --logdir {args.out}")
    return 0
