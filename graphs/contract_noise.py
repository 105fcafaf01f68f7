"""What every noise schedule must satisfy; `graphs.contract` runs it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from graphs.base import Noise


def _grid() -> Tensor:
    return torch.linspace(0, 1, 1001, dtype=torch.float64)


def _grows(noise: Noise) -> Iterator[str]:
    sigma = noise.total(_grid())
    if not bool(sigma.isfinite().all()) or float(sigma[0]) < 0 or not bool((sigma.diff() > 0).all()):
        yield f"must be finite, ≥ 0 and increasing on [0, 1], but runs {sigma[0]:g} … {sigma[-1]:g}"


def _rate_is_the_derivative(noise: Noise) -> Iterator[str]:
    t = _grid()[1:-1].requires_grad_()
    (slope,) = torch.autograd.grad(noise.total(t).sum(), t)
    t = t.detach()
    rate = noise.rate(t)
    worst = int(((rate - slope).abs() / (1e-12 + slope.abs())).argmax())
    if abs(float(rate[worst] - slope[worst])) > 1e-9 * (1e-3 + abs(float(slope[worst]))):
        yield f"at t = {float(t[worst]):g} rate is {rate[worst]:g}, but total grows by {slope[worst]:g}"
    ends = noise.rate(torch.tensor([0.0, 1.0], dtype=torch.float64))
    if not bool(ends.isfinite().all()) or bool((ends < 0).any()):
        yield f"rate at the ends is {ends.tolist()}"


def _time_is_the_inverse(noise: Noise) -> Iterator[str]:
    t = _grid()
    back = noise.time_at(noise.total(t))
    apart = float((back - t).abs().max())
    if apart > 1e-9:
        yield f"time_at(total(t)) misses t by {apart:.1e}"


NOISE = (_grows, _rate_is_the_derivative, _time_is_the_inverse)
"""The checks of a noise schedule."""
