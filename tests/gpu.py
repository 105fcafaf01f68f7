"""All that waits for an NVIDIA GPU, one step after the other: ``python -m tests.gpu FOLDER`` (`make gpu`).

The tests marked ``cuda``, the doctor, benchmarks beside what is wanted of them, a short training of each backbone. What
a step says goes into a file of its own as it comes, so that whoever stops it keeps what was there; a step that fails
does not stop those after it. ``--toy``: sizes at which a CPU that believes it is a GPU gets through (`tests.emulated`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORKBENCH = (sys.executable, "-m", "workbench")
WANTED = ("sedd_training", "sedd_bound", "gpt2_training", "sedd_sampling", "gpt2_sampling")
"""Benchmarks of whose ways those are measured that something is wanted of on CUDA, and what they are beside."""
WHOLE = ("processes", "lengths", "scans")
"""Those measured whole, for the plot over length and the memory of FSDP."""
RECIPES = ("sedd-small", "sedd-mamba2-small", "sedd-hybrid-small", "gpt2-small")
SHORT = (
    "data.corpus=sotu", "train.steps=200", "train.batch=16", "train.accumulate=1", "train.log_every=20",
    "train.checkpoint_every=0", "train.tensorboard=false", 'train.best=""', "evaluations.valid=null",
    "train.device=cuda",
)  # fmt: skip
"""200 updates of 16 × 1,024 tokens of a text that is a package, on one GPU of 80 GB; no evaluation."""
TOY = (
    "data.length=32",
    "backbone.dim=96",
    "train.steps=4",
    "train.batch=2",
    "train.log_every=2",
    "train.compile=false",
)


@dataclass(frozen=True)
class Step:
    """A name and a command."""

    name: str
    command: Sequence[str]


def steps(folder: Path, toy: bool = False) -> list[Step]:
    """What is done, in order; results that are more than words go below ``folder``."""
    bench = [*WORKBENCH, "bench", "--device", "cuda", "--rounds", "1", *(["--quick"] if toy else [])]
    train = [*WORKBENCH, "train", "--no-eval", "--runs", str(folder / "runs")]
    changes = [*SHORT, *(TOY if toy else ())]
    return [
        Step("tests", [sys.executable, "-m", "pytest", "-m", "cuda", "-q", *(["tests/samplers"] if toy else [])]),
        Step("doctor", [*WORKBENCH, "doctor"]),
        Step("bench", [*bench, *WANTED, "--goals", "--out", str(folder / "bench")]),
        Step("whole", [*bench, *WHOLE, "--out", str(folder / "whole")]),
        *(Step(f"train-{name}", [*train, f"recipes/{name}.yaml", *changes]) for name in RECIPES),
    ]


def perform(step: Step, folder: Path) -> int:
    """Run a step, its words shown and kept as they come; its exit status."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "cwd": ROOT, "env": environment}
    with open(folder / f"{step.name}.log", "wb") as kept, subprocess.Popen(step.command, **how) as child:
        while said := child.stdout.read1():
            kept.write(said)
            kept.flush()
            sys.stdout.buffer.write(said)
            sys.stdout.buffer.flush()
    return child.returncode


def speed(folder: Path, recipe: str) -> str:
    """Tokens a second and memory by the last line of a training's log ("": there is none)."""
    for log in sorted(folder.glob(f"runs/{recipe}-*/log.jsonl"), key=lambda file: -file.stat().st_mtime):
        for line in reversed(log.read_text().splitlines()):
            values = json.loads(line)["values"]
            if "train/tokens_per_second" in values:
                rate, memory = values["train/tokens_per_second"], values["train/memory_mb"]
                return f"{rate:,.0f} tokens/s, {memory:,.0f} MB"
    return ""


def perform_all(every: Iterable[Step], folder: Path) -> int:
    """Run steps in order, whatever becomes of each; how many failed. ``summary.txt`` is written after each of them."""
    lines: list[str] = []
    failed = 0
    for step in every:
        print(f"\n=== {step.name}", flush=True)
        began = time.monotonic()
        status = perform(step, folder)
        failed += status != 0
        told = speed(folder, step.name.removeprefix("train-"))
        lines.append(f"{step.name}: status {status}, {time.monotonic() - began:.0f} s{told and f', {told}'}")
        (folder / "summary.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n" + "\n".join(lines), flush=True)
    return failed


def main(words: Sequence[str]) -> int:
    """Parse words and perform."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where everything is kept")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="these steps, as in: --only bench whole")
    parser.add_argument("--toy", action="store_true", help="sizes for the emulated device")
    args = parser.parse_args(words)
    folder = args.folder.resolve()
    every = steps(folder, args.toy)
    if unknown := set(args.only or ()) - {step.name for step in every}:
        parser.error(f"no such step: {', '.join(sorted(unknown))}; there are {', '.join(step.name for step in every)}")
    import torch

    if not torch.cuda.is_available():
        print("no CUDA device is here (python -m tests.emulated has one that is none)", file=sys.stderr)
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    return int(perform_all([step for step in every if not args.only or step.name in args.only], folder) > 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
