"""A step of AdamW in three ways: fused in float32, ours with moments of one byte, torchao's where it is installed.

Seconds of the first step (torchao compiles for each shape) and of later ones, and bytes of state a number, over the
weights of a SEDD transformer of width 256:

    python tests/benchmarks/moments.py --threads 1
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from workbench.bench import nets
from workbench.train.eight_bit import AdamW8bit
from workbench.train.machine import settle
from workbench.train.optim import AdamW


def torchao_steps(net: nn.Module) -> list[torch.optim.Optimizer]:
    """torchao's, with the same settings."""
    from torchao.optim import AdamW8bit as Theirs

    return [Theirs(net.parameters(), lr=3e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)]


WAYS = {"adamw": AdamW().build, "adamw8bit": AdamW8bit().build, "torchao": torchao_steps}


def held(optimizers: list[torch.optim.Optimizer]) -> int:
    """Bytes of state, of wrapped tensors too."""
    total = 0
    for optimizer in optimizers:
        for value in (v for state in optimizer.state.values() for v in state.values()):
            parts = [getattr(value, name) for name in getattr(value, "tensor_attrs", ())] or [value]
            total += sum(part.numel() * part.element_size() for part in parts)
    return total


def measured(way: str, sizes: tuple[int, int, int], repeats: int) -> dict[str, float]:
    """One way, on fresh weights."""
    vocab, dim, depth = sizes
    net = nets.sedd(vocab, 128, dim, depth, "cpu")
    optimizers, seconds = WAYS[way](net), []
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    for _ in range(repeats + 1):
        began = time.perf_counter()
        for optimizer in optimizers:
            optimizer.step()
        seconds.append(time.perf_counter() - began)
    numbers = sum(p.numel() for p in net.parameters())
    later = statistics.median(seconds[1:])
    return {"numbers": numbers, "first": seconds[0], "later": later, "bytes": held(optimizers) / numbers}


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=int, default=50_257)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--out", type=Path, help="file for the figures (JSON)")
    args = parser.parse_args()
    settle(args.threads)
    ways = [way for way in args.ways if way != "torchao" or importlib.util.find_spec("torchao")]
    rows = {way: measured(way, (args.vocab, args.dim, args.depth), args.repeats) for way in ways}
    print("| way | first step, s | later steps, s | bytes of state a number |\n|---|--:|--:|--:|")
    for way, row in rows.items():
        print(f"| {way} | {row['first']:.3g} | {row['later']:.3g} | {row['bytes']:.2f} |")
    if args.out:
        args.out.write_text(json.dumps({"torch": torch.__version__, "threads": args.threads, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
