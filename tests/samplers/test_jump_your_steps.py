"""Fitted grids: the bound is one, the fit lowers it, and enumerated laws come nearer to the truth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from graphs.absorbing import Absorbing
from graphs.noise import Cosine, LogLinear
from graphs.uniform import Uniform as UniformGraph
from samplers.enumeration import every_state, law_of
from samplers.exact import ExactView
from samplers.jump_your_steps import Curve, JumpYourSteps, fit, fitted, measured
from samplers.predictors.normalised import Normalised
from samplers.reverse import Reverse
from samplers.times import Uniform
from workbench.core.errors import WorkbenchError
from workbench.core.rng import Rng
from workbench.recipe import load

EPS = 1e-5


def copies(vocab: int, length: int, slip: float) -> Tensor:
    """One token, said again at each position, or any token by a slip: once one is known all nearly are."""
    law = torch.full((vocab,) * length, 0.0, dtype=torch.float64)
    for at in itertools.product(range(vocab), repeat=length):
        law[at] = sum(
            np.prod([(1 - slip) * (token == said) + slip / vocab for token in at]) / vocab for said in range(vocab)
        )
    return law


def chance(vocab: int, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    law = torch.rand((vocab,) * length, generator=generator, dtype=torch.float64) ** 4 + 1e-3
    return law / law.sum()


def texts(law: Tensor, count: int) -> Tensor:
    """Exact texts, evenly drawn: the first ``count`` numbers of a comb through the law."""
    cdf_N = law.reshape(-1).cumsum(0)
    u_B = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return every_state(law.shape[0], law.dim())[torch.searchsorted(cdf_N, u_B * cdf_N[-1])][torch.randperm(count)]


def divergence(view: ExactView, times: Uniform | JumpYourSteps, steps: int) -> float:
    """KL of the truth to a sampler's enumerated law, nats."""
    law = law_of(Reverse(Normalised(), times, steps), view)[(slice(view.vocab),) * view.length]
    return float((view.joint * (view.joint / law).log()).sum())


@pytest.mark.parametrize("name", ["copies", "chance"])
@pytest.mark.parametrize("noise", [LogLinear(1e-6), Cosine(1e-6)], ids=["loglinear", "cosine"])
@pytest.mark.parametrize("steps", [2, 4])
def test_a_fitted_grid_is_nearer_to_the_truth(name: str, noise: LogLinear | Cosine, steps: int) -> None:
    """The exact KL is a fifth below the uniform grid's where all hangs on the first tokens written, or where the
    schedule hurries; at equal steps of the share on a law without much structure there is nothing to gain, and what
    is fitted is a bound by samples: within 2 % of the uniform grid's."""
    law = copies(2, 5, 0.02) if name == "copies" else chance(3, 3)
    view = ExactView(Absorbing(law.shape[0]), noise, law)
    times = JumpYourSteps(fit(view, texts(view.joint, 1024), Rng(0), steps, EPS, batch=1024))
    even, ours = divergence(view, Uniform(EPS), steps), divergence(view, times, steps)
    print(f"{name}, {noise.type_name}, {steps} steps: KL {even:.4f} uniform, {ours:.4f} fitted")
    assert ours < even * (1.02 if (name, noise.type_name) == ("chance", "loglinear") else 0.8)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_bound_is_above_the_divergence(steps: int) -> None:
    """L · Σ (λ − λ′) h(λ) − entropy ≥ KL, and they meet where one step writes everything."""
    view = ExactView(Absorbing(3), LogLinear(1e-9), chance(3, 3))
    curve = measured(view, texts(view.joint, 4096), Rng(0), EPS, knots=32, batch=4096)
    share_N = np.append(np.linspace(1, EPS, steps + 1), 0.0)
    entropy = float(-(view.joint * view.joint.log()).sum())
    bound, exact = 3 * curve.cost(share_N) - entropy, divergence(view, Uniform(EPS), steps)
    assert exact < bound + 0.01
    assert steps > 1 or abs(exact - bound) < 0.01


def test_the_curve_is_that_of_bayes() -> None:
    """h(λ) of a pair against its sum over texts and masks."""
    view = ExactView(Absorbing(3), LogLinear(1e-9), chance(3, 2))
    curve = measured(view, texts(view.joint, 8192), Rng(1), EPS, knots=8, batch=8192)
    p = view.joint.numpy()
    alone = [p.sum(1), p.sum(0)]
    blind = -sum((q * np.log(q)).sum() for q in alone) / 2
    seen = -sum((p * np.log(p / q)).sum() for q in (alone[0][:, None], alone[1][None])) / 2
    for share in curve.share_K[2:]:
        assert curve(share) == pytest.approx(share * blind + (1 - share) * seen, abs=0.04)


def test_the_fit_is_the_best_grid_of_a_known_curve() -> None:
    """h = λ²: by brute force for three steps, and never above equal steps."""
    share = np.linspace(0, 1, 401)
    curve = Curve(share, share**2)
    pairs = ((a, b) for a in share[1:-1:10] for b in share[1:-1:10] if b < a)
    best = min(curve.cost(np.array([1, a, b, 0])) for a, b in pairs)
    assert curve.cost(fitted(curve, 3)) == pytest.approx(best, abs=5e-4)
    for steps in (1, 2, 7, 64):
        found = fitted(curve, steps)
        assert len(found) == steps + 1 and (np.diff(found) < 0).all()
        assert curve.cost(found) <= curve.cost(np.linspace(1, 0, steps + 1)) + 1e-12


def test_a_grid_is_kept_to_the_digit_and_read_between() -> None:
    at = [1.0, 0.7, 0.2, 1e-5]
    assert JumpYourSteps(at).grid(3, LogLinear()).tolist() == at
    assert JumpYourSteps(at).grid(6, LogLinear()).tolist() == pytest.approx([1, 0.85, 0.7, 0.45, 0.2, 0.100005, 1e-5])


@pytest.mark.parametrize("at", ["[0.9, 0.1]", "[1.0, 0.5, 0.5]", "[1.0, 0.0]"])
def test_times_that_do_not_fall_are_told(at: str) -> None:
    with pytest.raises(WorkbenchError, match=r"sampler\.times\.at: times fall strictly from 1"):
        load("smoke/sedd.yaml", [f"sampler.times={{type: jump_your_steps, at: {at}}}"])


def test_only_masks_may_move() -> None:
    view = ExactView(UniformGraph(3), LogLinear(), chance(3, 2))
    with pytest.raises(WorkbenchError, match="only masks move"):
        fit(view, texts(view.joint, 8), Rng(0), 4)
