"""A likelihood bound by many noise draws, beside a plain loop over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from backbones.base import Backbone
from workbench.bench import dense, nets
from workbench.bench.base import Benchmark, Goal, Meter
from workbench.core.bounds import Count
from workbench.core.rng import Rng
from workbench.kernels.precision import cast_once
from workbench.processes.base import Shell

EPS = 1e-3


@Benchmark.register("sedd_bound")
class LikelihoodBound(Benchmark):
    """The bound of a few blocks by many draws, every term kept.

    *plain* takes one draw at a time: the scores of all positions × the vocabulary, score entropy and clean-up by
    boolean gathers, clean-up of the texts alone that hold a mask at the shortest time. Its draws cost the same but for
    those texts, so that ``timed`` of them are run and scaled to ``draws``. Both ways are told the same random numbers,
    so that they come to the same nats where all draws are run (in bfloat16 nearly).

    Settings:
        draws: noise draws of a block
        timed: draws that the plain way runs
        vocab: tokens
        batch: blocks
        length: tokens of a block
        dim: width of the transformer
        depth: its blocks
    """

    yardstick = "plain fp32"
    ways = (yardstick, "plain bf16", "workbench")
    besides = ("plain bf16",)
    goals = (Goal("workbench", ratio=3.0), Goal("workbench", ratio=3.0, device="cuda", beside="plain bf16"))
    devices: ClassVar = {"cuda": {"length": 1024, "dim": 768, "depth": 12}}

    def __init__(
        self,
        draws: Count = 1000,
        timed: Count = 8,
        vocab: Count = 50_257,
        batch: Count = 4,
        length: Count = 256,
        dim: Count = 192,
        depth: Count = 3,
    ) -> None:
        """Keep the sizes."""
        self.draws, self.timed, self.vocab, self.batch = draws, min(timed, draws), vocab, batch
        self.length, self.dim, self.depth = length, dim, depth

    @classmethod
    def example(cls) -> dict[str, Any]:
        """Three draws, all of them run."""
        return {"draws": 3, "timed": 3, "vocab": 60, "batch": 3, "length": 16, "dim": 32, "depth": 1}

    def cases(self, way: str) -> Sequence[str]:
        """One."""
        return [f"{self.draws:,} draws of {self.batch}×{self.length} tokens"]

    def measure(self, way: str, case: str, meter: Meter) -> Mapping[str, float]:
        """Seconds of all draws, nats per token."""
        meter.settle()
        net = nets.sedd(self.vocab, self.length, self.dim, self.depth, meter.device).eval().requires_grad_(False)
        process, shell = nets.diffusion(self.vocab, self.length, meter.device), Shell(net)
        ours = way not in ("plain fp32", "plain bf16")
        low = meter.precision == "bf16" if ours else way == "plain bf16"
        x0_BL = np.random.default_rng(0).integers(0, self.vocab, (self.batch, self.length))
        seq_B, rng = np.arange(self.batch), Rng(0)

        def bound(draws: int) -> npt.NDArray[np.float64]:
            if ours:
                return process.nll(shell, x0_BL, seq_B, rng, draws).nats_BK
            return plain(net, torch.from_numpy(x0_BL).to(meter.device), seq_B, rng, draws)

        run = self.draws if ours else self.timed
        meter.begin()
        with cast_once(net), meter.autocast(low):
            bound(1)  # warms up
            with meter.timed() as took:
                nats = bound(run)
        seconds = took[0] * self.draws / run
        return {"seconds": seconds, "peak_mb": meter.peak_mb(), "nats": float(nats.mean()) / self.length}


def plain(
    net: Backbone, x0_BL: torch.Tensor, seq_B: npt.NDArray[np.int64], rng: Rng, draws: int
) -> npt.NDArray[np.float64]:
    """[B, K] nats: for each draw a pass at its time, and at the shortest one of the texts that hold a mask there."""
    batch, length = x0_BL.shape
    device, mask = x0_BL.device, net.head.out_features - 1
    shift = rng.uniform("bound/time", 0, seq_B, 1)[:, 0]
    nats = []

    def noised(t: npt.NDArray[np.float64], stream: str, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
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
        masked, cleaned = x == mask, torch.zeros(x.shape, dtype=torch.float64, device=device)
        held = masked.any(-1)
        if held.any():
            law = dense.log_scores(net, x[held], sigma[held])[masked[held]][:, :-1].softmax(-1)
            share = law.gather(-1, x0_BL[masked][:, None])[:, 0].double()
            cleaned[masked] = -torch.log((1 - 1e-6) * share + 1e-6 / mask)
        nats.append(diffused + cleaned.sum(-1))
    left = 1e-3 * np.log(mask) * length  # KL to the start law: e^{-σ(1)} ln V a token
    return torch.stack(nats, -1).cpu().numpy() + left
