"""What benchmarks say of the machine they ran on, and how they measure."""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from workbench.environment import cpu_name


def processor(device: str = "cpu") -> str:
    """The GPU's name, or the processor's."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return cpu_name()


def peak_mb(device: str = "cpu") -> float:
    """Peak memory of this process so far, MB: what tensors took on CUDA, or the resident set."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def conditions(args: argparse.Namespace, file: str, sizes: Sequence[str]) -> dict[str, Any]:
    """What figures of a benchmark depend on: its date, machine, sizes and command, for the record."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": processor(args.device),
        "threads": args.threads,
        "torch": torch.__version__,
        "command": " ".join(["python", f"tests/benchmarks/{Path(file).name}", *sys.argv[1:]]),
        "sizes": {name: getattr(args, name) for name in sizes},
        "precision": args.precision,
        "rounds": args.rounds,
    }


def in_words(record: Mapping[str, Any], runs: str) -> list[str]:
    """``conditions`` as lines of a page; ``runs``: what the figures are of."""
    sizes = ", ".join(f"{name} {value:,}" for name, value in record["sizes"].items())
    return [
        f"{record['date']}, {record['machine']}, {record['threads']} threads, torch {record['torch']}; {runs}.",
        f"Sizes: {sizes}; random weights, {record['precision']}. Command: `{record['command']}`.",
    ]


def keep(record: Mapping[str, Any], page: str, args: argparse.Namespace, stem: str) -> None:
    """Print a page; keep it and its record under ``--out``, where that is given."""
    print(page)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / f"{stem}-{args.device}.json").write_text(json.dumps(record, indent=1) + "\n")
        (args.out / f"{stem}-{args.device}.md").write_text(page)


def add_common(parser: argparse.ArgumentParser, sizes: Mapping[str, int]) -> None:
    """Sizes as options, and where, how precisely and into which folder; ``--way`` is what one process measures."""
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="of ours")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each way and size")
    parser.add_argument("--out", type=Path, help="folder for the figures")
    parser.add_argument("--way", help=argparse.SUPPRESS)


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median wall clock of ``call`` after one call that does not count."""
    found = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return statistics.median(found[1:])
