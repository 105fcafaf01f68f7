"""The θ-trapezoidal step: second order in the step, two network calls."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from samplers.base import Law, Look, Predictor, ScoreView, Shape, State
from samplers.predictors.laws import by_leap, live_rows
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
        rows_R, times = live_rows(state), [self.time(i, state.t_B, state.s_B) for i in range(stage + 1)]
        rates = [view.noise.rate(t_B)[rows_R // state.x_BL.shape[1]] for t_B in times]
        span_B = (state.t_B - state.s_B) * (self.theta, 1 - self.theta)[stage]
        first = 1 / (2 * self.theta * (1 - self.theta))
        weights = rates if stage == 0 else [(1 - first) * rates[0], first * rates[1]]
        return by_leap(list(zip(looks, weights, strict=True)), span_B, rows_R, state, view, shape)
