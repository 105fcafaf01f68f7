"""Mamba (Gu & Dao 2023): the selective scan as a mixer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.base import Mixer
from backbones.directions import Directions
from backbones.recurrence import Convolution, Core, OneWay, Recurrent, first_steps, positive_step, step_faults
from workbench.core.bounds import Count, Natural, Positive
from workbench.kernels import selective_scan


class SelectiveCore(Core):
    """Mamba's inside: a stream is fed with x; B, C and Δ (through ``rank`` channels) are read off it."""

    def __init__(
        self,
        streams: int,
        merged: bool = False,
        *,
        inner: int,
        state: int,
        rank: int,
        conv: int,
        steps: tuple[float, float],
        kernel: str,
    ) -> None:
        """``inner`` E, ``state`` N; begins as the published code: A = −1 … −N, Δ log-uniform in ``steps``."""
        super().__init__()
        self.streams, self.inner, self.state, self.rank, self.kernel = streams, inner, state, rank, kernel
        self.convolved = self.inputs = inner
        self.conv = Convolution(streams * inner, conv) if conv and not merged else None
        self.read = nn.ModuleList(nn.Linear(inner, rank + 2 * state, bias=False) for _ in range(streams))
        steps_from_rank = [nn.Linear(rank, inner, bias=False) for _ in range(streams)]
        for step in steps_from_rank:
            nn.init.uniform_(step.weight, -(rank**-0.5), rank**-0.5)
        self.step = nn.ModuleList(steps_from_rank)
        self.A_log = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(streams * inner, 1))
        self.dt_bias = nn.Parameter(first_steps(streams * inner, *steps))
        self.D = None if merged else nn.Parameter(torch.ones(streams * inner))

    def scan(self, u_BLSK: Tensor, pace_BLS1: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """See the base."""
        raw, B, C = [], [], []
        for x, read, step in zip(u_BLSK.unbind(2), self.read, self.step, strict=True):
            r_BLR, B_BLN, C_BLN = read(x).split((self.rank, self.state, self.state), dim=-1)
            raw.append(step(r_BLR))
            B.append(B_BLN)
            C.append(C_BLN)
        pace = None if pace_BLS1 is None else pace_BLS1.expand(-1, -1, self.streams, self.inner).flatten(2)
        dt_BLD = positive_step(torch.cat(raw, -1), self.dt_bias, pace)
        x_BLD = u_BLSK.flatten(2)
        kernel = self.kernel if state is None else "auto"  # the authors' kernel begins from nothing only
        y_BLD, state = selective_scan.selective_scan(
            x_BLD, dt_BLD, -self.A_log.exp(), torch.stack(B, 2), torch.stack(C, 2), state, kernel
        )
        if self.D is not None:
            y_BLD = torch.addcmul(y_BLD, x_BLD, self.D.to(x_BLD.dtype))
        return y_BLD.unflatten(-1, (self.streams, -1)), state

    def gate(self, y_BLSE: Tensor, z_BLSE: Tensor) -> Tensor:
        """y · SiLU(z)."""
        return y_BLSE * F.silu(z_BLSE)

    def scan_flops(self, length: int) -> float:
        """What is fed, kept and read of each state: three multiply-adds, per stream."""
        return 6 * self.streams * self.inner * self.state

    @property
    def state_numel(self) -> int:
        """E · N a stream."""
        return self.streams * self.inner * self.state

    def no_decay(self) -> set[str]:
        """Rates, first steps and skips."""
        return {"A_log", "dt_bias", *(() if self.D is None else ("D",))}


@Mixer.register("mamba")
class Mamba(Recurrent):
    """Mamba's mixer: h_t = exp(Δ_t A) h_{t−1} + Δ_t x_t B_t, y_t = h_t · C_t, gated (selective scan, S6).

    Settings:
        state: N, numbers that each channel keeps of the past.
        expand: width of the recurrence over the width of the stack.
        conv: positions that the short convolution sees, the last of them its own; 0 for no convolution.
        rank: channels through which the steps Δ are read; 0 for a sixteenth of the width.
        directions: how two directions share weights and merge; of no effect when causal.
        step_min: the smallest Δ that a channel begins with.
        step_max: the largest.
        kernel: implementation of the scan (auto, mamba_ssm, chunked, recurrence); from a cached state on it is auto.
    """

    usual = {"directions": {"type": "added"}}

    def __init__(
        self,
        dim: int,
        length: int,
        causal: bool,
        directions: Directions,
        state: Count = 16,
        expand: Count = 2,
        conv: Natural = 4,
        rank: Natural = 0,
        step_min: Positive = 1e-3,
        step_max: Positive = 0.1,
        kernel: selective_scan.Kernel = "auto",
    ) -> None:
        """Supplied: ``dim``, ``length`` (not needed), ``causal``."""
        super().__init__()
        inner = expand * dim
        make = partial(
            SelectiveCore,
            inner=inner,
            state=state,
            rank=rank or -(-dim // 16),
            conv=conv,
            steps=(step_min, step_max),
            kernel=kernel,
        )
        self.way = OneWay(dim, make) if causal else directions.module(dim, make)

    @classmethod
    def unfit(cls, settings: Mapping[str, Any], dim: int) -> Iterator[tuple[str, str]]:
        """Steps the wrong way round."""
        yield from step_faults(settings)

    @classmethod
    def example(cls) -> dict[str, Any]:
        """Small."""
        return {"state": 4}
