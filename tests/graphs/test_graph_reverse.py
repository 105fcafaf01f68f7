"""Reverse steps with exact scores and exact clean laws against Bayes' reverse kernel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests import oracle
from tests.graphs.worlds import WORLDS, World, full

STEPS = [(0.7, 0.3), (0.7, 0.0), (0.5, 0.5), (3.0, 2.9), (1e-3, 0.0), (4.0, 0.2)]
cases = pytest.mark.parametrize("name,length", [(name, L) for name in WORLDS for L in (1, 2, 3)])
steps = pytest.mark.parametrize("t,s", STEPS)


def world_at(name: str, length: int) -> tuple[World, oracle.Array]:
    world = WORLDS[name]
    return world, oracle.embed(oracle.random_joint(world.graph.vocab, length, seed=7), world.states)


def possible_rows(world: World, p0: oracle.Array, sigma: float) -> tuple[Tensor, Tensor, oracle.Array]:
    """(x_R, log_score_RS, which [S^L, L] rows) of all states that can occur at σ."""
    law = oracle.noised(p0, world.Q, sigma)
    index = oracle.states(world.states, p0.ndim)
    occurs = np.repeat((law.reshape(-1) > 1e-13)[:, None], p0.ndim, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_s = np.log(np.maximum(oracle.scores(law), 0))
    return torch.from_numpy(index[occurs]), torch.from_numpy(log_s[occurs]), occurs


@cases
@steps
def test_analytic_step_with_the_exact_score_is_bayes_law(name: str, length: int, t: float, s: float) -> None:
    world, p0 = world_at(name, length)
    x_R, log_s_RS, occurs = possible_rows(world, p0, t)
    law_RS = world.graph.reverse_from_score(log_s_RS, x_R, full(x_R, t), full(x_R, s)).numpy()
    truth = oracle.reverse_marginals(p0, world.Q, t, s)[occurs]
    np.testing.assert_allclose(law_RS, truth, atol=1e-8 if t > 3 else 1e-10)


@cases
@steps
def test_step_from_the_clean_law_is_bayes_law(name: str, length: int, t: float, s: float) -> None:
    world, p0 = world_at(name, length)
    x_R, _, occurs = possible_rows(world, p0, t)
    clean = oracle.clean_given_rest(p0, world.Q, t)[occurs][:, : world.graph.vocab]
    with np.errstate(divide="ignore"):
        log_clean_RV = torch.from_numpy(np.log(clean))
    law_RS = world.graph.reverse_from_clean(log_clean_RV, x_R, full(x_R, t), full(x_R, s)).numpy()
    truth = oracle.reverse_marginals(p0, world.Q, t, s)[occurs]
    np.testing.assert_allclose(law_RS, truth, atol=1e-10)
    np.testing.assert_allclose(law_RS.sum(-1), 1, atol=1e-12)
    assert law_RS.min() >= 0


@pytest.mark.parametrize("name", WORLDS)
@steps
def test_one_position_is_joint(name: str, t: float, s: float) -> None:
    world, p0 = world_at(name, 1)
    x_R, log_s_RS, occurs = possible_rows(world, p0, t)
    law_RS = world.graph.reverse_from_score(log_s_RS, x_R, full(x_R, t), full(x_R, s)).numpy()
    np.testing.assert_allclose(law_RS, oracle.reverse_joint(p0, world.Q, t, s)[occurs[:, 0]], atol=1e-8)


@cases
@pytest.mark.parametrize("sigma", [1e-3, 0.5, 3.0])
def test_clean_law_out_of_the_exact_score(name: str, length: int, sigma: float) -> None:
    world, p0 = world_at(name, length)
    x_R, log_s_RS, occurs = possible_rows(world, p0, sigma)
    live = world.graph.live(x_R)
    log_clean_RV = world.graph.clean_from_score(log_s_RS, x_R, full(x_R, sigma))
    truth = oracle.clean_given_rest(p0, world.Q, sigma)[occurs][:, : world.graph.vocab]
    np.testing.assert_allclose(log_clean_RV.exp()[live].numpy(), truth[live.numpy()], atol=1e-9)
    torch.testing.assert_close(log_clean_RV.exp().sum(-1), torch.ones(len(x_R), dtype=torch.float64))
    settled = log_clean_RV[~live].argmax(-1)
    assert torch.equal(settled, x_R[~live])
    assert not bool(log_clean_RV[~live].max(-1).values.any())


@pytest.mark.parametrize("name", WORLDS)
def test_inexact_scores_still_give_a_clean_law(name: str) -> None:
    graph = WORLDS[name].graph
    generator = torch.Generator().manual_seed(0)
    for sigma in (1e-3, 1.0, 20.0):
        x_R = torch.arange(graph.states)
        log_s_RS = 3 * torch.randn(graph.states, graph.states, generator=generator)
        log_clean_RV = graph.clean_from_score(log_s_RS, x_R, full(x_R, sigma, torch.float32))
        assert not bool(log_clean_RV.isnan().any())
        torch.testing.assert_close(log_clean_RV.exp().sum(-1), torch.ones(graph.states))
        law_RS = graph.reverse_from_clean(
            log_clean_RV, x_R, full(x_R, sigma, torch.float32), full(x_R, 0.3 * sigma, torch.float32)
        )
        assert float(law_RS.min()) >= 0
        torch.testing.assert_close(law_RS.sum(-1), torch.ones(graph.states))


def test_unnormalised_absorbing_scores_behave_as_published() -> None:
    """Z = 3 and a long step: the mask's entry goes negative, tokens get (e^Δ − 1) s; nothing is clamped here."""
    graph = WORLDS["absorbing"].graph
    x_R = torch.tensor([4])
    law_RS = graph.reverse_from_score(torch.zeros(1, 5, dtype=torch.float64), x_R, full(x_R, 1.0), full(x_R, 0.0))
    e = np.expm1(1.0)
    np.testing.assert_allclose(law_RS.numpy(), [[e, e, e, e, 1 - 4 * e]])


@pytest.mark.parametrize("name", ["absorbing", "uniform"])
def test_overrides_are_the_general_formulas(name: str) -> None:
    graph = WORLDS[name].graph
    generator = torch.Generator().manual_seed(1)
    log_s_RS = torch.randn(8, graph.states, generator=generator, dtype=torch.float64)
    x_R = torch.full((8,), graph.states - 1)
    t_R, s_R = full(x_R, 0.9), full(x_R, 0.4)
    log_clean_RV = torch.randn(8, graph.vocab, generator=generator, dtype=torch.float64).log_softmax(-1)
    base = super(type(graph), graph)
    for ours, general in (
        (graph.reverse_from_score(log_s_RS, x_R, t_R, s_R), base.reverse_from_score(log_s_RS, x_R, t_R, s_R)),
        (
            graph.reverse_from_clean(log_clean_RV, x_R, t_R, s_R),
            base.reverse_from_clean(log_clean_RV, x_R, t_R, s_R),
        ),
    ):
        torch.testing.assert_close(ours, general, rtol=1e-12, atol=1e-12)
