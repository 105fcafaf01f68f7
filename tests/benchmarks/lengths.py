"""Forward and backward of matched backbones against length, and scans beside a loop over time.

Each backbone at each length runs in a process of its own, in turn, so that peak memory is its own; figures are medians.
On a CPU the quickstart's four backbones are measured to 2,048 tokens, on a GPU those of SEDD small to 16,384, beside
the authors' own Mamba-2 blocks composed by hand and a plain SEDD block. Run on a quiet machine:

    python tests/benchmarks/lengths.py --out docs/results/backbones
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand
import torch
from machine import peak_mb, processor, seconds
from torch import nn

from workbench.check import estimate, sketch
from workbench.core.build import build
from workbench.kernels import dispatch, selective_scan, ssd
from workbench.recipe import load
from workbench.train.machine import settle

SIZES = {
    "cpu": {
        "transformer": "quickstart/sedd.yaml",
        "mamba2": "quickstart/sedd-mamba2.yaml",
        "mamba": "quickstart/sedd-mamba.yaml",
        "hybrid": "quickstart/sedd-hybrid.yaml",
    },
    "cuda": {
        "transformer": "sedd-small.yaml",
        "mamba2": "sedd-mamba2-small.yaml",
        "mamba": "sedd-mamba-small.yaml",
        "hybrid": "sedd-hybrid-small.yaml",
    },
}
LENGTHS = {"cpu": (128, 256, 512, 1024, 2048), "cuda": (256, 512, 1024, 2048, 4096, 8192, 16384)}
TOKENS = {"cpu": 2048, "cuda": 65536}
"""Tokens of a batch, whatever the length."""
LOOP = {"batch": 4, "length": 256, "channels": 256, "state": 16}
COLOURS = {"transformer": "#0072B2", "mamba2": "#D55E00", "mamba": "#CC79A7", "hybrid": "#009E73"}


def network(recipe: str, length: int, device: str) -> nn.Module:
    """The backbone of a shipped recipe, without dropout."""
    resolved = load(recipe, ["backbone.dropout=0.0"])
    head = sketch(resolved).backbone.head.out_features
    with torch.device(device):
        net: nn.Module = build(
            resolved.node.settings["backbone"], {"states": head, "outputs": head, "length": max(length, 128)}
        )
    for parameter in net.parameters():  # zero gates would let no gradient through
        nn.init.normal_(parameter, std=0.02) if not parameter.any() else None
    return net


def one(recipe: str, length: int, device: str, threads: int, repeats: int) -> dict[str, Any]:
    """Tokens per second and peak memory of forward and backward, head apart."""
    if device == "cpu":
        settle(threads)
    torch.manual_seed(0)
    net = by_hand.NETWORKS[recipe](length, device) if recipe in by_hand.NETWORKS else network(recipe, length, device)
    batch = max(1, TOKENS[device] // length)
    x_BL = torch.randint(2, 200, (batch, length), device=device)
    sigma_B = torch.rand(batch, device=device) + 0.1
    before = peak_mb(device)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            h_BLD = net(x_BL, sigma_B)
        h_BLD.float().square().mean().backward()
        net.zero_grad(set_to_none=True)

    took = seconds(step, repeats)
    return {
        "tokens_per_second": batch * length / took,
        "peak_mb": peak_mb(device) - before,
        "kernels": sorted({f"{row['operation']}: {row['picked']}" for row in dispatch.report()}),
    }


def in_a_process(*words: str) -> dict[str, Any] | None:
    """What a child measured; None where it failed (out of memory, say), which ends nothing else."""
    done = subprocess.run([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True)
    return None if done.returncode else json.loads(done.stdout.splitlines()[-1])


def beside_the_loop(device: str, repeats: int) -> list[dict[str, Any]]:
    """Each scan's implementations forward and backward, against the loop over time."""
    torch.manual_seed(0)
    b, length, d, n = LOOP.values()
    A = {"ssd": -torch.rand(d // 64) * 8 - 0.5, "selective scan": -torch.rand(d, n) * 8 - 0.5}
    rows = []
    for name, call, module in (
        ("ssd", ssd.ssd, ssd.SSD), ("selective scan", selective_scan.selective_scan, selective_scan.SELECTIVE_SCAN)
    ):  # fmt: skip
        x = torch.randn(b, length, d // 64, 64) if name == "ssd" else torch.randn(b, length, d)
        dt = torch.rand(x.shape[:3] if name == "ssd" else x.shape) * 0.1
        inputs = [z.to(device).requires_grad_() for z in (x, dt, A[name], *torch.randn(2, b, length, 1, n))]

        def step(kernel: str, call: Callable[..., Any] = call, inputs: list[torch.Tensor] = inputs) -> None:
            y, _ = call(*inputs, kernel=kernel)
            torch.autograd.grad(y.sum(), inputs)

        survey = module.survey(device, torch.float32)
        able = [kernel for kernel, verdict, _ in survey if verdict != "cannot run here"]
        took = {kernel: seconds(lambda k=kernel: step(k), 2 if kernel == "recurrence" else repeats) for kernel in able}
        rows += [
            {"operation": name, "kernel": kernel, "seconds": s, "ratio": took["recurrence"] / s}
            for kernel, s in took.items()
        ]
    return rows


def crossover(rows: list[dict[str, Any]], name: str) -> str:
    """Where a backbone overtakes the transformer, by interpolation in log length."""
    speed = {(row["backbone"], row["length"]): row["tokens_per_second"] for row in rows}
    lengths = sorted(x for x in {row["length"] for row in rows} if {(name, x), ("transformer", x)} <= speed.keys())
    ratio = [math.log(speed[name, length] / speed["transformer", length]) for length in lengths]
    for (a, x), (b, y) in zip(zip(lengths, ratio, strict=True), zip(lengths[1:], ratio[1:], strict=True), strict=False):
        if x < 0 <= y:
            return f"about {round(math.exp(math.log(a) + (math.log(b) - math.log(a)) * x / (x - y)), -1):,.0f} tokens"
    end = f"not up to {lengths[-1]:,} tokens ({math.exp(ratio[-1]):.2f}× there)"
    return "faster at every length" if ratio[0] >= 0 else end


def page(record: dict[str, Any]) -> str:
    """The record as a page of the docs."""
    rows, names = record["lengths"], list(dict.fromkeys(row["backbone"] for row in record["lengths"]))
    found = {(row["backbone"], row["length"]): row for row in rows}
    lengths = sorted({row["length"] for row in rows})
    lines = [
        f"{record['date']}, {record['machine']}, {record['threads']} threads, torch {record['torch']}, bf16 autocast, "
        f"{record['tokens']:,} tokens a batch; medians of {record['rounds']} processes each, in turn. "
        f"Command: `{record['command']}`",
        "",
        "Forward and backward without the head, tokens per second (peak memory above the network, MB):",
        "",
        f"| backbone | non-embedding | {' | '.join(f'{length:,}' for length in lengths)} | overtakes the transformer |",
        "|---|---:|" + "---:|" * len(lengths) + "---|",
    ]
    for name in names:
        of_name = [found.get((name, x)) for x in lengths]
        cells = [f"{one['tokens_per_second']:,.0f} ({one['peak_mb']:,.0f})" if one else "–" for one in of_name]
        size = record["sizes"].get(name)
        own = "" if name == "transformer" else crossover(rows, name)
        lines.append(f"| {name} | {f'{size / 1e6:.2f} M' if size else ''} | {' | '.join(cells)} | {own} |")
    b, length, d, n = LOOP.values()
    lines += [
        "",
        f"Scans forward and backward at batch {b}, length {length}, {d} channels, state {n}, float32:",
        "",
        "| operation | kernel | ms | beside the loop over time |",
        "|---|---|---:|---:|",
        *(
            f"| {row['operation']} | {row['kernel']} | {row['seconds'] * 1e3:.1f} | {row['ratio']:.1f}× |"
            for row in record["scans"]
        ),
    ]
    return "\n".join(lines) + "\n"


def plot(record: dict[str, Any], file: Path) -> None:
    """Speed and memory against length."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "lengths"
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    figure, (speed, memory) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for marker, name in zip("osD^vP*", dict.fromkeys(row["backbone"] for row in record["lengths"]), strict=False):
        rows = [row for row in record["lengths"] if row["backbone"] == name]
        x = [row["length"] for row in rows]
        style = {"marker": marker, "label": name, "color": COLOURS.get(name, "#555555")}
        speed.plot(x, [row["tokens_per_second"] for row in rows], **style)
        memory.plot(x, [row["peak_mb"] for row in rows], **style)
    titles = {speed: "tokens per second, forward + backward", memory: "peak memory above the network, MB"}
    for axes, title in titles.items():
        axes.set(xscale="log", yscale="log", xlabel="length (tokens)", title=title)
        axes.set_xticks([row["length"] for row in rows], [f"{row['length']:,}" for row in rows])
        axes.minorticks_off()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.grid(alpha=0.3)
    speed.legend(frameon=False)
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    """Measure everything in turn; keep JSON, page and plot under ``--out``."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="*", default=LENGTHS[device])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="timed repetitions within a process")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each backbone and length")
    parser.add_argument("--out", type=Path, help="folder for the figures")
    parser.add_argument("--one", nargs=2, metavar=("RECIPE", "LENGTH"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(args.one[0], int(args.one[1]), device, args.threads, args.repeats)))
        return
    settle(args.threads)
    yardsticks = {name: name for name in by_hand.NETWORKS if device == "cuda" and by_hand.able(name)}
    recipes = SIZES[device] | yardsticks
    options = [f"--threads={args.threads}", f"--repeats={args.repeats}"]
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for _ in range(args.rounds):
        for length in args.lengths:
            for name, recipe in recipes.items():
                found = in_a_process("--one", recipe, str(length), *options)
                if found is None:
                    print(f"{name:12} {length:6}  failed", flush=True)
                    continue
                runs.setdefault((name, length), []).append(found)
                speed, peak = found["tokens_per_second"], found["peak_mb"]
                print(f"{name:12} {length:6}  {speed:10,.0f} tokens/s  {peak:8,.0f} MB", flush=True)
    rows = [
        {
            "backbone": name,
            "length": length,
            **{key: statistics.median(o[key] for o in ones) for key in ("tokens_per_second", "peak_mb")},
            "kernels": ones[0]["kernels"],
        }
        for (name, length), ones in sorted(runs.items(), key=lambda item: (list(recipes).index(item[0][0]), item[0][1]))
    ]
    record = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": processor(device),
        "threads": args.threads,
        "torch": torch.__version__,
        "command": " ".join(["python", "tests/benchmarks/lengths.py", *sys.argv[1:]]),
        "tokens": TOKENS[device],
        "rounds": args.rounds,
        "sizes": {name: estimate(load(recipe)).non_embedding for name, recipe in SIZES[device].items()},
        "lengths": rows,
        "scans": beside_the_loop(device, 3 * args.repeats),
    }
    print(page(record))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / f"lengths-{device}.json").write_text(json.dumps(record, indent=1) + "\n")
        (args.out / f"lengths-{device}.md").write_text(page(record))
        plot(record, args.out / f"lengths-{device}.svg")


if __name__ == "__main__":
    main()
