"""Noise schedules against their formulas, derivatives and inverses."""

from __future__ import annotations

import math

import pytest
import torch

from graphs.base import Noise
from graphs.noise import Cosine, Geometric, LogLinear
from graphs.noise_forms import Clipped, Polynomial
from workbench.core.errors import WorkbenchError

SCHEDULES = {
    "loglinear": LogLinear(),
    "loglinear, another eps": LogLinear(eps=0.05),
    "geometric": Geometric(),
    "geometric, golden": Geometric(1e-3, 8.0),
    "cosine": Cosine(),
    "polynomial": Polynomial(),
    "polynomial, another power": Polynomial(1.5, eps=0.01),
    "clipped loglinear": Clipped(LogLinear()),
    "clipped geometric": Clipped(Geometric(), low=0.1, high=0.95),
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


def test_polynomial_shares_are_powers_of_time() -> None:
    """MD4: α = 1 − t^w, here with what is left at the end; the first power is the log-linear schedule."""
    share = -torch.expm1(-Polynomial(3.0, eps=0.01).total(T))
    torch.testing.assert_close(share, 0.99 * T**3, rtol=1e-9, atol=1e-15)
    for method in ("total", "rate", "time_at"):
        torch.testing.assert_close(getattr(Polynomial(1.0), method)(T), getattr(LogLinear(), method)(T))


def test_clipped_runs_through_its_shares_at_the_pace_of_the_whole() -> None:
    inner = Cosine()
    noise = Clipped(inner, low=0.3, high=0.8)
    share = -torch.expm1(-noise.total(T))
    assert float(share[0]) == pytest.approx(0.3)
    assert float(share[-1]) == pytest.approx(0.8)
    first, last = inner.time_at(noise.total(T[0])), inner.time_at(noise.total(T[-1]))
    torch.testing.assert_close(noise.total(T), inner.total(first + (last - first) * T))
    whole = Clipped(LogLinear(), low=0.0, high=0.999)
    torch.testing.assert_close(whole.total(T), LogLinear().total(T), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("of", "low", "high", "message"),
    [
        (LogLinear(), 0.8, 0.3, "low must lie below high, but 0.8 ≥ 0.3"),
        (LogLinear(), 0.3, 1.0, "run from 0 to 0.999; low 0.3 and high 1 must lie between"),
        (Geometric(), 0.0, 0.5, "low 0 and high 0.5 must lie between"),
    ],
)
def test_shares_that_cannot_be_cut_are_refused(of: Noise, low: float, high: float, message: str) -> None:
    with pytest.raises(WorkbenchError, match=message):
        Clipped(of, low, high)
