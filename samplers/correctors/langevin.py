"""Correctors that noise a little and denoise again: small amounts leave the noised law as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from samplers.base import Law, Look, Predictor, ScoreView, Shape, State
from samplers.predictors.laws import Rows, by_clean, by_masses, live_rows, settled_rows, shaped_clean
from workbench.core.bounds import Open


@Predictor.register("forward_backward")
class ForwardBackward(Predictor):
    """Noise on by δσ = −ln(1 − amount), then the ``normalised`` step back (Campbell et al. 2022, §4.4). One call.

    On any graph. With the exact score one position keeps its law exactly; several do but for the factorised step
    back, of second order in ``amount``. Shapers act on the clean law.

    Settings:
        amount: share of positions that the noise reaches
    """

    stages = 2
    shapes = "clean"
    corrects = True

    def __init__(self, amount: Open = 0.05) -> None:
        """Keep the amount as noise."""
        self.more = -math.log1p(-amount)

    def sigma(self, stage: int, state: State, view: ScoreView) -> Tensor:
        """σ(t), then δσ more."""
        return view.sigma(state.t_B) + stage * self.more

    def law(self, stage: int, looks: Sequence[Look], state: State, view: ScoreView, shape: Shape | None) -> Law:
        """See the class."""
        graph, look, rows_R = view.graph, looks[stage], live_rows(state)
        if graph.blind and stage == 0:
            rows_R = settled_rows(state)
            leave_R = torch.full(rows_R.shape, -math.expm1(-self.more), dtype=torch.float64)
            to_R = torch.full_like(rows_R, graph.vocab)
            return Law(rows_R, leave_R, torch.Tensor.double, to_R=to_R, blind=True)
        if graph.blind:
            low_R = view.sigma(state.t_B)[rows_R // state.x_BL.shape[1]]
            return by_clean(rows_R, graph.leave(low_R + self.more, low_R), look, state, shape, True, 0.0)

        def forward(rows: Rows) -> Tensor:
            here_RS = F.one_hot(rows.x_R, graph.states).to(torch.float64)
            return graph.push(here_RS, rows.sigma_t_R, rows.sigma_t_R + self.more)

        def back(rows: Rows) -> Tensor:
            log_p_RV = shaped_clean(look, rows.rows_R, state, shape)
            low_R, _ = rows.sigmas(log_p_RV.dtype)
            return graph.reverse_from_clean(log_p_RV, rows.x_R, low_R + self.more, low_R)

        return by_masses(back if stage else forward, rows_R, state, view)


@Predictor.register("dfm")
class Dfm(Predictor):
    """The corrector of discrete flow matching: both directions at once (Gat et al. 2024, eq. 26). One network call.

    A written token is masked with probability ``amount`` and a masked position written with amount · a/(1 − a), a =
    e^-σ (at most 1): the flows balance. As `forward_backward`, but nothing is masked and written in the same turn.

    Settings:
        amount: share of written tokens that is masked
    """

    blind = True
    shapes = "clean"
    graphs = "mask"
    corrects = True

    def __init__(self, amount: Open = 0.05) -> None:
        """Keep the amount."""
        self.amount = amount

    def law(self, stage: int, looks: Sequence[Look], state: State, view: ScoreView, shape: Shape | None) -> Law:
        """See the class."""
        masked_R, written_R = live_rows(state), settled_rows(state)
        odds_B = 1 / torch.expm1(view.sigma(state.t_B))  # a/(1 − a)
        back_B = (1 / odds_B).clamp(max=self.amount)  # where more would be written than there is, both slow down
        rows_R, length = torch.cat([masked_R, written_R]), state.x_BL.shape[1]
        leave_R = torch.cat([(back_B * odds_B)[masked_R // length], back_B[written_R // length]]).clamp(max=1.0)
        to_R = torch.cat([torch.full_like(masked_R, -1), torch.full_like(written_R, view.graph.vocab)])

        def target(subset: Tensor) -> Tensor:
            return shaped_clean(looks[stage], rows_R[subset].to(state.x_BL.device, non_blocking=True), state, shape)

        return Law(rows_R, leave_R, target, to_R=to_R, blind=True)
