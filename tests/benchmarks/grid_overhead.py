"""What a grid costs a cell beside the same training by ``workbench train``: both ways in turns, medians, their ratio.

    python tests/benchmarks/grid_overhead.py --steps 6000 --cells 4 --rounds 3 --out docs/results/grids

A cell of the grid and a plain training are the same recipe at another seed, trained and evaluated; each way runs in
processes of its own, from the first import to the figures, in a fresh folder. ``warm`` is the grid's time for a cell
where several are done one after the other by one worker, which imports once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from workbench import assemble
from workbench.core.machines import cpu_name
from workbench.recipe import load

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes/smoke/sedd.yaml"


def plain(cells: int, steps: int, folder: Path, cache: Path) -> float:
    """Seconds of so many trainings, a command each."""
    began = time.perf_counter()
    for seed in range(cells):
        words = [str(RECIPE), f"seed={seed}", *settings(steps), "--runs", str(folder / "runs")]
        run(["train", *words, "--cache", str(cache)])
    return time.perf_counter() - began


def grid(cells: int, steps: int, folder: Path, cache: Path) -> float:
    """Seconds of a grid of so many cells with one worker, its page included."""
    file = folder / "grid.yaml"
    patch = {name: yaml.safe_load(value) for name, _, value in (text.partition("=") for text in settings(steps))}
    file.write_text(yaml.safe_dump({"base": str(RECIPE), "set": patch, "axes": {"seed": list(range(cells))}}))
    places = ["--runs", str(folder / "runs"), "--grids", str(folder / "grids"), "--cache", str(cache)]
    began = time.perf_counter()
    run(["grid", str(file), *places, "--workers", "1"])
    return time.perf_counter() - began


def settings(steps: int) -> list[str]:
    """What both ways change in the recipe."""
    return [f"train.steps={steps}", "evaluations.valid=null", "train.threads=1", "train.tensorboard=false"]


def run(words: list[str]) -> None:
    """The command line in a process of its own.

    Raises:
        SystemExit: it ended in error.
    """
    done = subprocess.run([sys.executable, "-m", "workbench", *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"workbench {' '.join(words)} ended in error:\n{done.stderr[-2000:]}")


def measured(way: Any, cells: int, steps: int, cache: Path) -> float:
    """One way in a fresh folder, its text packed already."""
    with tempfile.TemporaryDirectory() as place:
        return float(way(cells, steps, Path(place), cache))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6000, help="updates of a cell: so many that it takes a minute")
    parser.add_argument("--cells", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    ways = {"plain": (plain, args.cells), "grid": (grid, args.cells)}
    if args.cells > 1:
        ways["grid of one"] = (grid, 1)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as cache:
        assemble.prepare(load(RECIPE), cache)
        for _ in range(args.rounds):
            for name, (way, cells) in ways.items():
                seconds[name].append(measured(way, cells, args.steps, Path(cache)) / cells)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    one = medians.get("grid of one", medians["grid"])
    warm = (medians["grid"] * args.cells - one) / (args.cells - 1) if args.cells > 1 else one
    record = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": cpu_name(),
        "torch": torch.__version__,
        "command": " ".join(["python", "tests/benchmarks/grid_overhead.py", *sys.argv[1:]]),
        "steps": args.steps,
        "cells": args.cells,
        "seconds_a_cell": seconds,
        "medians": medians,
        "warm": warm,
        "ratio": medians["grid"] / medians["plain"],
        "ratio_of_one": one / medians["plain"],
    }
    lines = [
        f"{record['date']}, {record['machine']}, one thread, torch {record['torch']}; {args.cells} cells of "
        f"{args.steps} updates, medians of {args.rounds}. Command: `{record['command']}`",
        "",
        "| way | seconds a cell | beside plain |",
        "|---|---:|---:|",
        *(f"| {name} | {value:.2f} | {value / medians['plain']:.3f} |" for name, value in medians.items()),
        f"| each further cell of a grid | {warm:.2f} | {warm / medians['plain']:.3f} |",
    ]
    print("\n".join(lines))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "overhead.json").write_text(json.dumps(record, indent=1) + "\n")
        (args.out / "overhead.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
