"""Training step and sampling at a large vocabulary: rows by chunks against the dense way, side by side.

Each way runs in a process of its own, in turn, several rounds; the table shows medians, their ratio to the dense way
in float32 and the peak memory above that of the imports and the network. bf16 is autocast, as training and sampling
choose it on this kind of CPU: the blocks run in bfloat16, the scores of rows in float32. Run: ``make bench`` (several
minutes), or with smaller sizes:

    python tests/benchmarks/rows.py --vocab 1000 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from machine import peak_mb, processor

WAYS = {
    "train": ("dense fp32", "dense bf16", "rows fp32", "rows bf16"),
    "sample": ("dense fp32", "analytic fp32", "analytic bf16", "normalised fp32", "normalised bf16"),
}


def child(way: str, args: argparse.Namespace) -> dict[str, float]:
    """Measure one way in this process."""
    import dense
    import numpy as np
    import torch

    from backbones.transformer import Transformer
    from graphs.absorbing import Absorbing
    from graphs.noise import LogLinear
    from samplers.base import Canvas
    from samplers.predictors.analytic import Analytic
    from samplers.predictors.normalised import Normalised
    from samplers.reverse import Reverse
    from samplers.times import Uniform as UniformGrid
    from workbench.core.rng import Rng
    from workbench.processes.base import Shell
    from workbench.processes.diffusion import Diffusion
    from workbench.processes.objectives import ScoreEntropy
    from workbench.processes.readouts import Scaled
    from workbench.processes.time_draws import UniformTimes
    from workbench.train.machine import settle
    from workbench.train.optim import AdamW

    if "dense" in way:
        torch.set_num_threads(args.threads)
        torch.set_flush_denormal(True)
    else:
        settle(args.threads)
    torch.manual_seed(0)
    vocab, batch, length = args.vocab, args.batch, args.length
    net = Transformer(vocab + 1, vocab + 1, length, dim=args.dim, depth=args.depth, heads=args.dim // 64, dropout=0.0)
    with torch.no_grad():
        net.head.weight.normal_(std=0.02)
    before = peak_mb()
    seconds = []
    low = torch.autocast("cpu", torch.bfloat16, enabled="bf16" in way)
    if "train" in args.what:
        x0 = torch.randint(vocab, (batch, length), generator=torch.Generator().manual_seed(0))
        average = [p.detach().clone() for p in net.parameters()]
        if "dense" in way:
            optimizer = torch.optim.AdamW(net.parameters(), lr=3e-4, weight_decay=0)
            generator = torch.Generator().manual_seed(1)

            def step(i: int) -> None:
                with low:
                    dense.train_step(net, optimizer, average, x0, generator)
        else:
            process = Diffusion(
                vocab, length, Absorbing(vocab), LogLinear(), Scaled(vocab), ScoreEntropy(), UniformTimes()
            )
            optimizers, shell = AdamW().build(net), Shell(net)
            parameters = list(net.parameters())

            def step(i: int) -> None:
                noised = process.prepare(x0.numpy(), np.arange(batch) + i * batch, i, Rng(1))
                with low:
                    loss = process.loss(shell, noised)
                loss.nats.backward()
                torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
                for optimizer in optimizers:
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
                with torch.no_grad():
                    torch._foreach_lerp_(average, parameters, 1e-4)

        step(0)
        for i in range(args.repeats):
            began = time.perf_counter()
            step(i + 1)
            seconds.append(time.perf_counter() - began)
    else:
        net.eval().requires_grad_(False)
        if "dense" in way:
            began = time.perf_counter()
            dense.sample(net, batch, length, args.steps)
            seconds.append(time.perf_counter() - began)
        else:
            process = Diffusion(
                vocab, length, Absorbing(vocab), LogLinear(), Scaled(vocab), ScoreEntropy(), UniformTimes()
            )
            predictor = {"analytic": Analytic, "normalised": Normalised}[way.split()[0]]()
            sampler = Reverse(predictor, UniformGrid(), steps=args.steps)
            with torch.no_grad(), low:
                for i in range(args.repeats):
                    view = process.view(Shell(net))
                    samples = sampler.draw(view, Canvas.blank(batch, length, first=i * batch), Rng(0))
                    seconds.append(samples.seconds)
    return {"seconds": statistics.median(seconds), "peak_mb": peak_mb() - before}


def main() -> None:
    """Measure all ways in turn and print the table; ``--out`` keeps it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=[*WAYS, "all"], default="all")
    parser.add_argument("--way", help="measure one way in this process and print JSON (used by the parent)")
    for name, value in {"vocab": 50_257, "dim": 256, "depth": 6, "batch": 4, "length": 256, "steps": 16}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="timed repetitions within a process")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each way")
    parser.add_argument("--out", type=Path, help="file for the figures (JSON)")
    args = parser.parse_args()
    if args.way:
        print(json.dumps(child(args.way, args)))
        return
    import torch

    names = ("vocab", "dim", "depth", "batch", "length", "steps", "threads", "repeats")
    options = [f"--{name}={getattr(args, name)}" for name in names]
    table = []
    for what in WAYS if args.what == "all" else [args.what]:
        found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS[what]}
        for _ in range(args.rounds):
            for way in WAYS[what]:
                command = [sys.executable, __file__, "--what", what, "--way", way, *options]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                found[way].append(json.loads(done.stdout))
        first = statistics.median(one["seconds"] for one in found[WAYS[what][0]])
        for way, ones in found.items():
            seconds, peak = (statistics.median(one[key] for one in ones) for key in ("seconds", "peak_mb"))
            table.append({"what": what, "way": way, "seconds": seconds, "ratio": first / seconds, "peak_mb": peak})
            print(f"{what:7} {way:15} {seconds:8.3f} s  {first / seconds:6.2f}x  {peak:7.0f} MB", flush=True)
    record = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": processor(),
        "threads": args.threads,
        "torch": torch.__version__,
        "command": " ".join(["python", "tests/benchmarks/rows.py", *sys.argv[1:]]),
        "sizes": {name: getattr(args, name) for name in ("vocab", "dim", "depth", "batch", "length", "steps")},
        "rounds": args.rounds,
        "table": table,
    }
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(record, indent=1) + "\n")
        args.out.with_suffix(".md").write_text(_page(record))


def _page(record: dict[str, object]) -> str:
    """The record as a page of the docs."""
    sizes = ", ".join(f"{name} {value}" for name, value in record["sizes"].items())
    lines = [
        "# Rows by chunks beside the dense way",
        "",
        f"{record['date']}, {record['machine']}, {record['threads']} threads, torch {record['torch']}; medians of "
        f"{record['rounds']} processes each, in turn.",
        f"Sizes: {sizes}. Command: `{record['command']}`.",
        "",
        "*dense* is the published way, written plainly (`tests/benchmarks/dense.py`): outputs, scores and",
        "probabilities of all positions × the vocabulary, one float32 race. Ratios are to dense fp32; memory is the",
        "peak above imports and network. *bf16* is autocast: blocks in bfloat16, scores of rows in float32.",
        "",
        "| what | way | seconds | ratio | peak MB |",
        "|---|---|---|---|---|",
    ]
    for row in record["table"]:
        lines.append(
            f"| {row['what']} | {row['way']} | {row['seconds']:.3f} | {row['ratio']:.1f}× | {row['peak_mb']:.0f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
