"""Further noise schedules: a power of time, and a part of another schedule (MD4; BD3-LM)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from graphs.base import Noise
from graphs.noise import Share
from workbench.core.bounds import Fraction
from workbench.core.errors import Problem, WorkbenchError

if TYPE_CHECKING:
    from workbench.core.node import Node

TOLERANCE = 1e-9
"""How far a share may lie beyond a schedule's ends: rounding of the very share at which it ends."""


@Noise.register("polynomial")
class Polynomial(Noise):
    """σ = −ln(1 − (1 − eps) t^power): the share of masked tokens grows like a power of t (MD4's polynomial).

    ``power`` 1 is ``loglinear``; larger ones spend more of the time at little noise.

    Settings:
        power: exponent, ≥ 1 (below, the rate would be infinite at t = 0)
        eps: share of tokens that is still clean at t = 1; σ(1) = −ln eps
    """

    def __init__(self, power: Annotated[float, Ge(1)] = 2.0, eps: Share = 1e-3) -> None:
        """``power`` as in MD4's quadratic schedule."""
        self.power, self.eps = power, eps

    def total(self, t: Tensor) -> Tensor:
        """−ln(1 − (1 − eps) t^power)."""
        return -torch.log1p(-(1 - self.eps) * t**self.power)

    def rate(self, t: Tensor) -> Tensor:
        """(1 − eps) · power · t^(power − 1)/(1 − (1 − eps) t^power)."""
        slope = (1 - self.eps) * self.power * t ** (self.power - 1)
        return slope / (1 - (1 - self.eps) * t**self.power)

    def time_at(self, sigma: Tensor) -> Tensor:
        """((1 − e^−σ)/(1 − eps))^(1/power)."""
        return (-torch.expm1(-sigma) / (1 - self.eps)) ** (1 / self.power)


@Noise.register("clipped")
class Clipped(Noise):
    """The part of another schedule in which the share of moved tokens, 1 − e^−σ, lies between two shares.

    Its time is stretched to [0, 1]. Training between, say, 0.3 and 0.8 has gradients of less spread (BD3-LM, §5); the
    likelihood bound of such a schedule stays a bound, in which clean-up from ``low`` and the start at ``high`` stand
    for what is cut off, and is loose. Evaluate with the whole schedule.

    Settings:
        of: the schedule that is cut
        low: least share of moved tokens
        high: largest share; must be one that the schedule reaches
    """

    usual: ClassVar[dict[str, Any]] = {"of": {"type": "loglinear"}}

    def __init__(self, of: Noise, low: Fraction = 0.3, high: Fraction = 0.8) -> None:
        """Refuses an empty range, and shares that ``of`` does not reach."""
        if low >= high:
            raise WorkbenchError(_order(low, high))
        self.of = of
        ends = torch.tensor([low, high], dtype=torch.float64)
        first, last = of.time_at(-torch.log1p(-ends)).tolist()
        if not (first >= -TOLERANCE and last <= 1 + TOLERANCE):
            reached = -torch.expm1(-of.total(torch.tensor([0.0, 1.0], dtype=torch.float64)))
            raise WorkbenchError(
                f"noise clipped: the schedule's shares of moved tokens run from {reached[0]:g} to {reached[1]:g}; "
                f"low {low:g} and high {high:g} must lie between"
            )
        self._first = max(first, 0.0)
        self._span = min(last, 1.0) - self._first

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """Something must be left."""
        yield from super().misfits(node, root)
        low, high = node.settings["low"], node.settings["high"]
        if low >= high:
            yield Problem(node.path, _order(low, high))

    @classmethod
    def example(cls) -> dict[str, Any]:
        """Of the cosine schedule."""
        return {"of": {"type": "cosine"}}

    def total(self, t: Tensor) -> Tensor:
        """σ of the other schedule at its own time."""
        return self.of.total(self._inner(t))

    def rate(self, t: Tensor) -> Tensor:
        """The other's, by the chain rule."""
        return self.of.rate(self._inner(t)) * self._span

    def time_at(self, sigma: Tensor) -> Tensor:
        """The other's time, stretched."""
        return (self.of.time_at(sigma) - self._first) / self._span

    def _inner(self, t: Tensor) -> Tensor:
        return self._first + self._span * t


def _order(low: float, high: float) -> str:
    return f"low must lie below high, but {low:g} ≥ {high:g}; nothing of the schedule would be left"
