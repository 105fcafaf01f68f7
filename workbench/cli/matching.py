"""``workbench match``: the size at which one recipe's backbone costs what another's does."""

from __future__ import annotations

import argparse
from pathlib import Path

from workbench.cli.tables import amount, print_json, print_rows


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("recipe", type=Path, help="the recipe to resize")
    parser.add_argument("override", nargs="*", help="settings of it to change first, as in backbone.mixer.state=128")
    parser.add_argument("--to", type=Path, required=True, metavar="RECIPE", help="the recipe to match")
    parser.add_argument(
        "--by",
        default="parameters",
        metavar="WHAT",
        help="parameters (without embeddings and head, the default), total (all of them) or flops (per token)",
    )
    parser.add_argument("--within", type=_share, default=0.01, metavar="SHARE", help="tolerance (default 0.01)")
    parser.add_argument("--json", action="store_true", help="print data for another program")


def _share(text: str) -> float:
    """A number in (0, 1)."""
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"needs a share between 0 and 1, as in 0.01; found {text!r}")
    return share


def run(args: argparse.Namespace) -> int:
    """Solve, and print the settings as overrides that other commands take."""
    from workbench.match import MEASURES, match
    from workbench.recipe import load

    found = match(load(args.recipe, args.override), load(args.to), args.by, args.within)
    if args.json:
        print_json({"sizes": found.sizes, "value": found.value, "target": found.target, "was": found.was})
        return 0
    title = MEASURES[args.by][0]
    rows = [
        (str(args.to), amount(found.target), ""),
        (f"{args.recipe}, as it is", amount(found.was), f"{found.was / found.target - 1:+.2%}"),
        (f"{args.recipe}, matched", amount(found.value), f"{found.error:+.2%}"),
    ]
    print_rows(("recipe", title, "apart"), rows)
    print(" ".join(f"{name}={size}" for name, size in found.sizes.items()))
    return 0
