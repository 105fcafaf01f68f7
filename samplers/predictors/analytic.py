"""SEDD's analytic step (Tweedie τ-leaping)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from samplers.base import Law, Look, Predictor, ScoreView, Shape, State, rows_map
from samplers.predictors.laws import Rows, by_clean, by_masses, device_rows, live_rows


@Predictor.register("analytic")
class Analytic(Predictor):
    """SEDD's analytic predictor: staggered score times forward kernel (Lou, Meng & Ermon 2024, eq. 19).

    P(x_s = y) = push(score, σ_t → σ_s)(y) · P(y at σ_s → x at σ_t): Bayes' law where the score is exact. With
    a network's it need not sum to one: the off-diagonal mass is who leaves, negatives count as 0, a sum above
    1 as 1 (``clipped`` says how much). On a blind graph it reads P(y) = (e^{σ_t − σ_s} − 1) · s_y. Shapers
    act there on the landing law and leave the pace alone; on other graphs use ``normalised`` with shapers.
    """

    shapes = "mask"

    def law(self, stage: int, looks: Sequence[Look], state: State, view: ScoreView, shape: Shape | None) -> Law:
        """See the class."""
        look, rows_R = looks[stage], live_rows(state)
        if view.graph.blind:
            rows = device_rows(rows_R, state, view)
            factor_R = torch.expm1(rows.sigma_t_R - rows.sigma_s_R)
            mass_R = factor_R * score_sum(look, rows, view)
            leave_R = mass_R.clamp(max=1.0)
            return by_clean(rows_R, leave_R, look, state, shape, blind=False, clipped=(mass_R - leave_R).sum())

        def masses(rows: Rows) -> Tensor:
            log_score_RS = look.log_score(rows.rows_R)
            return view.graph.reverse_from_score(log_score_RS, rows.x_R, *rows.sigmas(log_score_RS.dtype))

        return by_masses(masses, rows_R, state, view)


def score_sum(look: Look, rows: Rows, view: ScoreView) -> Tensor:
    """Σ over tokens of the score, [R] float64, by chunks: the pace of a raw score on a blind graph."""
    if rows.rows_R.numel() == 0:  # nothing left to move: the network is not asked
        return torch.zeros_like(rows.pace_R)
    return rows_map(lambda piece: look.log_total(piece, view.graph.vocab), rows.rows_R, view.chunk).exp()
