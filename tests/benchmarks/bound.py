"""Seconds of a likelihood bound by many noise draws: the workbench's rows beside a plain loop, for one network.

*plain* is the same bound, every term kept, one draw at a time: the scores of all positions × the vocabulary
(`dense.py`), score entropy and clean-up by boolean gathers. Both are told the same random numbers, so that they must
come to the same nats, which the table shows. Each way runs in a process of its own, in turn, several rounds; figures
are medians. Random weights at the quickstart's width. About two minutes on a quiet machine of two cores:

    python tests/benchmarks/bound.py --out docs/results/bound
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
import torch
from machine import add_common, conditions, in_words, keep, peak_mb
from sampling import network

WAYS = ("plain fp32", "plain bf16", "workbench")
EPS = 1e-3


def one(way: str, args: argparse.Namespace) -> dict[str, float]:
    """One way in this process: seconds, nats per token, peak memory above the network."""
    from workbench.core.rng import Rng

    net = network(args)
    process = diffusion(args)
    low = args.precision == "bf16" if way == "workbench" else way == "plain bf16"
    x0_BL = np.random.default_rng(0).integers(0, args.vocab, (args.batch, args.length))
    seq_B, rng = np.arange(args.batch), Rng(0)

    def bound(draws: int) -> Any:
        if way == "workbench":
            return process.nll(net_shell, x0_BL, seq_B, rng, draws).nats_BK
        return plain(net, torch.from_numpy(x0_BL).to(args.device), seq_B, rng, draws)

    from workbench.processes.base import Shell

    net_shell = Shell(net)
    before = peak_mb(args.device)
    with torch.no_grad(), torch.autocast(args.device, torch.bfloat16, enabled=low):
        bound(1)  # warms up
        began = time.perf_counter()
        nats = bound(args.draws)
        took = time.perf_counter() - began
    return {"seconds": took, "nats": float(nats.mean()) / args.length, "peak_mb": peak_mb(args.device) - before}


def diffusion(args: argparse.Namespace) -> Any:
    """SEDD's process on an absorbing graph."""
    from graphs.absorbing import Absorbing
    from graphs.noise import LogLinear
    from workbench.processes.diffusion import Diffusion
    from workbench.processes.objectives import ScoreEntropy
    from workbench.processes.readouts import Scaled
    from workbench.processes.time_draws import UniformTimes

    parts = (Absorbing(args.vocab), LogLinear(), Scaled(args.vocab), ScoreEntropy(), UniformTimes(eps=EPS))
    process = Diffusion(args.vocab, args.length, *parts)
    process.device = torch.device(args.device)
    return process


def plain(net: Any, x0_BL: torch.Tensor, seq_B: Any, rng: Any, draws: int) -> np.ndarray:
    """[B, K] nats: for each draw one pass at its time and one at the shortest, over all positions × the vocabulary."""
    import dense

    batch, length = x0_BL.shape
    device, mask = x0_BL.device, net.head.out_features - 1
    shift = rng.uniform("bound/time", 0, seq_B, 1)[:, 0]
    nats = []

    def noised(t: np.ndarray, stream: str, k: int) -> tuple[Any, Any, Any]:
        t_B = torch.from_numpy(t)
        sigma, rate = -torch.log1p(-(1 - 1e-3) * t_B), (1 - 1e-3) / (1 - (1 - 1e-3) * t_B)
        moved = torch.from_numpy(rng.uniform(stream, k, seq_B, length)) < (1 - torch.exp(-sigma))[:, None]
        x = torch.where(moved.to(device), mask, x0_BL)
        return x, sigma.float().to(device), rate.to(device)

    for k in range(draws):
        x, sigma, rate = noised(EPS + (1 - EPS) * (k + shift) / draws, "bound/corrupt", k)
        entropy = dense.score_entropy(dense.log_scores(net, x, sigma), x, x0_BL, sigma)
        diffused = (1 - EPS) * rate * entropy.double().sum(-1)
        x, sigma, _ = noised(np.full(batch, EPS), "bound/eps", k)
        law = dense.log_scores(net, x, sigma)[..., :-1].softmax(-1)
        share = law.gather(-1, x0_BL[..., None])[..., 0].double()
        cleaned = -torch.log((1 - 1e-6) * share + 1e-6 / mask)
        nats.append(diffused + torch.where(x == mask, cleaned, 0.0).sum(-1))
    left = 1e-3 * np.log(mask) * length  # KL to the start law: e^{-σ(1)} ln V a token
    return torch.stack(nats, -1).cpu().numpy() + left


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """All ways in turn, a process each; medians, and ratios to the plain way in float32."""
    found: dict[str, list[dict[str, float]]] = {}
    names = ("vocab", "dim", "depth", "length", "threads", "device", "precision", "batch", "draws")
    for _ in range(args.rounds):
        for way in WAYS:
            if way == "plain bf16" and args.precision != "bf16":
                continue
            options = [f"--{name}={getattr(args, name)}" for name in names]
            command = [sys.executable, __file__, "--way", way, *options]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found.setdefault(way, []).append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{way:12} {found[way][-1]['seconds']:.2f} s", flush=True)
    rows = []
    for way, ones in found.items():
        row = {key: statistics.median(one[key] for one in ones) for key in ones[0]}
        first = rows[0] if rows else row
        memory = row["peak_mb"] / first["peak_mb"] if first["peak_mb"] > 0 else None
        rows.append({"way": way, **row, "ratio": first["seconds"] / row["seconds"], "memory": memory})
    return rows


def page(record: dict[str, Any]) -> str:
    """The record as a page of the docs."""
    lines = [
        "# A likelihood bound beside a plain loop",
        "",
        *in_words(record, f"medians of {record['rounds']} processes each, in turn"),
        "",
        "*plain* computes the scores of all positions × the vocabulary, one draw at a time; the same numbers, so that",
        "nats per token must agree (bf16: nearly).",
        "",
        "| way | seconds | ratio | nats a token | peak MB | of plain fp32 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in record["table"]:
        memory = "" if row["memory"] is None else f"{row['memory']:.2f}"
        lines.append(
            f"| {row['way']} | {row['seconds']:.2f} | {row['ratio']:.1f}× | {row['nats']:.4f} | {row['peak_mb']:,.0f} "
            f"| {memory} |"
        )
    return "\n".join(lines) + "\n"


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"vocab": 50_257, "dim": 192, "depth": 3, "length": 256, "batch": 4, "draws": 8, "threads": 2}
    add_common(parser, sizes)
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Measure everything in turn; keep JSON and page under ``--out``."""
    from workbench.train.machine import choose_precision

    args = parsed(words)
    args.precision = choose_precision(args.precision, torch.device(args.device))[0]
    if args.way:
        print(json.dumps(one(args.way, args)))
        return
    sizes = ("vocab", "dim", "depth", "length", "batch", "draws")
    record = {**conditions(args, __file__, sizes), "table": measure(args)}
    keep(record, page(record), args, "bound")


if __name__ == "__main__":
    main()
