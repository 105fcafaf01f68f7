"""``workbench import``: published weights become a run, to sample, evaluate and report as any other."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("source", help="hub:owner/name, a file, or a folder (safetensors; torch files without code)")
    parser.add_argument("override", nargs="*", help="settings of the recipe to change, as in data.corpus=sotu")
    parser.add_argument("--layout", default="", help="the layout, where keys do not tell (workbench list layouts)")
    parser.add_argument("--trust", action="store_true", help="run the plug-ins that an exported run brings")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of run folders (default: runs)")


def run(args: argparse.Namespace) -> int:
    """Make the run, or find it, and say what was inferred and what to do next."""
    from workbench.cli.tables import amount
    from workbench.core.part import summary
    from workbench.publish.importing import bring_in

    made = bring_in(args.source, args.override, args.runs, args.layout, args.trust)
    data = made.resolved.data
    backbone, process, text = data["backbone"], data["process"], data["data"]
    sizes = ", ".join(f"{name} {backbone[name]}" for name in ("dim", "depth", "heads") if name in backbone)
    parts = [process["type"], *(process[part]["type"] for part in ("graph", "noise", "readout") if part in process)]
    size = sum(file.stat().st_size for file in made.run.ckpt.rglob("*.safetensors"))
    if not made.new:
        print(f"{made.run.path} holds these weights already")
    print(f"layout:   {made.layout.type_name}: {summary(type(made.layout))}")
    print(f"backbone: {backbone['type']}, {sizes}")
    print(f"process:  {', '.join(parts)}; blocks of {text['length']} {text['tokenizer']['type']} tokens")
    for note in made.notes:
        print(f"inferred: {note}")
    print(f"weights:  {amount(size)}B, checked name by name")
    print(f"run:      {made.run.path}")
    print(f"          workbench sample {made.run.path} --count 2")
    print(f"          workbench eval {made.run.path}")
    again = shlex.join([args.source, *args.override, "data.corpus=sotu", "evaluations.final.blocks=64"])
    print(f"on other text: workbench import {again}")
    return 0
