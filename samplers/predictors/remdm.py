"""ReMDM: steps that also take tokens back, at the marginals of the plain walk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from samplers.base import Law, Look, Predictor, ScoreView, Shape, State
from samplers.predictors.laws import live_rows, settled_rows, shaped_clean
from workbench.core.bounds import Fraction


@Predictor.register("remdm")
class Remdm(Predictor):
    """ReMDM: in each step a written token is masked again with probability σ_t (Wang et al. 2025, eq. 6).

    A masked position is written with probability (a_s − (1 − σ_t) a_t)/(1 − a_t), a = e^-σ, so that the law of x_s
    given clean text is that of plain masking for any σ_t ≤ σ_max = min(1, (1 − a_s)/a_t): trained weights serve
    as they are. σ_t is 0 on given positions and at s = 0. ``conf`` follows the published code: it shares σ_max among
    the written tokens by the softmax of minus their probability when written, and does not speed up the writing.

    Settings:
        variant: σ_t is min(eta, σ_max) (cap), eta · σ_max (rescale), σ_max shared by confidence (conf), or cap while
            the noise stands still between two ordinary walks (loop)
        eta: how much is taken back
        switch: only from this time on down (of cap, rescale, conf)
        on: loop: the time at which the noise stops
        off: loop: the time at which it goes on
        kept: loop: share of clean tokens in between
    """

    blind = True
    shapes = "clean"
    graphs = "mask"

    def __init__(
        self,
        variant: Literal["cap", "rescale", "conf", "loop"] = "cap",
        eta: Fraction = 0.02,
        switch: Fraction = 1.0,
        on: Fraction = 0.55,
        off: Fraction = 0.05,
        kept: Fraction = 0.9,
    ) -> None:
        """Keep the settings."""
        self.variant, self.eta, self.switch = variant, eta, switch
        self.on, self.off, self.kept = on, min(on, off), kept
        self.faithful = self.paced = variant in ("cap", "rescale")

    def sigma(self, stage: int, state: State, view: ScoreView) -> Tensor:
        """The noise that the walk is at: the loop has its own."""
        return self._noise(state.t_B, view)

    def clock(self, t: Tensor, view: ScoreView) -> Tensor:
        """The loop's."""
        return self._time(t, view)

    def law(self, stage: int, looks: Sequence[Look], state: State, view: ScoreView, shape: Shape | None) -> Law:
        """See the class."""
        length = state.x_BL.shape[1]
        sigma_t_B, sigma_s_B = self._noise(state.t_B, view), self._noise(state.s_B, view)
        kept_B, masked_B = (-sigma_t_B).exp(), -torch.expm1(-sigma_t_B)
        back_BL, speeds = self._back(state, -torch.expm1(-sigma_s_B) / kept_B)
        faster_B = back_BL.amax(-1) * kept_B / masked_B if speeds else torch.zeros_like(kept_B)
        write_B = (view.graph.leave(sigma_t_B, sigma_s_B) + faster_B).clamp(max=1.0)
        masked_R, written_R = live_rows(state), settled_rows(state)
        rows_R = torch.cat([masked_R, written_R])
        leave_R = torch.cat([write_B[masked_R // length], back_BL.reshape(-1)[written_R]])
        to_R = torch.cat([torch.full_like(masked_R, -1), torch.full_like(written_R, view.graph.vocab)])

        def target(subset: Tensor) -> Tensor:
            return shaped_clean(looks[stage], rows_R[subset].to(state.x_BL.device, non_blocking=True), state, shape)

        def expect(subset: Tensor) -> None:
            looks[stage].expect(rows_R[subset])

        notes = "psi" if self.variant == "conf" else ""
        return Law(rows_R, leave_R, target, to_R=to_R, blind=True, expect=expect, notes=notes)

    def _back(self, state: State, ratio_B: Tensor) -> tuple[Tensor, bool]:
        """σ_t at each position, [B, L], and whether the writing makes up for it. ``ratio_B`` = (1 − a_s)/a_t."""
        most_B = ratio_B.clamp(0.0, 1.0)
        if self.variant == "conf":
            psi_BL = state.memory.get("psi", torch.zeros(state.free_BL.shape, dtype=torch.float64)).cpu().exp()
            written_BL = state.free_BL & ~state.live_BL
            share_BL = (-psi_BL).masked_fill(~written_BL, -torch.inf).softmax(-1).nan_to_num(0.0)
            return share_BL * torch.where(state.t_B <= self.switch, most_B, 0.0).unsqueeze(-1), False
        back_B = self.eta * most_B if self.variant == "rescale" else most_B.clamp(max=self.eta)
        held_B = (state.t_B <= self.on) & (state.s_B >= self.off)
        active_B = held_B if self.variant == "loop" else state.t_B <= self.switch
        return torch.where(active_B, back_B, 0.0).unsqueeze(-1).expand(state.free_BL.shape), True

    def _noise(self, t_B: Tensor, view: ScoreView) -> Tensor:
        """σ at times [B]; in the loop, of the time at which an ordinary walk has as much noise."""
        return view.sigma(self._time(t_B, view))

    def _time(self, t_B: Tensor, view: ScoreView) -> Tensor:
        """That time."""
        if self.variant != "loop":
            return t_B
        still = float(view.noise.time_at(-torch.tensor(self.kept, dtype=torch.float64).log()))
        early_B = still + (1 - still) * (t_B - self.on) / max(1 - self.on, 1e-12)
        late_B = still * t_B / max(self.off, 1e-12)
        return torch.where(t_B > self.on, early_B, torch.where(t_B > self.off, still, late_B))
