"""SEDD's Euler step: the reverse rate, frozen over the step."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from samplers.base import Law, Look, Predictor, ScoreView, Shape, State
from samplers.predictors.analytic import score_sum
from samplers.predictors.laws import Rows, by_clean, by_masses, device_rows, live_rows


@Predictor.register("euler")
class Euler(Predictor):
    """SEDD's Euler predictor: P(y) = (t − s) · dσ/dt · Q(x, y) · s_y, y ≠ x (Lou, Meng & Ermon 2024, §4.2).

    First order in the step. The sum over y is who leaves, at most 1 (``clipped`` says what went beyond).
    Shapers act on masked graphs, on the landing law, and leave the pace alone; on other graphs use
    ``normalised`` with shapers.
    """

    shapes = "mask"

    def law(self, stage: int, looks: Sequence[Look], state: State, view: ScoreView, shape: Shape | None) -> Law:
        """See the class."""
        look, rows_R = looks[stage], live_rows(state)
        if view.graph.blind:  # the rate into the mask is 1 from every token
            rows = device_rows(rows_R, state, view)
            mass_R = rows.pace_R * score_sum(look, rows, view)
            leave_R = mass_R.clamp(max=1.0)
            return by_clean(rows_R, leave_R, look, state, shape, blind=False, clipped=(mass_R - leave_R).sum())

        def masses(rows: Rows) -> Tensor:
            score_RS = look.log_score(rows.rows_R).exp_()
            sigma_t_R, _ = rows.sigmas(score_RS.dtype)
            pace_R1 = rows.pace_R.to(score_RS.dtype).unsqueeze(-1)
            return score_RS.mul_(view.graph.rate_into(rows.x_R, sigma_t_R)).mul_(pace_R1)

        return by_masses(masses, rows_R, state, view)
