"""Noise schedules against their formulas, derivatives and inverses."""

from __future__ import annotations

import math

import pytest
import torch

from graphs.base import Noise
from graphs.noise import Cosine, Geometric, LogLinear
from workbench.core.errors import WorkbenchError

SCHEDULES = {
    "loglinear": LogLinear(),
    "loglinear, another eps": LogLinear(eps=0.05),
    "geometric": Geometric(),
    "geometric, golden": Geometric(1e-3, 8.0),
    "cosine": Cosine(),
}
T = torch.linspace(0, 1, 2001, dtype=torch.float64)
schedules = pytest.mark.parametrize("noise", SCHEDULES.values(), ids=SCHEDULES)


@schedules
def test_rate_is_the_derivative_of_the_total(noise: Noise) -> None:
    t = T.clone().requires_grad_()
    (slope,) = torch.autograd.grad(noise.total(t).sum(), t)
    torch.testing.assert_close(noise.rate(T), slope, rtol=1e-10, atol=1e-12)
    middle, step = T[1:-1], 1e-6
    finite = (noise.total(middle + step) - noise.total(middle - step)) / (2 * step)
    torch.testing.assert_close(noise.rate(middle), finite, rtol=1e-4, atol=1e-6)


@schedules
def test_time_is_the_inverse_of_the_total(noise: Noise) -> None:
    torch.testing.assert_close(noise.time_at(noise.total(T)), T, rtol=0, atol=1e-12)
    small = torch.tensor([1e-9, 1e-6], dtype=torch.float64)
    torch.testing.assert_close(noise.time_at(noise.total(small)), small, rtol=1e-5, atol=1e-12)


@schedules
def test_noise_grows(noise: Noise) -> None:
    assert bool((noise.total(T).diff() > 0).all())
    assert float(noise.total(T[0])) >= 0


@schedules
def test_single_precision_stays(noise: Noise) -> None:
    t = T.float()
    for method in (noise.total, noise.rate, noise.time_at):
        assert method(t).dtype == torch.float32
    torch.testing.assert_close(noise.total(t).double(), noise.total(T), rtol=2e-3, atol=1e-6)


def test_published_values() -> None:
    """SEDD's and MDLM's formulas, written their way."""
    eps = 1e-3
    torch.testing.assert_close(LogLinear().total(T), -torch.log1p(-(1 - eps) * T))
    assert float(LogLinear().total(torch.tensor(1.0).double())) == pytest.approx(-math.log(eps))
    torch.testing.assert_close(Geometric().total(T), (1e-4 ** (1 - T)) * 20.0**T)
    torch.testing.assert_close(
        Cosine().total(T), -torch.log(eps + (1 - eps) * torch.cos(math.pi / 2 * T)), rtol=1e-9, atol=1e-12
    )


def test_geometric_noise_has_to_grow() -> None:
    with pytest.raises(WorkbenchError, match="sigma_min must lie below sigma_max"):
        Geometric(2.0, 1.0)
