"""Writing by an order: the pace says how many, the order which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from samplers.base import Choice, Law, Look, Order, OrderContext, Predictor, ScoreView, Shape, State
from samplers.predictors.laws import live_rows, shaped_clean


@Predictor.register("ordered")
class Ordered(Predictor):
    """Planned writing on a masked graph: exactly as many positions a step as the grid's pace asks, picked by an order.

    After the step to s a share (1 − e^-σ_s)/(1 − e^-σ_1) of the free positions is still masked, rounded. Steps that
    write nothing ask nothing. An order that needs ``drawn`` first draws a token for every masked position and then
    says which of them (and of the older ones, where it ``remasks``) stay; that second stage asks no network.

    Settings:
        order: which positions are written next
    """

    shapes = "clean"
    graphs = "mask"
    paced = False
    usual: ClassVar[dict[str, Any]] = {"order": {"type": "confidence"}}

    def __init__(self, order: Order) -> None:
        """Two stages where tokens are drawn before they are chosen."""
        self.order = order
        self.stages = 2 if "drawn" in order.needs else 1
        self.faithful = order.faithful

    def steps(self, steps: int, length: int) -> int:
        """The order's."""
        return self.order.steps(steps, length)

    def law(self, stage: int, looks: Sequence[Look], state: State, view: ScoreView, shape: Shape | None) -> Law:
        """See the class."""
        if stage == 1:
            return self._kept(looks[0], state, view)
        due_B = self._due(state.live_BL, state, view)
        rows_R = live_rows(state)
        if self.order.clocked:
            rows_R = rows_R[due_B[rows_R // state.x_BL.shape[1]] > 0]
        if rows_R.numel() == 0:
            return Law(rows_R, torch.zeros(0, dtype=torch.float64), torch.Tensor.double, blind=True)

        def target(subset: Tensor) -> Tensor:
            return shaped_clean(looks[0], rows_R[subset].to(state.x_BL.device, non_blocking=True), state, shape)

        ones_R = torch.ones(rows_R.numel(), dtype=torch.float64)
        if self.stages == 2:
            return Law(rows_R, ones_R, target, blind=True, notes="drawn")
        stats = None
        if self.order.needs:
            device_R = rows_R.to(state.x_BL.device, non_blocking=True)
            stats = looks[0].stats(device_R, view.chunk).on_host()
        context = OrderContext(state, rows_R, due_B)
        score_R = self.order.score(stats, context)
        score_BL = torch.full(state.x_BL.shape, -torch.inf, dtype=torch.float64)
        score_BL.view(-1)[rows_R] = score_R
        choice = Choice(score_R, self.order.count(score_BL, context), self.order.tau)
        return Law(rows_R, ones_R, target, blind=not self.order.needs, choice=choice)

    def _kept(self, first: Look, state: State, view: ScoreView) -> Law:
        """The second stage: what is not worth keeping is masked again."""
        was_BL = state.free_BL & (first.x_BL.cpu() == view.graph.vocab)
        new_BL = was_BL & ~state.live_BL
        due_B = self._due(was_BL, state, view) * new_BL.any(-1)
        old_BL = state.free_BL & ~was_BL
        # only sequences that have new tokens weigh them, against old ones where the order takes those back
        from_BL = (new_BL | old_BL if self.order.remasks else new_BL) & new_BL.any(-1, keepdim=True)
        rows_R = torch.nonzero(from_BL.reshape(-1)).squeeze(-1)
        keep_B = due_B + old_BL.sum(-1) * self.order.remasks
        back_B = (from_BL.sum(-1) - keep_B).clamp_min(0)
        drawn_BL = state.memory.get("drawn", torch.zeros(state.x_BL.shape, dtype=torch.float64)).cpu()
        drawn_R, was_R = drawn_BL.reshape(-1)[rows_R], was_BL.reshape(-1)[rows_R]
        score_R = self.order.score(None, OrderContext(state, rows_R, due_B, drawn_R, was_R))
        ones_R = torch.ones(rows_R.numel(), dtype=torch.float64)
        to_R = torch.full_like(rows_R, view.graph.vocab)
        choice = Choice(-score_R, back_B, self.order.tau)
        return Law(rows_R, ones_R, torch.Tensor.double, to_R=to_R, blind=True, choice=choice)

    def _due(self, masked_BL: Tensor, state: State, view: ScoreView) -> Tensor:
        """By how many written positions each sequence should grow, int64 [B]."""
        share_B = torch.expm1(-view.sigma(state.s_B)) / torch.expm1(-view.sigma(torch.ones_like(state.s_B)))
        left_B = (state.free_BL.sum(-1) * share_B).round().long()
        return (masked_BL.sum(-1) - left_B).clamp_min(0)
