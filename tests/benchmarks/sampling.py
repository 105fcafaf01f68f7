"""Tokens per second of sampling: the workbench's samplers beside the published way, for one network, in one run.

*published* is SEDD's analytic sampler written plainly (`dense.py`): scores and probabilities of all positions × the
vocabulary, one float32 race a step, and the denoising last step. Its steps all cost the same, so that a few are timed
and the figure is *per step*, times the steps. Each way and batch size runs in a process of its own, in turn, several
rounds; figures are medians. A walk that would take longer than ``--patience`` is scaled by its steps from the longest
one that was run, and marked ≈ (walks that skip steps would do better). Random weights at the quickstart's width: no
text, only its cost. Half an hour on one thread of a quiet machine; `--rounds 1` takes ten minutes:

    python tests/benchmarks/sampling.py --out docs/results/sampling
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

import torch
from machine import add_common, conditions, in_words, keep, peak_mb

MAIN = {
    "analytic": {"type": "analytic"},
    "analytic, thin: 1.5": {"type": "analytic", "thin": 1.5},
    "normalised": {"type": "normalised"},
}
"""Measured at all numbers of steps."""
OTHERS = {
    "trapezoidal": {"type": "trapezoidal"},
    "first_hitting": {"type": "first_hitting"},
    "dndm": {"type": "dndm"},
    "ordered by confidence": {"type": "ordered", "order": {"type": "confidence"}},
}
"""Measured at the second number of steps (first_hitting takes one a token, whatever it is told)."""
PUBLISHED = {"published fp32": "fp32", "published bf16": "bf16"}
PUBLISHED_STEPS = 2
QUICK = 5.0
"""Seconds: longer walks are run in the first round alone."""


def network(args: argparse.Namespace) -> Any:
    """The quickstart's transformer with random weights."""
    from backbones.transformer import Transformer
    from workbench.core import index
    from workbench.train.machine import settle

    index.import_parts()  # all imports stand before the first look at the memory
    if args.device == "cpu":  # the published way too: without it most of its time would be page faults
        settle(args.threads)
    torch.manual_seed(0)
    states = args.vocab + 1
    sizes = {"dim": args.dim, "depth": args.depth, "heads": max(1, args.dim // 64), "cond_dim": 32, "neighbours": 5}
    net = Transformer(states, states, args.length, dropout=0.0, **sizes)
    torch.nn.init.normal_(net.head.weight, std=0.02)
    return net.eval().requires_grad_(False).to(args.device)


def one(way: str, args: argparse.Namespace) -> dict[str, Any]:
    """One way at one batch size in this process: a row a number of steps, and the peak memory above the network."""
    net = network(args)
    before = peak_mb(args.device)
    low = PUBLISHED.get(way, args.precision) == "bf16"
    with torch.no_grad(), torch.autocast(args.device, torch.bfloat16, enabled=low):
        rows = published(net, args) if way in PUBLISHED else walks(net, {**MAIN, **OTHERS}[way], args)
    return {"rows": rows, "peak_mb": peak_mb(args.device) - before}


def published(net: Any, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The published way: its seconds per step, times each number of steps and the last one."""
    import dense

    dense.sample(net, args.batch, args.length, 0)
    began = time.perf_counter()
    dense.sample(net, args.batch, args.length, PUBLISHED_STEPS - 1)
    step = (time.perf_counter() - began) / PUBLISHED_STEPS
    return [{"steps": n, "seconds": step * (n + 1), "calls": n + 1, "scaled": True} for n in args.steps]


def walks(net: Any, rule: dict[str, Any], args: argparse.Namespace) -> list[dict[str, Any]]:
    """A predictor's walks at each number of steps, while they are expected to end within the patience."""
    from graphs.absorbing import Absorbing
    from graphs.noise import LogLinear
    from samplers.base import Canvas, Predictor
    from samplers.reverse import Reverse
    from samplers.times import Uniform
    from workbench.core.build import build
    from workbench.core.rng import Rng
    from workbench.core.spec import resolve
    from workbench.processes.base import Shell
    from workbench.processes.readouts import Scaled
    from workbench.processes.views import DenoiserView

    node, problems = resolve(Predictor, rule)
    if node is None or problems:
        raise SystemExit(f"{rule}: {problems}")
    clock = Clock(net)
    graph = Absorbing(args.vocab)
    view = DenoiserView(Shell(net), graph, LogLinear(), Scaled(args.vocab), args.length, graph.states)

    def draw(batch: int, steps: int) -> dict[str, Any]:
        clock.seconds, clock.texts = 0.0, 0
        sampler = Reverse(build(node), Uniform(), steps)
        drawn = sampler.draw(view, Canvas.blank(batch, args.length), Rng(0))
        whole = batch * len(sampler.plan(view))
        return {
            "steps": steps, "seconds": drawn.seconds, "calls": drawn.calls, "scaled": False,
            "network": clock.seconds / drawn.seconds if args.device == "cpu" else None, "read": clock.texts / whole,
        }  # fmt: skip

    draw(args.batch, 2)  # warms up
    rows: list[dict[str, Any]] = []
    for steps in args.steps:
        expected = rows[-1]["seconds"] * steps / rows[-1]["steps"] if rows else 0.0
        if expected <= args.patience:
            rows.append(draw(args.batch, steps))
        elif args.patience > QUICK:  # a later round has nothing to add
            last = rows[-1]
            scaled = {key: last[key] * steps / last["steps"] for key in ("seconds", "calls")}
            rows.append({**last, **scaled, "steps": steps, "scaled": True})
    return rows


class Clock:
    """Seconds within the network's forward, and texts that it read."""

    def __init__(self, net: Any) -> None:
        """Hooks into ``net``."""
        self.seconds, self.texts = 0.0, 0
        net.register_forward_pre_hook(self.start)
        net.register_forward_hook(self.stop)

    def start(self, net: Any, inputs: tuple[Any, ...]) -> None:
        """A call begins."""
        self.texts += len(inputs[0])
        self.seconds -= time.perf_counter()

    def stop(self, net: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """A call ends."""
        self.seconds += time.perf_counter()


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """All ways at all batch sizes in turn, a process each; a row a way, batch size and number of steps."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    ways = [way for way in (*PUBLISHED, *MAIN, *OTHERS) if args.precision == "bf16" or way != "published bf16"]
    names = ("vocab", "dim", "depth", "length", "threads", "device", "precision")
    for turn in range(args.rounds):
        for batch in args.batches:
            for way in ways:
                steps = [args.steps[min(1, len(args.steps) - 1)]] if way in OTHERS else args.steps
                options = [f"--{name}={getattr(args, name)}" for name in names]
                patience = args.patience if turn == 0 else min(QUICK, args.patience)
                options += [f"--batch={batch}", f"--patience={patience}"]
                command = [sys.executable, __file__, "--way", way, *options, "--steps", *map(str, steps)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
                if done.returncode:
                    print(f"{way:22} batch {batch:3}  failed", flush=True)
                    continue
                found.setdefault((way, batch), []).append(json.loads(done.stdout.splitlines()[-1]))
                took = ", ".join(f"{row['seconds']:.2f} s" for row in found[way, batch][-1]["rows"])
                print(f"{way:22} batch {batch:3}  {took}", flush=True)
    return table(found, args.length)


def table(found: dict[tuple[str, int], list[dict[str, Any]]], length: int) -> list[dict[str, Any]]:
    """Medians over rounds, and their ratios to the published way in float32 at as many steps."""
    rows: list[dict[str, Any]] = []
    base: dict[tuple[int, int], dict[str, Any]] = {}
    for (way, batch), ones in found.items():
        peak = statistics.median(one["peak_mb"] for one in ones)
        for first in ones[0]["rows"]:
            same = [row for one in ones for row in one["rows"] if row["steps"] == first["steps"]]
            seconds = statistics.median(row["seconds"] for row in same)
            row = {**first, "way": way, "batch": batch, "seconds": seconds, "runs": len(same), "peak_mb": peak}
            row["tokens_per_second"] = batch * length / seconds
            if way == next(iter(PUBLISHED)):
                base[batch, first["steps"]] = row
            beside = base.get((batch, first["steps"]))
            row["ratio"] = beside["seconds"] / seconds if beside else None
            row["memory"] = peak / beside["peak_mb"] if beside and beside["peak_mb"] > 0 else None
            rows.append(row)
    return rows


def page(record: dict[str, Any]) -> str:
    """The record as a page of the docs."""
    lines = [
        "# Sampling beside the published way",
        "",
        *in_words(record, f"medians of up to {record['rounds']} processes each, in turn"),
        "",
        "*published* is SEDD's analytic sampler, written plainly (`tests/benchmarks/dense.py`); its steps cost the",
        f"same, {PUBLISHED_STEPS} are timed and scaled. ≈ is scaled likewise from the longest walk that was run.",
        "Ratios are to published fp32 in time; memory is the peak above imports and network, and its share of",
        "published fp32's. *network* is the share of the time within the backbone (the head apart), *read* the texts",
        "that it read as a share of all texts at all steps.",
        "",
        "| way | batch | steps | tokens/s | ratio | network calls | network | read | peak MB | of published |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in record["table"]:
        about = "≈" if row["scaled"] else ""
        ratio, memory, network, read = (
            "" if row.get(key) is None else form.format(row[key])
            for key, form in (("ratio", "{:.1f}×"), ("memory", "{:.2f}"), ("network", "{:.0%}"), ("read", "{:.0%}"))
        )
        lines.append(
            f"| {row['way']} | {row['batch']} | {row['steps']:,} | {about}{row['tokens_per_second']:,.1f} | "
            f"{about}{ratio} | {about}{row['calls']:,.0f} | {network} | {read} | {row['peak_mb']:,.0f} | {memory} |"
        )
    return "\n".join(lines) + "\n"


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common(parser, {"vocab": 50_257, "dim": 192, "depth": 3, "length": 256, "threads": 2})
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--steps", type=int, nargs="+", default=[16, 64, 256, 1024])
    parser.add_argument("--patience", type=float, default=60.0, help="seconds that a walk may be expected to take")
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Measure everything in turn; keep JSON and page under ``--out``."""
    from workbench.train.machine import choose_precision

    args = parsed(words)
    args.precision = choose_precision(args.precision, torch.device(args.device))[0]
    if args.way:
        print(json.dumps(one(args.way, args)))
        return
    record = {**conditions(args, __file__, ("vocab", "dim", "depth", "length")), "table": measure(args)}
    keep(record, page(record), args, "sampling")


if __name__ == "__main__":
    main()
