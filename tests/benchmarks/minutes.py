"""Bits per byte after so many minutes: each arm of a grid file gets the same wall clock, not the same steps.

An arm's steps are set from the speed of its first updates, so that its schedule comes to its end in time. Run alone on
a quiet machine:

    python tests/benchmarks/minutes.py recipes/grids/quickstart-search.yaml --minutes 4 --arms as-it-is adamw
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from workbench import experiment
from workbench.core.rng import Rng
from workbench.core.tree import read_yaml
from workbench.recipe import load
from workbench.train.log import read_log

TIMING = 24
"""Updates that an arm's speed is taken from."""


def train(base: Path, patch: dict[str, object], steps: int, root: Path) -> tuple[Path, float]:
    """(run folder, seconds of training) of an arm with so many updates and no look in between."""
    overrides = [f"{name}={json.dumps(value)}" for name, value in patch.items()]
    resolved = load(base, [*overrides, f"train.steps={steps}", "train.checkpoint_every=0", "evaluations.valid=null"])
    run = experiment.create(resolved, root)
    experiment.train(run, resolved, quiet=True)
    return run.path, float(read_log(run.log)[-1]["seconds"])


def main() -> None:
    """Measure the arms and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--arms", nargs="*", help="arms to measure (default: all)")
    parser.add_argument("--out", type=Path, help="file for the figures (JSON)")
    args = parser.parse_args()
    grid = read_yaml(args.grid)
    base, arms = args.grid.parent / grid["base"], grid["axes"]["arm"]
    rows = []
    for name in args.arms or arms:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            _, seconds = train(base, arms[name], TIMING, root)
            steps = max(TIMING, int(args.minutes * 60 / (seconds / TIMING)))
            path, seconds = train(base, arms[name], steps, root)
            results = experiment.evaluate(path)
            found, floor = results.value("bits_per_byte"), results.value("unigram_bits_per_byte")
            words = results.value("known_words")
            rows.append(
                {
                    "arm": name,
                    "steps": steps,
                    "seconds": round(seconds, 1),
                    "bits_per_byte": found.value,
                    "se": found.se,
                    "unigram": floor.value,
                    "below": 1 - found.value / floor.value,
                    "known_words": words.value if words else None,
                }
            )
            print(
                f"{name:20} {steps:6} updates {seconds:6.0f} s   ≤ {found.value:.3f} ± {found.se:.3f} bits/byte, "
                f"{rows[-1]['below']:.1%} below the unigram's {floor.value:.3f}; {words.value:.0%} known words",
                flush=True,
            )
    if args.out:
        record = {
            "date": time.strftime("%Y-%m-%d"),
            "minutes": args.minutes,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "key": Rng.key(args.grid.read_text()),
            "rows": rows,
        }
        args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
