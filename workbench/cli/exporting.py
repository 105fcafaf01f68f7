"""``workbench export``: a run's weights as a folder that the hub, other code and ``workbench import`` read."""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument("--layout", default="", help="default: the published one that fits, else the workbench's own")
    parser.add_argument(
        "--format", choices=("safetensors", "torch"), default="safetensors",
        help="of the weights; torch is the publisher's own (for SEDD its training checkpoint)",
    )  # fmt: skip
    parser.add_argument("--checkpoint", default="last", help="last, best, or a step (default: last)")
    parser.add_argument("--last-weights", action="store_true", help="those of the last update, not the averaged ones")


def run(args: argparse.Namespace) -> int:
    """Write the folder and say what is in it."""
    from workbench.publish.exporting import give_out

    made = give_out(
        args.run, args.to, args.layout, args.format == "torch", args.checkpoint, averaged=not args.last_weights
    )
    for line in made.why.splitlines():
        print(f"no place: {line}")
    print(f"layout: {made.layout.type_name}")
    print(f"folder: {made.folder} ({', '.join(made.files)})")
    print(f"back:   {made.back}")
    return 0
