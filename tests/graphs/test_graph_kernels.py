"""Kernels, rates, push and draws against the dense matrix exponential."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from graphs.absorbing import Absorbing
from graphs.dense import Ring
from graphs.uniform import Uniform
from tests import oracle
from tests.graphs.worlds import WORLDS, World, full

SPANS = [(0.0, 1e-6), (0.0, 0.3), (0.2, 0.2), (0.4, 2.5), (0.0, 40.0)]
worlds = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)


@worlds
@pytest.mark.parametrize("span", SPANS)
def test_kernel_is_the_matrix_exponential(world: World, span: tuple[float, float]) -> None:
    x_R = torch.arange(world.states)
    K = world.graph.kernel_into(x_R, full(x_R, span[0]), full(x_R, span[1])).numpy()
    np.testing.assert_allclose(K, oracle.kernel(world.Q, span[1] - span[0]), atol=1e-10, rtol=0)
    np.testing.assert_allclose(K.sum(0), 1.0, atol=1e-12)
    assert K.min() >= 0


@worlds
def test_rates_are_the_matrix(world: World) -> None:
    x_R = torch.arange(world.states)
    np.testing.assert_allclose(world.graph.rate_into(x_R, full(x_R, 0.7)).numpy(), world.Q, atol=1e-14)


@worlds
def test_kernels_compose(world: World) -> None:
    x_R = torch.arange(world.states)

    def K(low: float, high: float) -> torch.Tensor:
        return world.graph.kernel_into(x_R, full(x_R, low), full(x_R, high))

    torch.testing.assert_close(K(0.5, 1.7) @ K(0.1, 0.5), K(0.1, 1.7), atol=1e-12, rtol=0)


@worlds
@pytest.mark.parametrize("span", [(0.0, 0.3), (0.4, 2.5), (1.5, 1.5), (0.7, 0.0), (2.0, 0.5)])
def test_push_is_the_matrix_exponential_both_ways(world: World, span: tuple[float, float]) -> None:
    v_RS = torch.from_numpy(np.random.default_rng(0).random((6, world.states)))
    low, high = (torch.full((6,), end, dtype=torch.float64) for end in span)
    pushed = world.graph.push(v_RS, low, high)
    np.testing.assert_allclose(pushed.numpy(), v_RS.numpy() @ oracle.kernel(world.Q, span[1] - span[0]).T, atol=1e-10)
    torch.testing.assert_close(world.graph.push(pushed, high, low), v_RS, atol=1e-10, rtol=0)


@worlds
def test_rows_may_have_different_noises(world: World) -> None:
    x_R = torch.tensor([0, 1, 2, 1, 0])
    low_R = torch.tensor([0.0, 0.1, 0.2, 0.1, 0.0], dtype=torch.float64)
    high_R = torch.tensor([0.5, 0.1, 1.2, 0.6, 0.5], dtype=torch.float64)
    K_RS = world.graph.kernel_into(x_R, low_R, high_R)
    v_RS = torch.from_numpy(np.random.default_rng(1).random((5, world.states)))
    pushed_RS = world.graph.push(v_RS, low_R, high_R)
    for row in range(5):
        K = oracle.kernel(world.Q, float(high_R[row] - low_R[row]))
        np.testing.assert_allclose(K_RS[row].numpy(), K[int(x_R[row])], atol=1e-12)
        np.testing.assert_allclose(pushed_RS[row].numpy(), K @ v_RS[row].numpy(), atol=1e-12)


def test_rare_jumps_keep_their_relative_precision() -> None:
    """Three jumps at σ = 1e-4 happen with probability σ³/6: far below what an absolute 1e-16 would leave."""
    ring = Ring(6, forward=1.0, backward=0.0)
    x_R = torch.tensor([3])
    K_RS = ring.kernel_into(x_R, full(x_R, 0.0), full(x_R, 1e-4))
    assert float(K_RS[0, 0]) == pytest.approx(math.exp(-1e-4) * 1e-12 / 6, rel=1e-12)


@worlds
def test_corrupted_tokens_fit_the_kernel_by_chi_square(world: World) -> None:
    generator = torch.Generator().manual_seed(0)
    count, sigmas = 40_000, torch.tensor([0.05, 0.9, 3.0], dtype=torch.float64)
    u_BL = torch.rand(3, count, generator=generator, dtype=torch.float64)
    for token in range(world.graph.vocab):
        x_BL = world.graph.corrupt(torch.full((3, count), token), sigmas, u_BL)
        for row, sigma in enumerate(sigmas.tolist()):
            law = oracle.kernel(world.Q, sigma)[:, token]
            seen = np.bincount(x_BL[row].numpy(), minlength=world.states)
            possible = law > 1e-12
            assert seen[~possible].sum() == 0
            assert chisquare(seen[possible], count * law[possible] / law[possible].sum()).pvalue > 1e-4


@worlds
def test_sigma_has_the_leading_axes_of_the_tokens(world: World) -> None:
    x0 = torch.zeros(3, 3, dtype=torch.long)
    u = torch.full((3, 3), 0.6, dtype=torch.float64)
    sigma = torch.tensor([0.0, 0.1, 5.0], dtype=torch.float64)
    for shaped in (sigma, sigma[:, None], sigma[:, None].expand(3, 3)):
        x = world.graph.corrupt(x0, shaped, u)
        assert bool((x[0] == 0).all())
        assert bool((x[2] != 0).all())
        kl = world.graph.prior_kl(x0, shaped)
        assert kl.shape == (3, 3)
        assert float(kl[1, 0]) > float(kl[2, 0])
        torch.testing.assert_close(kl[:, 0], kl[:, 2])


@worlds
def test_corrupting_by_nothing_and_at_the_ends_of_u(world: World) -> None:
    x0 = torch.arange(world.graph.vocab)
    for u in (0.0, 1 - 2.0**-53):
        assert torch.equal(world.graph.corrupt(x0, full(x0, 0.0), full(x0, u)), x0)
        for sigma in (1e-12, 40.0, 700.0):
            x = world.graph.corrupt(x0, full(x0, sigma), full(x0, u))
            assert int(x.min()) >= 0
            assert int(x.max()) < world.states


@worlds
def test_prior_is_where_kernels_lead(world: World) -> None:
    count = 10_000
    drawn = world.graph.prior((torch.arange(count, dtype=torch.float64) + 0.5) / count)
    shares = np.bincount(drawn.numpy(), minlength=world.states) / count
    np.testing.assert_allclose(shares, oracle.stationary(world.Q), atol=2 / count)
    np.testing.assert_allclose(oracle.kernel(world.Q, 60.0)[:, 0], oracle.stationary(world.Q), atol=1e-8)


@pytest.mark.parametrize("name", ["uniform", "ring", "random"])
@pytest.mark.parametrize("sigma", [1e-6, 0.5, 4.0, 40.0])
def test_prior_kl_is_the_divergence_to_the_end_law(name: str, sigma: float) -> None:
    graph, Q = WORLDS[name]
    x0 = torch.arange(graph.vocab)
    truth = [oracle.kl(np.maximum(K, 0), oracle.stationary(Q)) for K in oracle.kernel(Q, sigma).T]
    kl = graph.prior_kl(x0, full(x0, sigma)).numpy()
    np.testing.assert_allclose(kl, truth, atol=1e-10)
    assert kl.min() >= 0


def test_absorbing_prior_kl_is_to_the_start_law_it_names() -> None:
    graph, sigma = Absorbing(4), 2.0
    start = np.append(np.full(4, math.exp(-sigma) / 4), 1 - math.exp(-sigma))
    truth = oracle.kl(oracle.kernel(oracle.absorbing(4), sigma)[:, 1], start)
    assert float(graph.prior_kl(torch.tensor([1]), torch.tensor([sigma]).double())) == pytest.approx(truth)


def test_leave_is_the_share_of_masks_that_go() -> None:
    graph, Q = Absorbing(4), oracle.absorbing(4)
    p0 = oracle.embed(oracle.random_joint(4, 1, seed=2), 5)
    for t, s in ((3.0, 1.0), (0.7, 0.7), (0.7, 0.0), (1e-6, 5e-7), (40.0, 39.0)):
        stay = oracle.reverse_joint(p0, Q, t, s)[4, 4]
        leave = graph.leave(torch.tensor([t]).double(), torch.tensor([s]).double())
        assert float(leave) == pytest.approx(1 - stay, abs=1e-10)
    assert float(graph.leave(torch.tensor([0.3]).double(), torch.zeros(1).double())) == 1.0
    assert float(graph.leave(torch.zeros(1), torch.zeros(1))) == 0.0
    with pytest.raises(NotImplementedError):
        Uniform(4).leave(torch.ones(1), torch.zeros(1))
