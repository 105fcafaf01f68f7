"""``workbench sample``: draw text from a trained run, freely, after a prefix, or around fixed words."""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("override", nargs="*", help="sampler settings to change, as in sampler.steps=32")
    parser.add_argument("--count", type=int, default=4, help="how many texts (default: 4)")
    parser.add_argument("--prefix", help="text to continue")
    parser.add_argument(
        "--infill", help="text with gaps: each _ of a run of two or more is one free token, as in 'Once ____ time'"
    )
    parser.add_argument(
        "--fix", action="append", default=[], metavar="POSITION:TEXT", help="fix text at a token position; repeatable"
    )
    parser.add_argument("--length", type=int, help="tokens of a text, given ones included (default: the block's)")
    parser.add_argument("--first", type=int, default=0, help="number of the first sequence: other numbers, other texts")
    parser.add_argument("--batch", type=int, default=32, help="sequences at a time (changes no text)")
    parser.add_argument("--checkpoint", default="last", help="last, best, or a step (default: last)")
    parser.add_argument("--plugin", action="append", default=[], metavar="FILE", help="a plug-in file to load first")
    parser.add_argument("--json", action="store_true", help="one JSON object with texts, ids, calls and seconds")


def run(args: argparse.Namespace) -> int:
    """Draw and print. What was given is underlined on a terminal."""
    import json

    from workbench.cli.places import plug_in
    from workbench.drawing import draw_texts, template

    plug_in(args.plugin)
    opened, canvas_of = template(
        args.run,
        args.override,
        prefix=args.prefix,
        infill=args.infill,
        fixed=args.fix,
        length=args.length,
        which=args.checkpoint,
    )
    drawn = draw_texts(opened, canvas_of, args.count, args.first, args.batch)
    if args.json:
        print(json.dumps(drawn.as_data()))
        return 0
    from rich.segment import Segment, Segments
    from rich.style import Style

    from workbench.cli.tables import console as printer
    from workbench.report.words import visible

    console = printer(wide=None)
    for number, spans in enumerate(drawn.spans):
        console.out(f"— {args.first + number} —", style="dim")
        # bytes drawn may command a terminal; but for that texts stay as they are: our breaks would read as the model's
        pieces = [Segment(visible(piece), Style(underline=given)) for piece, given in spans]
        console.print(Segments([*pieces, Segment("\n")]), crop=False)
    console.out(f"{drawn.calls} network calls, {drawn.seconds:.2f} s, {drawn.sampler}", style="dim")
    return 0
