"""Run every cell of a grid file as a run of its own, and put the arms beside one another over seeds.

Cells are ordinary runs, found by content: what is finished is not run again, what was killed goes on. Two at a time,
one thread each:

    python tests/benchmarks/ablation.py recipes/grids/backbones-minutes.yaml --steps 500 --out docs/results/backbones

Each arm's learning rate is chosen by the loss of its last updates, which the comparison never sees.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from workbench import experiment
from workbench.check import estimate
from workbench.core.machines import cpu_name
from workbench.core.reading import read_yaml
from workbench.metrics.results import Results
from workbench.recipe import load
from workbench.run import RunFolder
from workbench.train.log import curve, read_log

FIGURES = ("bits_per_byte", "unigram_bits_per_byte", "known_words", "unigram_entropy", "rep_2", "rep_4", "distinct_2")
LAST = 0.1
"""Share of the updates whose mean loss chooses the rate."""


@dataclass(frozen=True)
class Cell:
    """One combination: the arm's name on each axis, and the overrides that make it."""

    arms: dict[str, str]
    overrides: list[str]

    @property
    def name(self) -> str:
        return "-".join(self.arms.values())


def cells(grid: dict[str, Any], extra: list[str]) -> Iterator[Cell]:
    axes = {
        axis: arms if isinstance(arms, dict) else {f"{axis}{value}": {axis: value} for value in arms}
        for axis, arms in grid["axes"].items()
    }
    for combination in itertools.product(*(arms.items() for arms in axes.values())):
        arms = dict(zip(axes, (name for name, _ in combination), strict=True))
        patch = [f"{setting}={json.dumps(value)}" for _, changes in combination for setting, value in changes.items()]
        yield Cell(arms, [*patch, *extra])


def run(cell: Cell, base: Path, stem: str, root: Path) -> tuple[Cell, RunFolder | None]:
    """Train and evaluate a cell in a process of its own; None where it failed, which is said."""
    overrides = [*cell.overrides, f"name={stem}-{cell.name}", "train.threads=1"]
    command = [sys.executable, "-m", "workbench", "train", str(base), *overrides, "--runs", str(root)]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    folder = experiment.create(load(base, overrides), root)
    end = done.stderr.strip().splitlines()[-1] if done.returncode else "done"
    print(f"{cell.name:28} {time.perf_counter() - began:6.0f} s  {end}", flush=True)
    return cell, None if done.returncode else folder


def figures(folder: RunFolder) -> dict[str, float]:
    """What is compared of a run."""
    results = Results.from_data(json.loads(folder.results.read_text()))
    found = {name: value.value for name in FIGURES if (value := results.value(name)) and value.value is not None}
    losses = curve(read_log(folder.log), "train/loss_nats_per_token")
    last = [loss for step, loss in losses if step > (1 - LAST) * losses[-1][0]]
    speeds = [speed for _, speed in curve(read_log(folder.log), "train/tokens_per_second")]
    return {**found, "last_loss": statistics.fmean(last), "tokens_per_second": statistics.median(speeds)}


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Arms of the first axis and their rates, means over seeds, and the range."""
    out = [
        "| backbone | rate | non-embedding | FLOPs/token | bits per byte ≤ | over seeds | known words | H1 | rep-2 | "
        "last loss | tokens/s |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        mean = {name: statistics.fmean(one[name] for one in row["seeds"]) for name in row["seeds"][0]}
        bits = [one["bits_per_byte"] for one in row["seeds"]]
        out.append(
            f"| {row['backbone']} | {row['rate']}{' ←' * row['chosen']} | {row['non_embedding'] / 1e6:.2f} M | "
            f"{row['flops_per_token'] / 1e6:.2f} M | {mean['bits_per_byte']:.3f} | {min(bits):.3f} … {max(bits):.3f} | "
            f"{mean['known_words']:.1%} | {mean['unigram_entropy']:.2f} | {mean['rep_2']:.3f} | "
            f"{mean['last_loss']:.3f} | {mean['tokens_per_second']:,.0f} |"
        )
    return out


def paired(rows: list[dict[str, Any]]) -> list[str]:
    """Differences of bits per byte to the first backbone, seed by seed, each at its chosen rate."""
    chosen = [row for row in rows if row["chosen"]]
    base = [one["bits_per_byte"] for one in chosen[0]["seeds"]]
    lines = []
    for row in chosen[1:]:
        gaps = [one["bits_per_byte"] - ours for one, ours in zip(row["seeds"], base, strict=True)]
        each, names = ", ".join(f"{gap:+.3f}" for gap in gaps), f"{row['backbone']} − {chosen[0]['backbone']}"
        lines.append(f"- {names}: {statistics.fmean(gaps):+.3f} (seed by seed {each})")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/backbones"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/backbones"))
    args = parser.parse_args()
    grid = read_yaml(args.grid)
    base = args.grid.parent / grid["base"]
    extra = [f"train.steps={args.steps}", "evaluations.final.blocks=256", "evaluations.valid.every=250"]
    every, began = list(cells(grid, extra)), time.perf_counter()
    with ThreadPoolExecutor(args.workers) as pool:
        done = list(pool.map(lambda cell: run(cell, base, args.grid.stem, args.runs), every))
    rows: list[dict[str, Any]] = []
    arms = itertools.groupby(done, key=lambda one: (one[0].arms["backbone"], one[0].arms["rate"]))
    for (backbone, rate), group in arms:
        finished = [(cell, folder) for cell, folder in group if folder is not None]
        if finished:
            cost = estimate(load(finished[0][1].resolved))
            size = {"non_embedding": cost.non_embedding, "flops_per_token": cost.flops_per_token}
            rows.append({"backbone": backbone, "rate": rate, **size, "seeds": [figures(one) for _, one in finished]})
    for row in rows:
        same = [other for other in rows if other["backbone"] == row["backbone"]]
        best = min(same, key=lambda other: statistics.fmean(one["last_loss"] for one in other["seeds"]))
        row["chosen"] = row is best
    record = {
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python", *sys.argv]),
        "machine": f"{cpu_name()}, {args.workers} processes of one thread",
        "torch": torch.__version__,
        "steps": args.steps,
        "seconds": round(time.perf_counter() - began),
        "rows": rows,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "ablation.json").write_text(json.dumps(record, indent=1) + "\n")
    lines = [
        f"{record['date']}, {record['machine']}, torch {record['torch']}, {args.steps} updates, "
        f"{record['seconds']} s in all. Command: `{record['command']}`",
        "",
        *table(rows),
        "",
        "←: the rate chosen by the mean loss of the last tenth of the updates. Bits per byte, chosen rates:",
        *paired(rows),
    ]
    (args.out / "ablation.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
