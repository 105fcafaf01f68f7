"""``workbench doctor``: what this machine offers and lacks, on one page."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from workbench.cli.places import add_places


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("--no-test", action="store_true", help="leave the self-test out")
    parser.add_argument("--json", action="store_true", help="print data for another program")
    add_places(parser)


def run(args: argparse.Namespace) -> int:
    """Look and test; 0 where everything needed works, 1 where something does not."""
    from workbench import doctor
    from workbench.cli.tables import print_json

    device, precision, _, operations = doctor.kernels()
    found: dict[str, Any] = {
        "machine": doctor.machine(),
        "kernels": {"device": device, "precision": precision, "operations": operations},
        "packages": doctor.packages(),
        "disk": doctor.disk(doctor.places(args.runs, args.cache)),
    }
    if not args.json:
        _print(found)
    test = [] if args.no_test else list(_told(doctor.self_test(), quiet=args.json))
    if args.json:
        print_json({**found, "self_test": test})
    broken = any(one["problem"] for one in test) or any(one["problem"] == "cannot be written" for one in found["disk"])
    return 1 if broken else 0


def _told(steps: Any, quiet: bool) -> Any:
    """The steps of the self-test, each printed when it is done."""
    if not quiet:
        print("\nSelf-test: a network of a few thousand parameters")
    for one in steps:
        if not quiet:
            verdict = f"FAILED: {one['problem']}" if one["problem"] else "works"
            print(f"  {one['step']}: {verdict} ({one['seconds']:.1f} s)", flush=True)
        yield one


def _print(found: Mapping[str, Any]) -> None:
    from workbench.cli.tables import amount, print_rows

    here = found["machine"]
    memory = f", {amount(here['memory_bytes'])}B memory" if here["memory_bytes"] else ""
    print(f"workbench {here['workbench']} · Python {here['python']} · torch {here['torch']}")
    print(f"device: {here['device']}, {here['precision']} ({here['why']})")
    print(f"training in 8-bit floats: {'no, ' + here['float8'] if here['float8'] else 'yes'}")
    print(f"CPU: {here['cpu']}, {here['cores']} cores, torch uses {here['threads']} threads{memory}")
    rows = [
        (operation, name, why)
        for operation, candidates in found["kernels"]["operations"].items()
        for name, verdict, why in candidates
        if verdict == "auto"
    ]
    print_rows(("operation", "kernel picked here", "why"), rows)
    print("`workbench show kernels` says why not the others.")
    words = [f"{one['package']} {one['version']}" for one in found["packages"] if one["version"]]
    if words:
        print(f"Optional packages here: {', '.join(words)}.")
    absent = [(one["package"], one["for"], one["command"]) for one in found["packages"] if not one["version"]]
    if absent:
        print_rows(("not installed", "for", "to add it"), absent)
    for one in found["disk"]:
        remark = f": {one['problem']}" if one["problem"] else ""
        print(f"{one['what']}: {one['folder']}, {amount(one['free_bytes'])}B free{remark}")
