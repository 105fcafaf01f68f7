"""Readouts that take a network's outputs as a law of the clean token: against Bayes, MDLM's loss and DUO's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from graphs.absorbing import Absorbing
from graphs.base import Graph
from graphs.dense import Ring
from graphs.mixture import Mixture
from graphs.uniform import Uniform
from tests import oracle
from workbench.processes.diffusion import Diffusion
from workbench.processes.objectives import DenoisingRows, ScoreEntropy
from workbench.processes.readouts import LeaveOneOut, Normalised, Scaled
from workbench.recipe import load

V = 7
ROWS = 64


def drawn(graph, seed=0):
    """Outputs, clean tokens, σ and noised tokens of independent rows, float64."""
    torch.manual_seed(seed)
    out_RS = 3 * torch.randn(ROWS, graph.states, dtype=torch.float64)
    x0_R = torch.randint(0, V, (ROWS,))
    sigma_R = torch.rand(ROWS, dtype=torch.float64).mul(9).sub(7).exp()
    x_R = graph.corrupt(x0_R, sigma_R, torch.rand(ROWS, dtype=torch.float64))
    return out_RS, x0_R, sigma_R, x_R


def test_score_entropy_of_normalised_is_the_cross_entropy_of_mdlm_and_scaled_adds_the_slack():
    graph = Absorbing(V)
    out_RS, x0_R, sigma_R, _ = drawn(graph)
    x_R = torch.full((ROWS,), V)
    e_R = torch.expm1(sigma_R)
    due_R = -out_RS[:, :V].log_softmax(-1).gather(1, x0_R[:, None])[:, 0] / e_R
    context = {"x": x_R, "target": x0_R, "sigma": sigma_R}
    for readout in (Normalised(), LeaveOneOut()):
        found_R, slack_R1 = DenoisingRows(graph, readout.on(graph), ScoreEntropy()).values(out_RS.clone(), context)
        torch.testing.assert_close(found_R, due_R, rtol=1e-6, atol=1e-6)
        assert slack_R1.abs().max() < 1e-6
    scaled_R, slack_R1 = DenoisingRows(graph, Scaled(V), ScoreEntropy()).values(out_RS.clone(), context)
    z_R = out_RS[:, :V].exp().sum(-1) / V
    torch.testing.assert_close(scaled_R, due_R + (z_R - 1 - z_R.log()) / e_R, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(slack_R1[:, 0], z_R - 1 - z_R.log(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("graph", [Absorbing(V), Uniform(V), Ring(V), Mixture(V)], ids=lambda graph: graph.type_name)
def test_scores_are_the_sums_that_define_them_and_the_general_form_agrees(graph):
    out_RS, _, sigma_R, x_R = drawn(graph)
    live_R = graph.live(x_R)
    log_law_RV = out_RS[:, :V].log_softmax(-1)
    zero_R = torch.zeros_like(sigma_R)
    # kernel[y][r, x0] = q(y | x0) at σ, for each y
    reach = torch.stack(
        [graph.kernel_into(torch.full((ROWS,), y), zero_R, sigma_R)[:, :V] for y in range(graph.states)], 1
    )
    own_RV = reach.gather(1, x_R[:, None, None].expand(-1, 1, V))[:, 0]
    posterior_RS = (log_law_RV.exp()[:, None] * reach / own_RV[:, None]).sum(-1)
    law_RS = (log_law_RV.exp()[:, None] * reach).sum(-1)
    others_RS = law_RS / law_RS.gather(1, x_R[:, None])
    for due_RS, readout, general in (
        (posterior_RS, Normalised(), Graph.score_from_posterior),
        (others_RS, LeaveOneOut(), Graph.score_from_clean),
    ):
        score_RS = readout.on(graph).log_score(out_RS.clone(), x_R, sigma_R)
        for found_RS in (score_RS, general(graph, log_law_RV, x_R, sigma_R)):
            torch.testing.assert_close(found_RS.exp()[live_R], due_RS[live_R], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("masked", [True, False])
def test_the_enumerated_law_of_the_clean_token_gives_the_enumerated_score(masked):
    """p(x0 | x) through ``normalised``, p(x0 | others) through ``leave_one_out``: both are the exact score."""
    vocab, sigma = 3, 0.7
    rates = oracle.absorbing(vocab) if masked else oracle.uniform(vocab)
    graph = Absorbing(vocab) if masked else Uniform(vocab)
    p0 = oracle.random_joint(vocab, 2, seed=5)
    clean = oracle.embed(p0, vocab + 1) if masked else p0
    noised = oracle.noised(clean, rates, sigma)
    truth = oracle.scores(noised)
    size = graph.states
    kernel = np.stack([oracle.noised(np.eye(size)[i], rates, sigma) for i in range(size)], axis=1)  # [y, x0]
    for x in np.ndindex(size, size):
        if noised[x] <= 0 or (masked and x[0] != vocab):
            continue
        joint = clean * kernel[x[0]][:, None] * kernel[x[1]][None, :]  # p(x0, x) over both clean tokens
        posterior_V = joint.sum(1)[:vocab] / joint.sum()
        others = (clean * kernel[x[1]][None, :]).sum(1)[:vocab]
        for readout, law_V in ((Normalised(), posterior_V), (LeaveOneOut(), others / others.sum())):
            out_RS = F.pad(torch.from_numpy(np.log(law_V))[None], (0, size - vocab))
            at = torch.tensor([x[0]]), torch.tensor([sigma], dtype=torch.float64)
            score_S = readout.on(graph).log_score(out_RS, *at).exp()[0].numpy()
            due_S = truth[np.ravel_multi_index(x, clean.shape)].reshape(2, size)[0]
            np.testing.assert_allclose(score_S, due_S, rtol=1e-9)


def test_score_entropy_of_leave_one_out_is_the_loss_of_duo():
    """The published continuous-time bound of uniform-state diffusion (DUO, eq. 5), per unit of σ."""
    graph = Uniform(V)
    out_RS, x0_R, sigma_R, x_R = drawn(graph)
    context = {"x": x_R, "target": x0_R, "sigma": sigma_R}
    found_R, _ = DenoisingRows(graph, LeaveOneOut().on(graph), ScoreEntropy()).values(out_RS.clone(), context)
    alpha_R1 = torch.exp(-sigma_R)[:, None]
    bar_RV = V * alpha_R1 * F.one_hot(x0_R, V) + 1 - alpha_R1
    guess_RV = V * alpha_R1 * out_RS.softmax(-1) + 1 - alpha_R1
    own, guess = bar_RV.gather(1, x_R[:, None]), guess_RV.gather(1, x_R[:, None])
    ratio_RV = bar_RV / own
    inner = V / own - V / guess - (ratio_RV * (guess / guess_RV * ratio_RV).log()).sum(-1, keepdim=True)
    # dα/dσ = −α; the published weight is α′/(Nα): −1/N for a unit of σ
    torch.testing.assert_close(found_R, -(inner / V)[:, 0], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["normalised", "leave_one_out"])
@pytest.mark.parametrize("graph", ["absorbing", "uniform", "mixture"])
def test_a_recipe_takes_them_and_extreme_outputs_stay_finite(name, graph):
    resolved = load("smoke/sedd.yaml", [f"process={{type: diffusion, graph: {graph}, readout: {name}}}"])
    from workbench import assemble

    process = assemble.model(resolved, assemble.data_of(resolved).tokenizer).process
    assert isinstance(process, Diffusion)
    out_RS = torch.zeros(4, process.states)
    out_RS[:, 3] = 200.0
    for sigma in (1e-4, 6.9):
        x_R = torch.full((4,), process.states - 1)
        score_RS = process.readout.log_score(out_RS.clone(), x_R, torch.full((4,), sigma))
        assert score_RS.isfinite().all()
    total = process.readout.total(out_RS, torch.full((4,), 0.5), process.vocab)
    if process.graph.blind:
        torch.testing.assert_close(total, torch.full((4,), -math.log(math.expm1(0.5)), dtype=torch.float64))
    else:
        assert total is None
