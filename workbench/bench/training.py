"""An update of SEDD's weights: rows by chunks beside the published way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from workbench.bench import dense, nets
from workbench.bench.base import Benchmark, Goal, Meter
from workbench.bench.flops import update_flops
from workbench.bench.updates import RATE, compiled, update_of
from workbench.core.bounds import Count
from workbench.train.eight_bit import AdamW8bit
from workbench.train.recompute import recompute_blocks

EMA = 0.9999
WARM = 2
"""Updates that do not count: the first makes the optimizer's state and meets kernels, the second other memory."""


@Benchmark.register("sedd_training")
class Training(Benchmark):
    """A training update of SEDD on masks: noise, loss, backward, clip, AdamW, average.

    *published* is the official code's way, written plainly: head outputs, scores and loss of all positions × the
    vocabulary, averages tensor by tensor. *memory kept* is the same with freed memory kept by the process, which is
    a setting of the allocator that the workbench makes and anybody could. The network is the same in all ways. bf16 is
    autocast: blocks in bfloat16, the scores of rows in float32. *8-bit moments* is optimizer adamw8bit,
    *blocks recomputed* is train.recompute: 1, *compiled* is train.compile. What is wanted on a CPU is beside published
    fp32; the ratios to published bf16 say what of it is not due to bfloat16. On CUDA it is beside published bf16.

    *of matmul* sets the FLOPs of an update (`workbench.bench.flops`: the head's at masked positions alone, nothing
    counted twice that is computed twice) beside what products of square matrices come to in the same process and
    precision.

    Settings:
        cases: [vocabulary, sequences] of a batch, a case each
        length: tokens of a sequence
        dim: width of the transformer
        depth: its blocks
        repeats: updates timed in a process
        matmul: side of the square matrices whose product is timed
    """

    yardstick = "published fp32"
    besides = ("published bf16", "published bf16, memory kept")
    small = ("workbench bf16, 8-bit moments", "workbench bf16, 8-bit moments, blocks recomputed")
    compiled = "workbench bf16, compiled"
    ways = (yardstick, "published fp32, memory kept", *besides, "workbench fp32", "workbench bf16", compiled, *small)
    goals = (
        Goal("workbench bf16", ratio=4.0, memory=1 / 3, case="vocabulary 50,257"),
        Goal(small[0], memory=1 / 3, case="vocabulary 50,257"),
        Goal(small[1], memory=1 / 3, case="vocabulary 50,257"),
        Goal("workbench bf16", ratio=1.5, case="vocabulary 1,000"),
        Goal("workbench bf16", ratio=2.0, memory=0.35, device="cuda", beside="published bf16"),
        Goal(compiled, ratio=2.0, memory=0.35, of_matmul=0.45, device="cuda", beside="published bf16"),
    )
    devices: ClassVar = {
        "cuda": {
            "cases": [[50_257, 16]], "length": 1024, "dim": 768, "depth": 12, "repeats": 10, "matmul": 8192,
        }
    }  # fmt: skip

    def __init__(
        self,
        cases: Sequence[Sequence[int]] = ((50_257, 4), (1_000, 8)),
        length: Count = 256,
        dim: Count = 256,
        depth: Count = 6,
        repeats: Count = 3,
        matmul: Count = 2048,
    ) -> None:
        """Keep the sizes."""
        self.named = {f"vocabulary {vocab:,}, {batch}×{length} tokens": (vocab, batch) for vocab, batch in cases}
        self.length, self.dim, self.depth, self.repeats, self.matmul = length, dim, depth, repeats, matmul

    @classmethod
    def example(cls) -> dict[str, Any]:
        """A vocabulary of 60."""
        return {"cases": [[60, 2]], "length": 16, "dim": 32, "depth": 1, "repeats": 1, "matmul": 64}

    def cases(self, way: str) -> Sequence[str]:
        """The vocabularies."""
        return list(self.named)

    def measure(self, way: str, case: str, meter: Meter) -> Mapping[str, float]:
        """Seconds of an update, its peak memory above imports and network (on CUDA with it), its share of the rate of
        matrix products."""
        published, low = way.startswith("published"), "bf16" in way
        meter.settle(kept=not published or "kept" in way)
        vocab, batch = self.named[case]
        net = nets.sedd(vocab, self.length, self.dim, self.depth, meter.device)
        if published:
            x0_BL = torch.randint(vocab, (batch, self.length), generator=torch.Generator().manual_seed(0))
            x0_BL, generator = x0_BL.to(meter.device), torch.Generator(meter.device).manual_seed(1)
            average = [p.detach().clone() for p in net.parameters()]
            optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0)

            def update() -> torch.Tensor:
                with meter.autocast(low):
                    return dense.train_step(net, optimizer, average, x0_BL, generator)
        else:
            process = nets.diffusion(vocab, self.length, meter.device)
            recompute_blocks(net, int("recomputed" in way))
            if "compiled" in way:
                compiled(net, meter.device, process)
            update = update_of(net, process, batch, meter, low, EMA, AdamW8bit(lr=RATE) if way in self.small else None)
        rows: list[torch.Tensor] = []
        meter.begin()
        seconds = meter.seconds(lambda: rows.append(update()), self.repeats, WARM)
        peak, tokens = meter.peak_mb(), batch * self.length
        live = torch.stack(rows[WARM:]).double().mean().item()
        rate = update_flops(net, tokens, self.length, live) / seconds
        return {
            "seconds": seconds,
            "peak_mb": peak,
            "tokens_per_second": tokens / seconds,
            "of_matmul": rate / meter.matmul_rate(self.matmul, low),
        }
