"""DNDM: each position's time of writing is drawn before the walk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Len
from torch import Tensor

from samplers.base import Law, Look, Predictor, ScoreView, Shape, State
from samplers.predictors.laws import by_clean, live_rows
from workbench.core.bounds import Count


@Predictor.register("dndm")
class Dndm(Predictor):
    """Transition times drawn ahead; the network is called only at those that occur (Chen et al. 2024, DNDM).

    P(a position is still masked at t) is the schedule's, 1 − e^-σ(t), relative to t = 1, or that of a Beta law of the
    transition time. With the schedule's times its law is that of ``normalised``, drawn once a position in place of
    once a step; a Beta law with its bulk in the middle writes few tokens at both ends.

    Settings:
        beta: [a, b], whole numbers ≥ 1: transition times from Beta(a, b) in place of the schedule's
    """

    blind = True
    shapes = "clean"
    graphs = "mask"
    begins = ("due",)

    def __init__(self, beta: Annotated[list[Count], Len(2, 2)] | None = None) -> None:
        """Keep the law of times."""
        self.beta = beta
        self.paced = beta is None

    def law(self, stage: int, looks: Sequence[Look], state: State, view: ScoreView, shape: Shape | None) -> Law:
        """See the class; without drawn times (a walk that was not begun by the sampler) their law stands in."""
        rows_R = live_rows(state)
        item_R = rows_R // state.x_BL.shape[1]
        whole_B = self._masked(torch.ones_like(state.t_B), view)
        before_R = (self._masked(state.t_B, view) / whole_B)[item_R]
        after_R = (self._masked(state.s_B, view) / whole_B)[item_R]
        if "due" in state.memory:
            leave_R = (state.memory["due"].reshape(-1)[rows_R] >= after_R).double()
        else:
            leave_R = torch.where(before_R > 0, (before_R - after_R) / before_R, 1.0)
        return by_clean(rows_R, leave_R, looks[stage], state, shape, blind=True, clipped=0.0)

    def clock(self, t: Tensor, view: ScoreView) -> Tensor:
        """Where the schedule masks as many as the Beta law has left."""
        if self.beta is None:
            return t
        return view.noise.time_at(-torch.log1p(-self._masked(t, view).clamp(max=1 - 1e-12))).clamp(0, 1)

    def _masked(self, t_B: Tensor, view: ScoreView) -> Tensor:
        """P(masked at t): the schedule's, or the Beta law's distribution function (a binomial sum)."""
        if self.beta is None:
            return -torch.expm1(-view.sigma(t_B))
        a, n = self.beta[0], sum(self.beta) - 1
        terms = [math.comb(n, k) * t_B**k * (1 - t_B) ** (n - k) for k in range(a, n + 1)]
        return torch.stack(terms).sum(0)
