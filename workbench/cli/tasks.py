"""``workbench tasks``: data of downstream tasks made ready, and two evaluations compared item by item."""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parts = parser.add_subparsers(dest="what", required=True)
    ready = parts.add_parser("prepare", help="check a raw file and write it as a task")
    ready.add_argument("name", help="lambada, hellaswag, piqa or choices")
    ready.add_argument("source", type=Path, help="the raw file")
    ready.add_argument("--to", type=Path, default=Path("tasks"), help="folder of the tasks (default: %(default)s)")
    pair = parts.add_parser("compare", help="a run against a baseline on the same items")
    pair.add_argument("run", type=Path, help="folder that --output_path named")
    pair.add_argument("baseline", type=Path, help="the baseline's")
    pair.add_argument("--tasks", nargs="+", required=True, help="names of tasks")
    pair.add_argument("--metric", default="acc", help="figure of an item, 0 or 1 (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Prepare, or compare and print a table."""
    if args.what == "prepare":
        from workbench.tasks.prepare import prepare

        ready = prepare(args.name, args.source, args.to)
        print(f"{ready.count:,} documents in {ready.folder}: --include_path {ready.folder} --tasks {ready.task}")
        return 0
    from workbench.tasks.compare import compare

    pairs = [(task, compare(args.run, args.baseline, task, args.metric)) for task in args.tasks]
    print(f"| task | items | {args.metric} | baseline | difference (95 %) | gained | lost | McNemar p |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for task, found in pairs:
        gap = found.difference
        interval = "" if gap.low is None or gap.high is None else f" ({gap.low:+.3f} … {gap.high:+.3f})"
        print(
            f"| {task} | {found.n:,} | {found.accuracy:.3f} | {found.baseline:.3f} | {gap.value:+.3f}{interval} "
            f"| {found.gained} | {found.lost} | {found.p:.3g} |"
        )
    return 0
