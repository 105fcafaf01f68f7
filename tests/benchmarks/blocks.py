"""What blocks cost: an update beside plain diffusion's, and writing with the cache beside reading all again.

    python tests/benchmarks/blocks.py --out docs/results/blocks.json

A small network in float32, batches of bytes; each row is measured beside the plain process in the same run, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from backbones.base import Backbone
from graphs.absorbing import Absorbing
from graphs.noise import LogLinear
from samplers.base import Canvas
from samplers.blockwise import Blockwise
from samplers.predictors.first_hitting import FirstHitting
from samplers.reverse import Reverse
from samplers.times import Uniform
from workbench.core import index
from workbench.core import part as parts
from workbench.core.machines import cpu_name
from workbench.core.part import Maker
from workbench.core.rng import Rng
from workbench.core.spec import build, resolve
from workbench.processes.base import Process, Shell
from workbench.processes.blocks import Blocks
from workbench.processes.diffusion import Diffusion
from workbench.processes.objectives import ScoreEntropy
from workbench.processes.readouts import Scaled
from workbench.processes.time_draws import StratifiedTimes

VOCAB = 256
SIZES = (1, 4, 16, 64)


def diffusion(length: int) -> Diffusion:
    """SEDD on the absorbing graph."""
    return Diffusion(
        VOCAB, length, Absorbing(VOCAB), LogLinear(), Scaled(VOCAB), ScoreEntropy(), StratifiedTimes()
    )  # fmt: skip


def blocks(length: int, size: int) -> Blocks:
    """The same in blocks."""
    return Blocks(VOCAB, length, Maker(Diffusion, lambda known: diffusion(known["length"])), size)


def network(name: str, length: int, width: int, depth: int) -> Backbone:
    """A network of this type that reads blocks."""
    torch.manual_seed(0)
    settings = {"type": name, "dim": width, "depth": depth, "dropout": 0.0, "blockwise": True}
    heads = {"heads": width // 64} if "heads" in parts.settings(Backbone.lookup(name)) else {}
    node, problems = resolve(Backbone, {**settings, **heads})
    assert node is not None and not problems, problems
    return build(node, {"states": VOCAB + 1, "outputs": VOCAB + 1, "length": length})


def side_by_side(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each call, all of them in turns, after one turn that does not count."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            found[name].append(time.perf_counter() - began)
    return {name: statistics.median(times[1:]) for name, times in found.items()}


def updates(name: str, length: int, batch: int, width: int, depth: int, repeats: int) -> list[dict[str, float]]:
    """Forward and backward of a batch, as it is prepared, by size of blocks; 0: plain diffusion."""
    x0_BL = np.random.default_rng(0).integers(0, VOCAB, (batch, length))
    shell = Shell(network(name, length, width, depth)).train()

    def update(process: Process) -> Callable[[], None]:
        def call() -> None:
            shell.zero_grad(set_to_none=True)
            process.loss(shell, process.prepare(x0_BL, np.arange(batch), 0, Rng(0))).nats.backward()

        return call

    sizes = [*(size for size in SIZES if size < length), length]
    calls = {"0": update(diffusion(length))} | {str(size): update(blocks(length, size)) for size in sizes}
    found = side_by_side(calls, repeats)
    return [{"size": int(size), "seconds": one, "ratio": one / found["0"]} for size, one in found.items()]


def writing(name: str, length: int, batch: int, width: int, depth: int, repeats: int) -> list[dict[str, float]]:
    """Texts by first hitting, a token a call, with the cache and without."""
    shell = Shell(network(name, length, width, depth)).eval()
    sampler = Reverse(FirstHitting(), Uniform())
    rows = []
    for size in (4, 16, 64):
        view, canvas = blocks(length, size).view(shell), Canvas.blank(batch, length)
        calls = {
            name: lambda cache=cache, view=view, canvas=canvas: Blockwise(sampler, cache).draw(view, canvas, Rng(0))
            for name, cache in (("kept", True), ("again", False))
        }
        found = side_by_side(calls, repeats)
        rows.append({"size": size, **found, "ratio": found["again"] / found["kept"]})
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="*", default=["transformer", "mamba2"])
    parser.add_argument("--writing", nargs="*", default=["transformer"], help="backbones that also write")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="file for the figures (JSON)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    index.import_parts()
    found = {}
    for name in args.backbones:
        shape = name, args.length, args.batch, args.width, args.depth
        trained = updates(*shape, args.repeats)
        for row in trained:
            what = f"blocks of {row['size']}" if row["size"] else "plain diffusion"
            print(f"{name}: update, {what:16} {1e3 * row['seconds']:8.1f} ms   × {row['ratio']:.2f}", flush=True)
        drawn = writing(*shape, max(1, args.repeats // 3)) if name in args.writing else []
        for row in drawn:
            print(
                f"{name}: writing, blocks of {row['size']:3}   cache {row['kept']:6.2f} s   without "
                f"{row['again']:6.2f} s   × {row['ratio']:.2f}",
                flush=True,
            )
        found[name] = {"updates": trained, "writing": drawn}
    if args.out:
        machine = {"cpu": cpu_name(), "cores": os.cpu_count(), "threads": args.threads, "torch": torch.__version__}
        told = {name: getattr(args, name) for name in ("length", "batch", "width", "depth", "repeats")}
        record = {"date": time.strftime("%Y-%m-%d"), **machine, **told, "backbones": found}
        args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
