"""The step through the clean law: the score's normaliser made exact."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from samplers.base import Law, Look, Predictor, ScoreView, Shape, State
from samplers.predictors.laws import Rows, by_clean, by_masses, host_sigmas, live_rows, shaped_clean


@Predictor.register("normalised")
class Normalised(Predictor):
    """Bayes' reverse step of each position, the network read as a law of its clean token given the others.

    p(x_s | x_t) = Σ_{x_0} p(x_0 | the others) · p(x_s | x_t, x_0), as D3PM, MDLM and MD4 step. On a blind
    graph who leaves needs no network, P(leave) = (e^{-σ_s} − e^{-σ_t}) / (1 − e^{-σ_t}): steps where nothing
    moves cost none, the others only the rows that move. Shapers act on the clean law, before it meets the
    noise, on every graph.
    """

    blind = True
    shapes = "clean"

    def law(self, stage: int, looks: Sequence[Look], state: State, view: ScoreView, shape: Shape | None) -> Law:
        """See the class."""
        look, rows_R = looks[stage], live_rows(state)
        if view.graph.blind:
            leave_R = view.graph.leave(*host_sigmas(rows_R, state, view))
            return by_clean(rows_R, leave_R, look, state, shape, blind=True, clipped=0.0)

        def masses(rows: Rows) -> Tensor:
            log_p_RV = shaped_clean(look, rows.rows_R, state, shape)
            return view.graph.reverse_from_clean(log_p_RV, rows.x_R, *rows.sigmas(log_p_RV.dtype))

        return by_masses(masses, rows_R, state, view)
