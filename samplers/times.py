"""Grids of times for the reverse walk."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from graphs.base import Noise
from samplers.base import Times

LastTime = Annotated[float, Interval(gt=0, lt=1)]
"""A time strictly between clean text and full noise."""


@Times.register("uniform")
class Uniform(Times):
    """Equal steps of t from 1 down to ``eps``, as SEDD samples.

    Settings:
        eps: the last time; the clean-up step goes from there to clean text
    """

    def __init__(self, eps: LastTime = 1e-5) -> None:
        """Keep the last time."""
        self.eps = eps

    def grid(self, steps: int, noise: Noise) -> Tensor:
        """linspace(1, eps, steps + 1)."""
        return torch.linspace(1, self.eps, steps + 1, dtype=torch.float64)


@Times.register("cosine")
class Cosine(Times):
    """t = cos(π/2 · i/steps), stretched to end at ``eps``: small steps first, while little is known.

    MD4's grid: Shi et al. 2024, "Simplified and generalized masked diffusion for discrete data", §5.

    Settings:
        eps: the last time; the clean-up step goes from there to clean text
    """

    def __init__(self, eps: LastTime = 1e-5) -> None:
        """Keep the last time."""
        self.eps = eps

    def grid(self, steps: int, noise: Noise) -> Tensor:
        """eps + (1 − eps) cos(π/2 · i/steps)."""
        angle = torch.linspace(0, math.pi / 2, steps + 1, dtype=torch.float64)
        return self.eps + (1 - self.eps) * angle.cos().clamp_min(0)
