"""Score entropy: closed forms against the sum, gradients against autograd, the bound against −log p0."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from graphs.absorbing import Absorbing
from graphs.base import Graph
from graphs.uniform import Uniform
from tests import oracle
from tests.graphs.worlds import WORLDS, World

worlds = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
SIGMAS = [1e-6, 1e-3, 0.4, 3.0, 40.0]


def pairs(world: World, sigma: float, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """(x, x0, σ) of all pairs with a probability that the oracle can resolve."""
    K = oracle.kernel(world.Q, sigma)[:, : world.graph.vocab]
    x, x0 = np.nonzero(K > 1e-9)
    return torch.from_numpy(x), torch.from_numpy(x0), torch.full((len(x),), sigma, dtype=dtype)


def perturbed(world: World, x_R: Tensor, x0_R: Tensor, sigma_R: Tensor, size: float = 0.3) -> Tensor:
    """Log scores around the truth (−12 where that is −∞)."""
    log_r_RS = world.graph.log_ratio(x_R, x0_R, sigma_R)
    noise_RS = torch.from_numpy(np.random.default_rng(0).normal(size=log_r_RS.shape))
    return torch.where(log_r_RS.isfinite(), log_r_RS, -12.0) + size * noise_RS


@worlds
@pytest.mark.parametrize("sigma", SIGMAS)
def test_score_entropy_is_the_sum_of_its_definition(world: World, sigma: float) -> None:
    x_R, x0_R, sigma_R = pairs(world, sigma)
    log_s_RS = perturbed(world, x_R, x0_R, sigma_R)
    nats_R = world.graph.score_entropy(log_s_RS, x_R, x0_R, sigma_R).numpy()
    for row, (x, x0) in enumerate(zip(x_R.tolist(), x0_R.tolist(), strict=True)):
        truth = oracle.score_entropy(world.Q, log_s_RS[row].numpy(), x, x0, sigma)
        largest = np.exp(np.max(log_s_RS[row].numpy()))
        assert nats_R[row] == pytest.approx(truth, rel=1e-9, abs=1e-11 * (1 + largest))


@worlds
@pytest.mark.parametrize("sigma", SIGMAS)
def test_log_ratio_is_the_ratio_of_the_law(world: World, sigma: float) -> None:
    x_R, x0_R, sigma_R = pairs(world, sigma)
    r_RS = world.graph.log_ratio(x_R, x0_R, sigma_R).exp().numpy()
    for row, (x, x0) in enumerate(zip(x_R.tolist(), x0_R.tolist(), strict=True)):
        law = np.maximum(oracle.kernel(world.Q, sigma)[:, x0], 0)
        np.testing.assert_allclose(r_RS[row], law / law[x], rtol=1e-6, atol=1e-9 / law[x])
        assert r_RS[row, x] == 1.0


@worlds
@pytest.mark.parametrize("sigma", SIGMAS)
def test_score_entropy_is_zero_at_the_truth_and_positive_beside_it(world: World, sigma: float) -> None:
    x_R, x0_R, sigma_R = pairs(world, sigma)
    log_r_RS = world.graph.log_ratio(x_R, x0_R, sigma_R)
    log_r_RS = torch.where(log_r_RS.isfinite(), log_r_RS, -800.0)
    scale = 1e-12 * (1 + float(log_r_RS.exp().max())) * (1 + float(log_r_RS[log_r_RS > -800].abs().max()))
    assert float(world.graph.score_entropy(log_r_RS, x_R, x0_R, sigma_R).abs().max()) < scale
    live = world.graph.live(x_R)
    beside_R = world.graph.score_entropy(perturbed(world, x_R, x0_R, sigma_R), x_R, x0_R, sigma_R)
    assert float(beside_R[live].min()) > 0
    assert not bool(beside_R[~live].any())


@worlds
@pytest.mark.parametrize("sigma", SIGMAS)
def test_gradient_is_autograds(world: World, sigma: float) -> None:
    x_R, x0_R, sigma_R = pairs(world, sigma)
    log_s_RS = perturbed(world, x_R, x0_R, sigma_R)
    plain_R, plain_RS = Graph.score_entropy_grad(world.graph, log_s_RS.clone(), x_R, x0_R, sigma_R)
    nats_R, grad_RS = world.graph.score_entropy_grad(log_s_RS.clone(), x_R, x0_R, sigma_R)
    torch.testing.assert_close(nats_R, plain_R, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(grad_RS, plain_RS, rtol=1e-10, atol=1e-12)
    assert not bool(grad_RS.gather(-1, x_R.unsqueeze(-1)).any())
    truth_RS = world.graph.rate_into(x_R, sigma_R).double() * (
        log_s_RS.exp() - world.graph.log_ratio(x_R, x0_R, sigma_R).exp()
    )
    truth_RS.scatter_(-1, x_R.unsqueeze(-1), 0.0)
    torch.testing.assert_close(grad_RS, truth_RS, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("graph", [Absorbing(50), Uniform(50)], ids=["absorbing", "uniform"])
def test_gradient_works_in_place(graph: Graph) -> None:
    log_s_RS = torch.randn(7, graph.states, generator=torch.Generator().manual_seed(0))
    x_R, x0_R = torch.full((7,), graph.states - 1), torch.arange(7)
    _, grad_RS = graph.score_entropy_grad(log_s_RS, x_R, x0_R, torch.full((7,), 0.5))
    assert grad_RS.data_ptr() == log_s_RS.data_ptr()


@worlds
def test_own_entry_is_not_read(world: World) -> None:
    x_R, x0_R, sigma_R = pairs(world, 0.4)
    log_s_RS = perturbed(world, x_R, x0_R, sigma_R)
    wild_RS = log_s_RS.scatter(-1, x_R.unsqueeze(-1), 1e4)
    for ours, wild in zip(
        world.graph.score_entropy_grad(log_s_RS.clone(), x_R, x0_R, sigma_R),
        world.graph.score_entropy_grad(wild_RS.clone(), x_R, x0_R, sigma_R),
        strict=True,
    ):
        assert torch.equal(ours, wild)
    plain_R = world.graph.score_entropy(log_s_RS, x_R, x0_R, sigma_R)
    assert torch.equal(world.graph.score_entropy(wild_RS, x_R, x0_R, sigma_R), plain_R)


@pytest.mark.parametrize("name", ["absorbing", "uniform"])
@pytest.mark.parametrize("sigma", SIGMAS)
def test_closed_forms_hold_in_single_precision(name: str, sigma: float) -> None:
    """fp32 against fp64 at the same (fp32) numbers and a vocabulary of 50,257, relative to the largest term."""
    graph = {"absorbing": Absorbing(50_257), "uniform": Uniform(50_257)}[name]
    x_R = torch.tensor([graph.states - 1, 3, 3])
    x0_R = torch.tensor([17, 3, 17])
    sigma_R = torch.full((3,), sigma)
    log_s_RS = graph.log_ratio(x_R, x0_R, sigma_R.double())
    log_s_RS = torch.where(log_s_RS.isfinite(), log_s_RS, -math.log(50_257 * math.expm1(sigma)))
    log_s_RS = (log_s_RS + 0.3 * torch.randn(log_s_RS.shape, generator=torch.Generator().manual_seed(1))).float()
    truth_R = graph.score_entropy(log_s_RS.double(), x_R, x0_R, sigma_R.double())
    nats_R = graph.score_entropy(log_s_RS, x_R, x0_R, sigma_R)
    grad_R, grad_RS = graph.score_entropy_grad(log_s_RS.clone(), x_R, x0_R, sigma_R)
    _, truth_RS = graph.score_entropy_grad(log_s_RS.double(), x_R, x0_R, sigma_R.double())
    assert nats_R.dtype == grad_R.dtype == grad_RS.dtype == torch.float32
    rho = math.expm1(sigma) / (math.expm1(sigma) + 50_257)
    stayed, moved = rho * (1 - math.log(rho)), 1 + (1 + math.log1p(1 / rho)) / math.expm1(sigma)
    scale_R = torch.where(x_R == x0_R, stayed, moved)
    assert bool(((nats_R - truth_R).abs() < 3e-6 * scale_R).all())
    assert bool(((grad_R - truth_R).abs() < 3e-6 * scale_R).all())
    torch.testing.assert_close(grad_RS.double(), truth_RS, rtol=1e-5, atol=1e-6 * float(truth_RS.abs().max()))


def test_mixed_precision_rows_keep_the_scores_type() -> None:
    """σ in float64 (as schedules give it) beside float32 scores: no [R, S] tensor is promoted."""
    for graph in (Absorbing(20), Uniform(20)):
        log_s_RS = torch.zeros(4, graph.states)
        x_R, sigma_R = torch.full((4,), graph.states - 1), torch.full((4,), 0.3, dtype=torch.float64)
        _, grad_RS = graph.score_entropy_grad(log_s_RS.clone(), x_R, torch.arange(4), sigma_R)
        assert grad_RS.dtype == torch.float32
        assert graph.clean_from_score(log_s_RS, x_R, sigma_R).dtype == torch.float32
        assert graph.reverse_from_score(log_s_RS, x_R, sigma_R, 0.5 * sigma_R).dtype == torch.float32
        log_clean_RV = graph.clean_from_score(log_s_RS, x_R, sigma_R)
        assert graph.reverse_from_clean(log_clean_RV, x_R, sigma_R, 0.5 * sigma_R).dtype == torch.float32


def test_score_entropy_is_cross_entropy_plus_the_normaliser_slack() -> None:
    """Absorbing, with μ = (e^σ − 1) s and Z = Σμ: l = (−ln(μ_x0/Z) + Z − 1 − ln Z)/(e^σ − 1)."""
    graph, sigma = Absorbing(9), 0.8
    log_s_RS = torch.randn(5, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x_R, x0_R, sigma_R = torch.full((5,), 9), torch.arange(5), torch.full((5,), sigma, dtype=torch.float64)
    e = math.expm1(sigma)
    Z_R = e * log_s_RS[:, :9].exp().sum(-1)
    cross_R = -log_s_RS[:, :9].log_softmax(-1)[torch.arange(5), x0_R]
    truth_R = (cross_R + Z_R - 1 - Z_R.log()) / e
    torch.testing.assert_close(graph.score_entropy(log_s_RS, x_R, x0_R, sigma_R), truth_R)


@pytest.mark.parametrize("name", WORLDS)
def test_bound_at_the_exact_score_is_the_likelihood(name: str) -> None:
    """∫ E score entropy dσ + KL(end) = −log p0(x0), by the package's closed forms, at L = 2."""
    graph, Q = WORLDS[name]
    p0 = oracle.embed(oracle.random_joint(graph.vocab, 2, seed=5, concentration=0.5), len(Q))

    def nats(log_score: oracle.Array, x: oracle.Array, x0: oracle.Array, sigma: float) -> float:
        sigma_R = torch.full((2,), sigma, dtype=torch.float64)
        rows_R = graph.score_entropy(torch.from_numpy(log_score), torch.from_numpy(x), torch.from_numpy(x0), sigma_R)
        return float(rows_R.sum())

    for x0 in (np.array([0, 2]), np.array([1, 1])):
        truth = -math.log(p0[tuple(x0)])
        high = 40.0
        integral = oracle.integrate(
            lambda sigma, x0=x0: oracle.expected_score_entropy(p0, Q, x0, sigma, nats), 1e-8, high, panels=20
        )
        end = graph.prior_kl(torch.from_numpy(x0), torch.tensor(high, dtype=torch.float64)).sum()
        assert integral + float(end) == pytest.approx(truth, abs=1e-5)


@pytest.mark.parametrize("name", WORLDS)
def test_oracle_bound_is_an_equality_at_any_end(name: str) -> None:
    """The oracle against itself: at total noise 2 the KL to the *true* marginal closes the gap."""
    Q = WORLDS[name].Q
    p0 = oracle.embed(oracle.random_joint(WORLDS[name].graph.vocab, 1, seed=5), len(Q))
    x0 = np.array([2])
    integral = oracle.integrate(lambda s: oracle.expected_score_entropy(p0, Q, x0, s), 1e-8, 2.0, panels=16)
    assert integral + oracle.end_kl(p0, Q, x0, 2.0) == pytest.approx(-math.log(p0[2]), abs=1e-5)
