"""Sampling: the workbench's samplers beside the published analytic one, for one network."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from samplers.base import Canvas, Predictor
from samplers.reverse import Reverse
from samplers.times import Uniform
from workbench.bench import dense, nets
from workbench.bench.base import Absent, Benchmark, Goal, Meter
from workbench.core.bounds import Count, Natural, Positive
from workbench.core.rng import Rng
from workbench.core.spec import build, resolve
from workbench.kernels.precision import cast_once
from workbench.kernels.replay import no_recorder, recorder_on, replaying
from workbench.processes.base import Shell

RULES: dict[str, dict[str, Any]] = {
    "analytic": {"type": "analytic"},
    "analytic, thin: 1.5": {"type": "analytic", "thin": 1.5},
    "normalised": {"type": "normalised"},
    "trapezoidal": {"type": "trapezoidal"},
    "first_hitting": {"type": "first_hitting"},
    "dndm": {"type": "dndm"},
    "ordered by confidence": {"type": "ordered", "order": {"type": "confidence"}},
}
"""Predictors by the name of their way."""
REPLAYED = {f"{name}, replayed": name for name in ("analytic", "normalised")}
"""Ways whose passes are replayed, and the way beside which that tells something."""
EVERYWHERE = 3
"""The first so many are measured at all numbers of steps, the others at the second (first_hitting takes one a token,
whatever it is told)."""
PUBLISHED = {"published fp32": False, "published bf16": True}
PUBLISHED_STEPS = 2
FIRST = 16
"""Steps of the walk that says how long a longer one would take."""


@Benchmark.register("sedd_sampling")
class Sampling(Benchmark):
    """Texts from pure noise by a grid of steps.

    *published* is SEDD's analytic sampler written plainly: scores and probabilities of all positions × the vocabulary,
    one float32 race a step, and the denoising last step. Its steps all cost the same: a few are timed and scaled. A
    walk of ours that would take longer than ``patience`` is cut and scaled too (``scaled`` 1; walks that skip steps
    would do better). ``calls``: network calls. ``network``: share of the time within the backbone, the head apart.
    ``read``: texts that it read as a share of all texts at all steps. Weights are random: no text, only its cost. Ours
    take the machine's precision, on CUDA bf16: what is wanted there is beside the published way in bf16 too.
    *replayed*: passes that recur are CUDA graphs (`workbench.kernels.replay`), as where a run is sampled.

    Settings:
        batches: numbers of texts at a time
        steps: steps of a walk
        vocab: tokens
        length: tokens of a text
        dim: width of the transformer
        depth: its blocks
        neighbours: its embedding tables of neighbouring tokens, to either side
        patience: seconds that a walk may be expected to take
    """

    yardstick = "published fp32"
    besides = ("published bf16",)
    ways = (*PUBLISHED, *RULES, *REPLAYED)
    goals = (
        Goal("analytic", ratio=10.0, memory=1 / 3, case="batch 4, 16 steps"),
        Goal("normalised", ratio=25.0, memory=1 / 3, case="batch 4, 16 steps"),
        Goal("analytic", ratio=2.0, device="cuda", case="batch 1, 1,024 steps", beside="published bf16"),
        Goal("analytic", ratio=2.0, device="cuda", case="batch 16, 1,024 steps", beside="published bf16"),
        Goal("normalised", ratio=3.0, device="cuda", case="batch 1, 1,024 steps", beside="published bf16"),
        Goal("normalised", ratio=3.0, device="cuda", case="batch 16, 1,024 steps", beside="published bf16"),
        Goal("analytic, replayed", ratio=2.0, device="cuda", case="batch 1, 1,024 steps", beside="published bf16"),
        Goal("normalised, replayed", ratio=3.0, device="cuda", case="batch 1, 1,024 steps", beside="published bf16"),
    )

    devices: ClassVar = {
        "cuda": {"batches": [1, 16], "steps": [1024], "length": 1024, "dim": 768, "depth": 12, "patience": 10}
    }

    def __init__(
        self,
        batches: Sequence[Count] = (4,),
        steps: Sequence[Count] = (16, 1024),
        vocab: Count = 50_257,
        length: Count = 256,
        dim: Count = 256,
        depth: Count = 6,
        neighbours: Natural = 0,
        patience: Positive = 60.0,
    ) -> None:
        """Keep the sizes."""
        self.named = {f"batch {b}, {n:,} steps": (b, n) for b in batches for n in steps}
        self.second = list(steps)[min(1, len(steps) - 1)]
        self.vocab, self.length, self.dim, self.depth = vocab, length, dim, depth
        self.neighbours, self.patience = neighbours, patience

    @classmethod
    def example(cls) -> dict[str, Any]:
        """Two steps."""
        return {"batches": [2], "steps": [2], "vocab": 60, "length": 16, "dim": 32, "depth": 1}

    def cases(self, way: str) -> Sequence[str]:
        """All numbers of steps, or the second."""
        every = way in PUBLISHED or way in REPLAYED or way in list(RULES)[:EVERYWHERE]
        return [case for case, (_, steps) in self.named.items() if every or steps == self.second]

    def measure(self, way: str, case: str, meter: Meter) -> Mapping[str, float]:
        """Seconds of a batch of texts."""
        if way == "published bf16" and meter.precision != "bf16":
            raise Absent("bfloat16 is not what this machine would choose")
        if way in REPLAYED and (reason := no_recorder(meter.device)):
            raise Absent(reason)
        meter.settle()  # the published way too: without it most of its time would be page faults
        batch, steps = self.named[case]
        sizes = (self.vocab, self.length, self.dim, self.depth, meter.device, self.neighbours)
        net = nets.sedd(*sizes).eval().requires_grad_(False)
        low = PUBLISHED.get(way, meter.precision == "bf16")
        meter.begin()
        with cast_once(net), meter.autocast(low):
            if way in PUBLISHED:
                dense.sample(net, batch, self.length, 0)
                with meter.timed() as took:
                    dense.sample(net, batch, self.length, PUBLISHED_STEPS - 1)
                found = {"seconds": took[0] / PUBLISHED_STEPS * (steps + 1), "calls": steps + 1.0, "scaled": 1.0}
            else:
                recorder = recorder_on(torch.device(meter.device)) if way in REPLAYED else None
                with replaying(net, recorder):
                    found = self._walk(Walker(net, RULES[REPLAYED.get(way, way)], self.length, meter), batch, steps)
        return {**found, "peak_mb": meter.peak_mb(), "tokens_per_second": batch * self.length / found["seconds"]}

    def _walk(self, walker: Walker, batch: int, steps: int) -> dict[str, float]:
        """A whole walk, or as much of it as patience allows, scaled."""
        walker.draw(batch, min(2, steps))  # warms up
        first = min(FIRST, steps)
        found = walker.draw(batch, first)
        expected = found["seconds"] * steps / first
        run = steps if expected <= self.patience else max(first, int(steps * self.patience / expected))
        found = found if run == first else walker.draw(batch, run)
        if run == steps:
            return {**found, "scaled": 0.0}
        return {**found, "scaled": 1.0, **{name: found[name] * steps / run for name in ("seconds", "calls")}}


class Walker:
    """Walks of a predictor on a network, with the seconds within its forward and the texts that it read."""

    def __init__(self, net: nn.Module, rule: Mapping[str, Any], length: int, meter: Meter) -> None:
        """Hooks into ``net``."""
        node, problems = resolve(Predictor, rule)
        assert node is not None and not problems, problems
        self.node, self.meter, self.length = node, meter, length
        vocab = net.head.out_features - 1  # type: ignore[union-attr, operator]
        self.view = nets.diffusion(vocab, length, meter.device).view(Shell(net))
        self.seconds, self.texts = 0.0, 0
        net.register_forward_pre_hook(self._start)
        net.register_forward_hook(self._stop)

    def draw(self, batch: int, steps: int) -> dict[str, float]:
        """Seconds, calls and shares of a walk."""
        self.seconds, self.texts = 0.0, 0
        sampler = Reverse(build(self.node), Uniform(), steps)
        drawn = sampler.draw(self.view, Canvas.blank(batch, self.length), Rng(0))
        found = {"seconds": drawn.seconds, "calls": float(drawn.calls)}
        found["read"] = self.texts / (batch * len(sampler.plan(self.view)))  # type: ignore[arg-type]
        if self.meter.device == "cpu":
            found["network"] = self.seconds / drawn.seconds
        return found

    def _start(self, net: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.texts += len(inputs[0])
        self.seconds -= time.perf_counter()

    def _stop(self, net: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        self.seconds += time.perf_counter()
