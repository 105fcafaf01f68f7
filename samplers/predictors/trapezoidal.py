"""The θ-trapezoidal step: second order in the step, two network calls."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from samplers.base import Law, Look, Predictor, ScoreView, Shape, ShapeContext, State, rows_map
from samplers.predictors.laws import Rows, device_rows, live_rows
from workbench.core.bounds import Open


@Predictor.register("trapezoidal")
class Trapezoidal(Predictor):
    """θ-trapezoidal τ-leaping (Ren et al. 2025, alg. 2; Anderson & Koyama 2012): a leap, a draw, a corrected leap.

    With h = t − s and rates μ(y) = dσ/dt · s_y of the raw scores: leap over θh by μ at (x, t), draw; then leap over
    (1 − θ)h by (α₁ μ* − α₂ μ)₊ with μ* at the drawn text and t − θh, α₁ = 1/(2θ(1 − θ)), α₂ = α₁ − 1. A leap moves a
    masked position with probability 1 − exp(−time · Σμ). Second order where α₁ μ* ≥ α₂ μ; what is clamped there is
    counted (``clipped``). Shapers act on the landing law and leave the pace alone.

    Settings:
        theta: where the second look is taken, as a share of the step
    """

    stages = 2
    shapes = "mask"
    graphs = "mask"

    def __init__(self, theta: Open = 0.5) -> None:
        """Keep the share."""
        self.theta = theta

    def time(self, stage: int, t_B: Tensor, s_B: Tensor) -> Tensor:
        """t, then t − θ(t − s)."""
        return t_B - stage * self.theta * (t_B - s_B)

    def law(self, stage: int, looks: Sequence[Look], state: State, view: ScoreView, shape: Shape | None) -> Law:
        """See the class."""
        rows_R = live_rows(state)
        if rows_R.numel() == 0:  # nothing left to write: the network is not asked
            return Law(rows_R, torch.zeros(0, dtype=torch.float64), torch.Tensor.double, blind=True)
        rows, item_R = device_rows(rows_R, state, view), rows_R // state.x_BL.shape[1]
        rates = [view.noise.rate(self.time(i, state.t_B, state.s_B))[item_R] for i in range(stage + 1)]
        rate = [one.to(state.x_BL.device, non_blocking=True) for one in rates]
        span_R = ((state.t_B - state.s_B) * (self.theta, 1 - self.theta)[stage])[item_R].to(rows.rows_R.device)
        first = 1 / (2 * self.theta * (1 - self.theta))

        def mu(look: Look, rate_R: Tensor, subset: Tensor, some: Rows) -> Tensor:
            score_RV = look.log_score(some.rows_R)[:, : view.graph.vocab].exp_()
            return score_RV.mul_(rate_R[subset].to(score_RV.dtype).unsqueeze(-1))

        def signed(subset: Tensor) -> Tensor:
            some = rows[subset]
            mu_RV = mu(looks[stage], rate[stage], subset, some)
            if stage == 0:
                return mu_RV
            return mu_RV.mul_(first).sub_(mu(looks[0], rate[0], subset, some), alpha=first - 1)

        def sums(subset: Tensor) -> Tensor:
            mu_RV = signed(subset)
            kept_R = mu_RV.clamp_min(0).sum(-1, dtype=torch.float64)
            return torch.stack([kept_R, kept_R - mu_RV.sum(-1, dtype=torch.float64)], -1) * span_R[subset].unsqueeze(-1)

        def target(subset: Tensor) -> Tensor:
            subset = subset.to(rows.rows_R.device, non_blocking=True)
            log_RV = signed(subset).clamp_min_(0).log_()
            if shape is None:
                return log_RV
            context = ShapeContext(state.x_BL, rows.rows_R[subset], ~state.live_BL, state.t_B)
            return shape(log_RV.log_softmax(-1), context)

        index_R = torch.arange(rows_R.numel(), device=rows.rows_R.device)
        sums_R2 = rows_map(sums, index_R, view.chunk)
        return Law(rows_R, -torch.expm1(-sums_R2[:, 0]), target, clipped=sums_R2[:, 1].sum())
