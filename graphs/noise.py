"""Noise schedules: total noise σ(t), its rate dσ/dt, and the time at a given noise. SEDD §5.1, MDLM."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from graphs.base import Noise
from workbench.core.bounds import Positive
from workbench.core.errors import Problem, WorkbenchError

if TYPE_CHECKING:
    from workbench.core.spec import Node

Share = Annotated[float, Interval(gt=0, lt=1)]
"""A real number strictly between 0 and 1."""


@Noise.register("loglinear")
class LogLinear(Noise):
    """σ = −ln(1 − (1 − eps) t): on the absorbing graph the share of masked tokens grows linearly in t.

    Settings:
        eps: share of tokens that is still clean at t = 1; σ(1) = −ln eps
    """

    def __init__(self, eps: Share = 1e-3) -> None:
        """``eps`` as published (SEDD, MDLM): 1e-3."""
        self.eps = eps

    def total(self, t: Tensor) -> Tensor:
        """−ln(1 − (1 − eps) t)."""
        return -torch.log1p(-(1 - self.eps) * t)

    def rate(self, t: Tensor) -> Tensor:
        """(1 − eps)/(1 − (1 − eps) t)."""
        return (1 - self.eps) / (1 - (1 - self.eps) * t)

    def time_at(self, sigma: Tensor) -> Tensor:
        """(1 − e^−σ)/(1 − eps)."""
        return -torch.expm1(-sigma) / (1 - self.eps)


@Noise.register("geometric")
class Geometric(Noise):
    """σ = sigma_min^(1−t) · sigma_max^t: equal ratios of noise in equal times (SEDD, uniform).

    σ(0) is ``sigma_min``, not 0: text at t = 0 is still (hardly) noised.

    Settings:
        sigma_min: total noise at t = 0 (published code: 1e-4; paper: 1e-5)
        sigma_max: total noise at t = 1 (published: 20)
    """

    def __init__(self, sigma_min: Positive = 1e-4, sigma_max: Positive = 20.0) -> None:
        """Refuses ``sigma_min`` ≥ ``sigma_max``."""
        if sigma_min >= sigma_max:
            raise WorkbenchError(_order(sigma_min, sigma_max))
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self._span = math.log(sigma_max / sigma_min)

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """The noise must grow."""
        yield from super().misfits(node, root)
        low, high = node.settings["sigma_min"], node.settings["sigma_max"]
        if low >= high:
            yield Problem(node.path, _order(low, high))

    def total(self, t: Tensor) -> Tensor:
        """sigma_min · (sigma_max/sigma_min)^t."""
        return self.sigma_min * torch.exp(self._span * t)

    def rate(self, t: Tensor) -> Tensor:
        """σ(t) · ln(sigma_max/sigma_min)."""
        return self._span * self.total(t)

    def time_at(self, sigma: Tensor) -> Tensor:
        """ln(σ/sigma_min)/ln(sigma_max/sigma_min); below 0 for noises below ``sigma_min``."""
        return torch.log(sigma / self.sigma_min) / self._span


@Noise.register("cosine")
class Cosine(Noise):
    """σ = −ln(eps + (1 − eps) cos(πt/2)): little noise early, MDLM's cosine schedule.

    Settings:
        eps: share of tokens that is still clean at t = 1; σ(1) = −ln eps
    """

    def __init__(self, eps: Share = 1e-3) -> None:
        """``eps`` as in MDLM: 1e-3."""
        self.eps = eps

    def total(self, t: Tensor) -> Tensor:
        """−ln(1 − 2 (1 − eps) sin²(πt/4)), which is the same and exact at small t."""
        return -torch.log1p(-2 * (1 - self.eps) * torch.sin(math.pi / 4 * t).square())

    def rate(self, t: Tensor) -> Tensor:
        """(1 − eps) (π/2) sin(πt/2) / (eps + (1 − eps) cos(πt/2)); 0 at t = 0."""
        angle = math.pi / 2 * t
        clean = self.eps + (1 - self.eps) * torch.cos(angle)
        return (1 - self.eps) * math.pi / 2 * torch.sin(angle) / clean

    def time_at(self, sigma: Tensor) -> Tensor:
        """(4/π) asin √((1 − e^−σ)/(2 (1 − eps)))."""
        return 4 / math.pi * torch.asin(torch.sqrt(-torch.expm1(-sigma) / (2 * (1 - self.eps))))


def _order(low: float, high: float) -> str:
    return f"sigma_min must lie below sigma_max, but {low:g} ≥ {high:g}; the noise has to grow with t"
