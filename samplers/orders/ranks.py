"""Orders that rank masked positions by what the network says of them, and by lot."""

from __future__ import annotations

import torch
from torch import Tensor

from samplers.base import Order, OrderContext, Stats
from workbench.core.bounds import NonNegative


@Order.register("random")
class Random(Order):
    """By lot: with one position a step exactly the any-order law, as `first_hitting`, at the grid's pace."""

    faithful = True

    def score(self, stats: Stats | None, context: OrderContext) -> Tensor:
        """The same for all: equal scores go by lot."""
        return torch.zeros(context.rows_R.numel(), dtype=torch.float64)


class Ranked(Order):
    """An order by a number of the clean law, with Gumbel noise of temperature ``tau``."""

    def __init__(self, tau: NonNegative = 0.0) -> None:
        """Keep the temperature."""
        self.tau = tau


@Order.register("confidence")
class Confidence(Ranked):
    """The highest probability first (MaskGIT, Chang et al. 2022; LLaDA's low-confidence remasking keeps the same).

    Unfaithful: it writes what is likely first, which cools the text (its n-gram entropy falls).

    Settings:
        tau: temperature of Gumbel noise on log p; 0 takes the highest
    """

    needs = frozenset({"top1"})

    def score(self, stats: Stats | None, context: OrderContext) -> Tensor:
        """log of the largest probability."""
        return _told(stats).top1_R.log()


@Order.register("margin")
class Margin(Ranked):
    """The largest lead of the first token over the second (Kim et al. 2025, "Train for the worst, plan for the best").

    Unfaithful, as every order that looks at the law.

    Settings:
        tau: temperature of Gumbel noise on the lead, which is at most 1; 0 takes the highest
    """

    needs = frozenset({"top1", "top2"})

    def score(self, stats: Stats | None, context: OrderContext) -> Tensor:
        """p₁ − p₂."""
        told = _told(stats)
        return told.top1_R - told.top2_R


@Order.register("entropy")
class Entropy(Ranked):
    """The lowest entropy first (Ye et al. 2025, Dream). Unfaithful, as every order that looks at the law.

    Settings:
        tau: temperature of Gumbel noise on the entropy in nats; 0 takes the lowest
    """

    needs = frozenset({"entropy"})

    def score(self, stats: Stats | None, context: OrderContext) -> Tensor:
        """Minus the entropy."""
        return -_told(stats).entropy_R


@Order.register("entropy_bounded")
class EntropyBounded(Order):
    """As many of the surest positions as stay within an error bound (Ben-Hamu et al. 2025, EB-sampler).

    Positions by rising entropy H; the longest head U of that list with Σ H − max H ≤ ``gamma`` is written together: the
    sum bounds the nats that drawing them independently costs. γ = 0 writes one position a step (and those that are
    certain). No pace of a grid: a walk takes up to L steps, of which those after the last token cost nothing.

    Settings:
        gamma: nats of dependence that a step may neglect
    """

    needs = frozenset({"entropy"})
    clocked = False

    def __init__(self, gamma: NonNegative = 0.1) -> None:
        """Keep the bound."""
        self.gamma = gamma

    def score(self, stats: Stats | None, context: OrderContext) -> Tensor:
        """Minus the entropy."""
        return -_told(stats).entropy_R

    def count(self, score_BL: Tensor, context: OrderContext) -> Tensor:
        """The length of the head."""
        rising_BL = (-score_BL).sort(-1).values
        there_BL = torch.isfinite(rising_BL)
        neglected_BL = torch.where(there_BL, rising_BL, 0.0).cumsum(-1) - rising_BL
        # rounding must not turn the first position's 0 into something
        return (there_BL & (neglected_BL <= self.gamma + 1e-12)).sum(-1)

    def steps(self, steps: int, length: int) -> int:
        """One position a step at least."""
        return length


def _told(stats: Stats | None) -> Stats:
    assert stats is not None, "an order that needs numbers of the law is told them"
    return stats
