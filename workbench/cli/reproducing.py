"""``workbench reproduce``: a run made again from its folder alone, and whether its figures agree."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.reproduce import Reproduction


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("run", type=Path, help="a run folder")
    default = Path("reproduced")
    parser.add_argument("--to", type=Path, default=default, help="where the new run goes (default: %(default)s)")
    parser.add_argument("--measure-only", action="store_true", help="measure its own weights again, train nothing")
    parser.add_argument("--exactly", action="store_true", help="take nothing but the same numbers for agreement")
    parser.add_argument("--cache", type=Path, help="folder of packed text (default: $WORKBENCH_CACHE, else cache)")
    parser.add_argument("--json", action="store_true", help="print data for another program")


def run(args: argparse.Namespace) -> int:
    """Make it again and compare; 0 where all figures agree, 1 where one does not."""
    from workbench.cli.progress import evaluation_bar, packing_bar
    from workbench.cli.tables import print_json
    from workbench.reproduce import reproduce

    with evaluation_bar(args.run.name) as tell, packing_bar() as packing:
        made = reproduce(args.run, args.to, args.cache, args.measure_only, packing, tell)
    if args.json:
        print_json(made.as_data())
    else:
        _print(made)
    return 0 if (made.exact if args.exactly else made.agrees) else 1


def _print(made: Reproduction) -> None:
    from workbench.cli.tables import print_rows
    from workbench.reproduce import EXACTLY, NOT, WITHIN

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.8g}"

    def gap(value: float | None) -> str:
        return "" if value is None else f"{value:+.3g}"

    rows = [
        (one.name, number(one.before), number(one.now), gap(one.gap), one.verdict, one.why) for one in made.figures
    ]
    print_rows(("figure", "before", "now", "difference", "agrees", ""), rows)
    for text in (made.weights, made.samples):
        if text:
            print(f"{text[0].upper()}{text[1:]}.")
    if made.changed:
        print("What differs in the environment:")
        for text in made.changed:
            print(f"  {text}")
    else:
        print("The environment is the same: packages that figures depend on, machine, threads, source.")
    if others := len(made.other_packages):
        print(f"Packages that differ and that no figure depends on: {others} (--json names them).")
    verdicts = [one.verdict for one in made.figures]
    print(f"{made.run}: " + ", ".join(f"{verdicts.count(name)} {name}" for name in (EXACTLY, WITHIN, NOT)))
    if made.folder is not None:
        print(f"run: {made.folder}")
