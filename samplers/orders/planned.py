"""Orders that plan: tokens are drawn first and then kept or taken back; blocks written left to right."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from samplers.base import Order, OrderContext, Stats
from workbench.core.bounds import Count, NonNegative

APART = 1e6
"""How much lower a later block ranks: more than any order's numbers lie apart."""


@Order.register("p2")
class PathPlanning(Order):
    """P2 (Peng et al. 2025): every masked position gets a token, and the best of old and new ones stay.

    A new token is worth log of the probability with which it was drawn, one of an earlier step ``eta`` times that:
    0 never takes one back (LLaDA's order, with drawn tokens), above 1 takes back more. The network plans for itself,
    by what it thought when it drew. Unfaithful.

    Settings:
        eta: weight of the probability of tokens of earlier steps
        tau: temperature of Gumbel noise on what tokens are worth
    """

    needs = frozenset({"drawn"})
    remasks = True

    def __init__(self, eta: NonNegative = 1.0, tau: NonNegative = 0.0) -> None:
        """Keep the weight."""
        self.eta, self.tau = eta, tau

    def score(self, stats: Stats | None, context: OrderContext) -> Tensor:
        """log p of new tokens, ``eta`` · log p of old ones."""
        assert context.drawn_R is not None and context.was_masked_R is not None
        return torch.where(context.was_masked_R, context.drawn_R, self.eta * context.drawn_R)


@Order.register("blocks")
class Blocks(Order):
    """Semi-autoregressive: an earlier block of ``size`` positions is written before a later one (LLaDA, §2.4).

    Inside a block as the inner order says. A step whose share is more than what a block still lacks goes on into the
    next one. A walk is over all positions at once: the network sees later blocks as masks.

    Settings:
        order: the order inside a block
        size: positions of a block
    """

    usual: ClassVar[dict[str, Any]] = {"order": {"type": "confidence"}}

    def __init__(self, order: Order, size: Count = 32) -> None:
        """Take over what the inner order declares."""
        self.order, self.size = order, size
        self.needs, self.remasks, self.clocked = order.needs, order.remasks, order.clocked
        self.faithful, self.tau = order.faithful, order.tau

    def score(self, stats: Stats | None, context: OrderContext) -> Tensor:
        """The inner order's, lower by far in later blocks."""
        block_R = context.rows_R % context.state.x_BL.shape[1] // self.size
        return self.order.score(stats, context) - APART * block_R

    def count(self, score_BL: Tensor, context: OrderContext) -> Tensor:
        """The inner order's; one with a count of its own is asked of the first block alone."""
        if self.clocked:
            return self.order.count(score_BL, context)
        first_B1 = score_BL.amax(-1, keepdim=True)
        block_B1 = (-first_B1 / APART).floor().clamp_min(0).nan_to_num(0.0, posinf=0.0)
        inside_BL = score_BL + APART * block_B1
        return self.order.count(inside_BL.masked_fill(inside_BL < -APART / 2, -torch.inf), context)

    def steps(self, steps: int, length: int) -> int:
        """The inner order's."""
        return self.order.steps(steps, length)
