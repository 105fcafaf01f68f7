"""The mixture of masks and uniform tokens against GIDD's own formulas, its rate integrated, and its two limits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from graphs.absorbing import Absorbing
from graphs.base import Graph
from graphs.mixture import Mixture
from graphs.uniform import Uniform
from tests import oracle

V = 4
SIGMAS = (0.0, 1e-3, 0.4, 2.0, 6.9)


def gidd(t: float, p_uniform: float) -> tuple[float, np.ndarray]:
    """(α_t, β_t π_t [V + 1]) as printed (von Rütte et al. 2025), with γ = 1."""
    c = 2 * p_uniform / (1 - p_uniform) * np.sqrt(t * (1 - t))
    mixed = np.append(np.full(V, c / V), t) / (1 + c)
    return (1 - t) / (1 + c), mixed


def marginal(sigma: float, p_uniform: float) -> tuple[float, np.ndarray]:
    """The same at the t where α_t = e^−σ."""
    t = brentq(lambda t: gidd(t, p_uniform)[0] - np.exp(-sigma), 0.0, 1.0 - 1e-15, xtol=1e-16) if sigma > 0 else 0.0
    return gidd(t, p_uniform)


def published(low: float, high: float, p_uniform: float) -> np.ndarray:
    """[S, S]: α_{t|s} I + (β_t π_t − α_{t|s} β_s π_s) 1ᵀ, GIDD's conditional transition."""
    (a_s, b_s), (a_t, b_t) = marginal(low, p_uniform), marginal(high, p_uniform)
    return a_t / a_s * np.eye(V + 1) + (b_t - a_t / a_s * b_s)[:, None]


def kernel(graph: Graph, low: float, high: float) -> np.ndarray:
    x_R, one_R = torch.arange(graph.states), torch.ones(graph.states, dtype=torch.float64)
    return graph.kernel_into(x_R, low * one_R, high * one_R).numpy()


def rates(graph: Graph, sigma: float) -> np.ndarray:
    x_R = torch.arange(graph.states)
    return graph.rate_into(x_R, torch.full(x_R.shape, sigma, dtype=torch.float64)).numpy()


@pytest.mark.parametrize("p_uniform", [0.02, 0.1, 0.5, 0.9])
def test_kernels_are_those_published(p_uniform: float) -> None:
    graph = Mixture(V, p_uniform)
    for low in SIGMAS:
        for high in SIGMAS:
            if low <= high:
                np.testing.assert_allclose(kernel(graph, low, high), published(low, high, p_uniform), atol=1e-9)
    half = published(0.0, -np.log(gidd(0.5, p_uniform)[0]), p_uniform)
    assert half[0, 1] * V == pytest.approx(p_uniform)  # what p_u is


@pytest.mark.parametrize("p_uniform", [0.0, 0.1, 0.6, 1.0])
def test_the_rate_integrated_is_the_kernel(p_uniform: float) -> None:
    """A product of 4,000 short exponentials at the middle of their step: the chain is not homogeneous."""
    graph = Mixture(V, p_uniform)
    edges = np.geomspace(0.05, 2.0, 4001)
    whole = np.eye(V + 1)
    for low, high in itertools.pairwise(edges):
        step = (high - low) * rates(graph, (low + high) / 2)
        whole = (np.eye(V + 1) + step + step @ step / 2) @ whole
    np.testing.assert_allclose(kernel(graph, 0.05, 2.0), whole, atol=1e-6)
    assert 0 < p_uniform < 1 or np.allclose(rates(graph, 0.1), rates(graph, 2.0))
    assert p_uniform in (0, 1) or not np.allclose(rates(graph, 0.1), rates(graph, 2.0), atol=0.01)


def rows(graph: Graph, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    x0_R = torch.arange(V).repeat(50)
    sigma_R = torch.logspace(-3, 0.8, len(x0_R), dtype=torch.float64)
    u_R = torch.rand(len(x0_R), generator=generator, dtype=torch.float64)
    log_s_RS = torch.randn(len(x0_R), V + 1, generator=generator, dtype=torch.float64)
    return log_s_RS, graph.corrupt(x0_R, sigma_R, u_R), x0_R, sigma_R


@pytest.mark.parametrize("p_uniform", [0.0, 1e-14])
def test_without_uniform_noise_it_is_the_absorbing_graph(p_uniform: float) -> None:
    graph, other = Mixture(V, p_uniform), Absorbing(V)
    log_s_RS, x_R, x0_R, sigma_R = rows(other)
    close = {"rtol": 1e-9, "atol": 1e-9}
    for low, high in ((0.0, 0.4), (0.4, 2.0)):
        np.testing.assert_allclose(kernel(graph, low, high), kernel(other, low, high), atol=1e-12)
    np.testing.assert_allclose(rates(graph, 0.4), rates(other, 0.4), atol=1e-12)
    torch.testing.assert_close(graph.prior_kl(x0_R, sigma_R), other.prior_kl(x0_R, sigma_R), **close)
    due = other.score_entropy_grad(log_s_RS.clone(), x_R, x0_R, sigma_R)
    for found, wanted in zip(graph.score_entropy_grad(log_s_RS.clone(), x_R, x0_R, sigma_R), due, strict=True):
        torch.testing.assert_close(found, wanted, **close)
    u = torch.rand(len(x0_R), dtype=torch.float64)
    assert torch.equal(graph.corrupt(x0_R, sigma_R, u), other.corrupt(x0_R, sigma_R, u))
    assert torch.equal(graph.prior(u), other.prior(u))
    clean_RV = log_s_RS[:, :V].log_softmax(-1)
    found_RS = graph.reverse_from_clean(clean_RV, x_R, sigma_R, sigma_R / 2)
    torch.testing.assert_close(found_RS, other.reverse_from_clean(clean_RV, x_R, sigma_R, sigma_R / 2), **close)


def test_with_nothing_else_it_is_the_uniform_graph() -> None:
    graph, other = Mixture(V, 1.0), Uniform(V)
    log_s_RS, x_R, x0_R, sigma_R = rows(other)
    for low, high in ((0.0, 0.4), (0.4, 2.0)):
        np.testing.assert_allclose(kernel(graph, low, high)[:V, :V], kernel(other, low, high), atol=1e-12)
        assert not kernel(graph, low, high)[V, :V].any()
    np.testing.assert_allclose(rates(graph, 0.4)[:V, :V], rates(other, 0.4), atol=1e-12)
    torch.testing.assert_close(graph.prior_kl(x0_R, sigma_R), other.prior_kl(x0_R, sigma_R), rtol=1e-9, atol=1e-12)
    due_R, due_RV = other.score_entropy_grad(log_s_RS[:, :V].clone(), x_R, x0_R, sigma_R)
    # a score of the mask pays for itself, and there is nothing beneath it: none is the truth
    log_s_RS[:, V] = -50.0
    nats_R, grad_RS = graph.score_entropy_grad(log_s_RS.clone(), x_R, x0_R, sigma_R)
    torch.testing.assert_close(nats_R, due_R, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(grad_RS[:, :V], due_RV, rtol=1e-9, atol=1e-9)
    u = torch.rand(len(x0_R), dtype=torch.float64)
    assert torch.equal(graph.corrupt(x0_R, sigma_R, u), other.corrupt(x0_R, sigma_R, u))
    assert torch.equal(graph.prior(u), other.prior(u))


def test_score_entropy_in_closed_form_is_the_sum_out_of_the_rate() -> None:
    for p_uniform in (0.05, 0.5):
        graph = Mixture(V, p_uniform)
        log_s_RS, x_R, x0_R, sigma_R = rows(graph, seed=2)
        due_R = Graph.score_entropy(graph, log_s_RS, x_R, x0_R, sigma_R)
        torch.testing.assert_close(graph.score_entropy(log_s_RS, x_R, x0_R, sigma_R), due_R, rtol=1e-8, atol=1e-9)
        single_R = graph.score_entropy(log_s_RS.float(), x_R, x0_R, sigma_R.float())
        torch.testing.assert_close(single_R.double(), due_R, rtol=2e-4, atol=2e-5)


def test_the_bound_of_the_exact_score_is_the_likelihood() -> None:
    """−log p(x0) = ∫ E[score entropy] dσ + KL(q_σ(· | x0) ‖ p_σ) for a joint law of two positions, by enumeration."""
    vocab, p_uniform, end = 3, 0.3, 5.0
    graph = Mixture(vocab, p_uniform)
    p0 = oracle.embed(oracle.random_joint(vocab, 2, seed=4), vocab + 1)
    x0 = np.array([2, 0])
    clean = np.zeros_like(p0)
    clean[tuple(x0)] = 1.0
    index = oracle.states(vocab + 1, 2)

    def expected(sigma: float) -> float:
        K = kernel(graph, 0.0, sigma)
        weight = oracle.push(clean, K).reshape(-1)
        log_score = torch.from_numpy(np.log(oracle.scores(oracle.push(p0, K))))
        total = 0.0
        for place in range(2):
            x_R, x0_R = torch.from_numpy(index[:, place]), torch.full((len(index),), int(x0[place]))
            sigma_R = torch.full((len(index),), sigma, dtype=torch.float64)
            total += float((graph.score_entropy(log_score[:, place], x_R, x0_R, sigma_R).numpy() * weight).sum())
        return total

    K = kernel(graph, 0.0, end)
    found = oracle.integrate(expected, 1e-8, end) + oracle.kl(oracle.push(clean, K), oracle.push(p0, K))
    assert found == pytest.approx(-np.log(p0[tuple(x0)]), abs=2e-6)
