"""The θ-RK-2 step: two looks, the second leap from where the first began."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from samplers.base import Law, Look, Predictor, ScoreView, Shape, State
from samplers.predictors.laws import by_leap, live_rows
from workbench.core.bounds import Open


@Predictor.register("theta_rk2")
class ThetaRk2(Predictor):
    """θ-RK-2 τ-leaping (Ren et al. 2025, "Fast solvers for discrete diffusion models", alg. 1): an arm to compare with.

    With h = t − s and rates μ(y) = dσ/dt · s_y of the raw scores: leap over θh by μ at (x, t), draw, look at the drawn
    text and t − θh (μ*); then leap from x again, over h, by ((1 − 1/2θ) μ + μ*/2θ)₊. Second order for one position
    only: in a text the second leap forgets what the first one wrote, so that positions written in one step are drawn
    independently, first order as `euler`, whatever θ; `trapezoidal` goes on from the drawn text. A position that the
    first leap wrote has no rate there; the first look's stands in (nought would be first order for one position too).
    Two network calls a step. Shapers act on the landing law and leave the pace alone.

    Settings:
        theta: where the second look is taken, as a share of the step
    """

    stages = 3
    shapes = "mask"
    graphs = "mask"

    def __init__(self, theta: Open = 0.5) -> None:
        """Keep the share."""
        self.theta = theta

    def time(self, stage: int, t_B: Tensor, s_B: Tensor) -> Tensor:
        """t, then t − θ(t − s); the last stage asks nothing new."""
        return t_B - (stage == 1) * self.theta * (t_B - s_B)

    def law(self, stage: int, looks: Sequence[Look], state: State, view: ScoreView, shape: Shape | None) -> Law:
        """See the class: the leap to the second look, the way back, the leap that counts."""
        if stage == 1:
            was_BL = state.free_BL & (looks[0].x_BL.cpu() == view.graph.vocab)
            rows_R = torch.nonzero((was_BL & ~state.live_BL).reshape(-1)).squeeze(-1)
            ones_R, to_R = torch.ones(rows_R.numel(), dtype=torch.float64), torch.full_like(rows_R, view.graph.vocab)
            return Law(rows_R, ones_R, torch.Tensor.double, to_R=to_R, blind=True)
        rows_R, span_B = live_rows(state), state.t_B - state.s_B
        item_R = rows_R // state.x_BL.shape[1]
        first_R = view.noise.rate(state.t_B)[item_R]
        if stage == 0:
            return by_leap([(looks[0], first_R)], self.theta * span_B, rows_R, state, view, shape)
        masked_R = (looks[1].x_BL.reshape(-1).cpu() == view.graph.vocab)[rows_R]
        share_R = masked_R / (2 * self.theta)
        second_R = view.noise.rate(self.time(1, state.t_B, state.s_B))[item_R]
        terms = [(looks[0], (1 - share_R) * first_R), (looks[1], share_R * second_R)]
        return by_leap(terms, span_B, rows_R, state, view, shape)
