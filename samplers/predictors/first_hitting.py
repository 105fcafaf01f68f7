"""First hitting: positions one by one, in an order that lots decide. No grid of times, no error of a grid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from samplers.base import Choice, Law, Look, Predictor, ScoreView, Shape, State
from samplers.predictors.laws import live_rows, shaped_clean
from workbench.core.bounds import Count


@Predictor.register("first_hitting")
class FirstHitting(Predictor):
    """The walk of infinitely many steps: each time the next ``block`` positions by lot (Zheng et al. 2024, §4).

    On a masked graph the order in which positions are written is uniform, whatever the schedule, and a law of the
    clean token does not depend on the time: ``block: 1`` is exact with as many network calls as there are tokens;
    more at a time draws those independently. The network hears σ̂ = −ln(1 − masked/L), the noise at which as much
    is masked as is. The sampler's ``steps`` are not used: a walk takes L/``block``.

    Settings:
        block: positions written at a time
    """

    blind = True
    shapes = "clean"
    graphs = "mask"
    paced = False

    def __init__(self, block: Count = 1) -> None:
        """Keep the number."""
        self.block = block

    def steps(self, steps: int, length: int) -> int:
        """As many as it takes to write all positions."""
        return -(-length // self.block)

    def sigma(self, stage: int, state: State, view: ScoreView) -> Tensor:
        """σ̂, at most that at t = 1."""
        share_B = state.live_BL.double().mean(-1)
        return torch.minimum(-torch.log1p(-share_B), view.sigma(torch.ones_like(state.t_B)))

    def law(self, stage: int, looks: Sequence[Look], state: State, view: ScoreView, shape: Shape | None) -> Law:
        """See the class."""
        rows_R = live_rows(state)
        zeros_R = torch.zeros(rows_R.numel(), dtype=torch.float64)
        choice = Choice(zeros_R, torch.full((len(state.x_BL),), self.block))

        def target(subset: Tensor) -> Tensor:
            return shaped_clean(looks[stage], rows_R[subset].to(state.x_BL.device, non_blocking=True), state, shape)

        return Law(rows_R, zeros_R + 1, target, blind=True, choice=choice)
