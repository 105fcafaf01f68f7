"""Mamba-2 (Dao & Gu 2024): the state-space dual as a mixer."""

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
from workbench.kernels import ssd
from workbench.kernels.precision import full_precision

EPS = 1e-5


class SSDCore(Core):
    """Mamba-2's inside: a stream is fed with x ‖ B ‖ C ‖ Δ; one decay rate A and one step Δ a head."""

    def __init__(
        self,
        streams: int,
        merged: bool = False,
        *,
        inner: int,
        state: int,
        head_dim: int,
        conv: int,
        steps: tuple[float, float],
        kernel: str,
    ) -> None:
        """``inner`` E, ``state`` N; begins as the published code: A uniform in 1 … 16, Δ log-uniform in ``steps``."""
        super().__init__()
        heads = inner // head_dim
        self.streams, self.inner, self.state, self.heads, self.kernel = streams, inner, state, heads, kernel
        self.convolved = inner + 2 * state
        self.inputs = self.convolved + heads
        self.conv = Convolution(streams * self.convolved, conv) if conv and not merged else None
        self.A_log = nn.Parameter(torch.empty(streams * heads).uniform_(1, 16).log_())
        self.dt_bias = nn.Parameter(first_steps(streams * heads, *steps))
        self.D = None if merged else nn.Parameter(torch.ones(streams * heads))
        self.norm = nn.Parameter(torch.ones(1 if merged else streams, inner))

    def scan(self, u_BLSK: Tensor, pace_BLS1: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """See the base."""
        x, B_BLSN, C_BLSN, raw = u_BLSK.split((self.inner, self.state, self.state, self.heads), dim=-1)
        pace = None if pace_BLS1 is None else pace_BLS1.expand(-1, -1, self.streams, self.heads).flatten(2)
        dt_BLH = positive_step(raw.flatten(2), self.dt_bias, pace)
        x_BLHP = x.unflatten(-1, (self.heads, -1)).flatten(2, 3)
        y_BLHP, state = ssd.ssd(x_BLHP, dt_BLH, -self.A_log.exp(), B_BLSN, C_BLSN, state, self.kernel)
        if self.D is not None:
            y_BLHP = torch.addcmul(y_BLHP, x_BLHP, self.D.to(x.dtype).unsqueeze(-1))
        return y_BLHP.unflatten(2, (self.streams, -1)).flatten(3), state

    def gate(self, y_BLSE: Tensor, z_BLSE: Tensor) -> Tensor:
        """RMSNorm(y · SiLU(z)), the norm in float32."""
        with full_precision(y_BLSE):
            gated = (y_BLSE * F.silu(z_BLSE)).to(self.norm.dtype)
            return (F.rms_norm(gated, (self.inner,), None, EPS) * self.norm).to(y_BLSE.dtype)

    def scan_flops(self, length: int) -> float:
        """Products of the chunked form: pairs and their sums within a chunk of Q, states in and out, per stream."""
        chunk = min(ssd.CHUNK, length)
        within = 2 * chunk * (self.state + self.inner)
        states = 2 * self.state * self.inner * (2 if length > chunk else 1)
        return self.streams * (within + states)

    @property
    def state_numel(self) -> int:
        """E · N a stream."""
        return self.streams * self.inner * self.state

    def no_decay(self) -> set[str]:
        """Rates, first steps, skips and the norm's scale."""
        return {"A_log", "dt_bias", "norm", *(() if self.D is None else ("D",))}


@Mixer.register("mamba2")
class Mamba2(Recurrent):
    """Mamba-2's mixer: S_t = exp(Δ_t A) S_{t−1} + Δ_t x_t B_tᵀ, y_t = S_t C_t, gated and normed (SSD, one group).

    Settings:
        state: N, numbers that each channel keeps of the past.
        head_dim: channels that share one decay and one step; divides expand · width.
        expand: width of the recurrence over the width of the stack.
        conv: positions that the short convolution sees, the last of them its own; 0 for no convolution.
        directions: how two directions share weights and merge; of no effect when causal.
        step_min: the smallest Δ that a head begins with.
        step_max: the largest.
        kernel: implementation of the scan (auto, mamba_ssm, chunked, recurrence).
    """

    usual = {"directions": {"type": "added"}}

    def __init__(
        self,
        dim: int,
        length: int,
        causal: bool,
        directions: Directions,
        state: Count = 64,
        head_dim: Count = 64,
        expand: Count = 2,
        conv: Natural = 4,
        step_min: Positive = 1e-3,
        step_max: Positive = 0.1,
        kernel: ssd.Kernel = "auto",
    ) -> None:
        """Supplied: ``dim``, ``length`` (not needed), ``causal``."""
        super().__init__()
        inner = expand * dim
        make = partial(
            SSDCore,
            inner=inner,
            state=state,
            head_dim=head_dim,
            conv=conv,
            steps=(step_min, step_max),
            kernel=kernel,
        )
        self.way = OneWay(dim, make) if causal else directions.module(dim, make)

    @classmethod
    def unfit(cls, settings: Mapping[str, Any], dim: int) -> Iterator[tuple[str, str]]:
        """A head width that does not divide the inner width; steps the wrong way round."""
        inner, head_dim = settings["expand"] * dim, settings["head_dim"]
        if inner % head_dim:
            near = max(width for width in range(1, min(head_dim, inner + 1)) if inner % width == 0)
            yield "head_dim", f"{head_dim} does not divide the inner width {inner} (expand × dim {dim}); {near} does"
        yield from step_faults(settings)

    @classmethod
    def example(cls) -> dict[str, Any]:
        """Small."""
        return {"state": 4, "head_dim": 8}
