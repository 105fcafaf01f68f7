"""``workbench bench``: ways of doing the same work, measured side by side."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from workbench.core.errors import WorkbenchError


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("names", nargs="*", help="benchmarks (default: all; `workbench list benchmark`)")
    parser.add_argument("override", nargs="*", help="NAME.setting=value, or setting=value of the one that has it")
    parser.add_argument("--quick", action="store_true", help="toy sizes: seconds, and figures that say nothing")
    parser.add_argument("--goals", action="store_true", help="only what something is wanted of here, and its like")
    parser.add_argument("--rounds", type=int, help="processes of each way and case (default: 3; 1 with --quick)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 for as many as torch takes")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="of what is not named")
    parser.add_argument("--out", type=Path, help="folder for JSON, page and figures, as docs/results/bench")


def run(args: argparse.Namespace) -> int:
    """Measure; print each table, and keep it, as soon as it is there."""
    from workbench.bench.base import Meter
    from workbench.bench.page import Pages, conditions, grid, verdicts
    from workbench.bench.run import chosen, measure
    from workbench.train.machine import choose_device, choose_precision

    device = choose_device(args.device)
    words = [*args.names, *args.override]
    tasks = chosen([w for w in words if "=" not in w], [w for w in words if "=" in w], args.quick, device.type)
    if args.goals:
        tasks = [one for task in tasks if (one := task.wanted(device.type)).only != frozenset()]
        if not tasks:
            raise WorkbenchError(f"nothing is wanted of these on {device.type} at these sizes; leave out --goals")
    rounds = args.rounds if args.rounds is not None else 1 if args.quick else 3
    if rounds < 1 or args.threads < 0:
        raise WorkbenchError("--rounds is at least 1, --threads at least 0")
    meter = Meter(device.type, args.threads, choose_precision(args.precision, device)[0])
    told = conditions(meter, rounds, shlex.join(["workbench", *sys.argv[1:]]))
    pages = Pages(args.out, [task.name for task in tasks], told) if args.out is not None else None
    rows, wanted = 0, list[str]()
    for number, task in enumerate(tasks):
        try:
            found = measure(task, meter, rounds, lambda line: print(line, file=sys.stderr, flush=True))
        except KeyboardInterrupt:
            left = " ".join(one.name for one in tasks[number:])
            whole = f"what is whole is in {args.out}" if pages is not None else "what is whole was printed"
            print(f"stopped; {whole}; the rest, with the same settings: workbench bench {left}", file=sys.stderr)
            return 130
        print(f"\n{task.name}\n" + "\n".join(grid(found.rows, task.made.yardstick)), flush=True)
        rows += len(found.rows)
        wanted += verdicts(found, device.type)
        if pages is not None:
            pages.add(found)
    if wanted:
        print(f"\nWanted on {device.type}:\n" + "\n".join(wanted))
    for path in pages.files if pages is not None else ():
        print(path)
    return 0 if rows else 1
