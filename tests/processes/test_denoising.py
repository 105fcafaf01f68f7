"""Objectives of a normalised clean law: against formulas as printed, in numpy, and against the score entropy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from graphs.absorbing import Absorbing
from graphs.mixture import Mixture
from graphs.uniform import Uniform
from workbench.core.errors import WorkbenchError
from workbench.processes.denoising import DenoisingCrossEntropy, Gidd, Udlm
from workbench.processes.objectives import DenoisingRows, ScoreEntropy
from workbench.processes.readouts import LeaveOneOut, Normalised, Scaled
from workbench.recipe import load

V, ROWS = 5, 48


def drawn(graph, seed=0):
    """Outputs, and the context of independent rows at noises from 1e-3 to 7, float64."""
    generator = torch.Generator().manual_seed(seed)
    out_RS = 2 * torch.randn(ROWS, graph.states, generator=generator, dtype=torch.float64)
    x0_R = torch.randint(0, V, (ROWS,), generator=generator)
    sigma_R = torch.logspace(-3, 0.85, ROWS, dtype=torch.float64)
    x_R = graph.corrupt(x0_R, sigma_R, torch.rand(ROWS, generator=generator, dtype=torch.float64))
    return out_RS, {"x": x_R, "target": x0_R, "sigma": sigma_R}


def softmax(out: np.ndarray) -> np.ndarray:
    weights = np.exp(out - out.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@pytest.mark.parametrize("readout", [Normalised(), LeaveOneOut()], ids=lambda readout: readout.type_name)
def test_cross_entropy_is_the_formula_of_mdlm(readout):
    graph = Absorbing(V)
    out_RS, context = drawn(graph)
    law = softmax(out_RS[:, :V].numpy())
    x, x0, sigma = (context[name].numpy() for name in ("x", "target", "sigma"))
    due = np.where(x == V, -np.log(law[np.arange(ROWS), x0]) / (np.exp(sigma) - 1), 0.0)
    rows = DenoisingRows(graph, readout.on(graph), DenoisingCrossEntropy())
    found_R, aux_RK = rows.values(out_RS.clone(), context)
    np.testing.assert_allclose(found_R.numpy(), due, rtol=1e-9)
    assert aux_RK.shape == (ROWS, 0)
    found_R, _, grad_RS = rows.values_and_grad(out_RS.clone(), context)
    np.testing.assert_allclose(found_R.numpy(), due, rtol=1e-9)
    pull = (law - np.eye(V)[x0]) / (np.exp(sigma) - 1)[:, None]
    np.testing.assert_allclose(grad_RS[:, :V].numpy(), np.where((x == V)[:, None], pull, 0.0), rtol=1e-8, atol=1e-12)
    assert not grad_RS[:, V].any()


def test_score_entropy_is_cross_entropy_and_the_slack_of_the_sum():
    """SEDD = MDLM + (Z − 1 − ln Z)/e: of any scores, Z their sum times e, the law of MDLM what they are normalised."""
    graph = Absorbing(V)
    out_RS, context = drawn(graph, seed=1)
    live_R, e_R = graph.live(context["x"]), torch.expm1(context["sigma"])
    sedd_R, slack_R1 = DenoisingRows(graph, Scaled(V), ScoreEntropy()).values(out_RS.clone(), context)
    mdlm_R, _ = DenoisingRows(graph, Normalised().on(graph), DenoisingCrossEntropy()).values(out_RS.clone(), context)
    Z_R = out_RS[:, :V].exp().sum(-1) / V
    due_R = mdlm_R + (Z_R - 1 - Z_R.log()) / e_R
    torch.testing.assert_close(sedd_R[live_R], due_R[live_R], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(sedd_R, mdlm_R + slack_R1[:, 0] / e_R, rtol=1e-6, atol=1e-6)


def test_udlm_is_the_printed_bound_and_the_score_entropy_of_its_scores():
    graph = Uniform(V)
    out_RS, context = drawn(graph, seed=2)
    x, x0, sigma = (context[name].numpy() for name in ("x", "target", "sigma"))
    alpha, at = np.exp(-sigma)[:, None], np.arange(ROWS)
    bar = V * alpha * np.eye(V)[x0] + 1 - alpha
    guess = V * alpha * softmax(out_RS.numpy()) + 1 - alpha
    own, own_guess = bar[at, x][:, None], guess[at, x][:, None]
    sums = (bar / own * np.log(own_guess * bar / (guess * own))).sum(-1)
    # the printed weight is α′/(Nα), and dα/dσ = −α
    due = -(V / bar[at, x] - V / guess[at, x] - sums) / V
    rows = DenoisingRows(graph, LeaveOneOut().on(graph), Udlm())
    entropy = DenoisingRows(graph, LeaveOneOut().on(graph), ScoreEntropy())
    for found_R in (
        rows.values(out_RS.clone(), context)[0],
        rows.values_and_grad(out_RS.clone(), context)[0],
        entropy.values(out_RS.clone(), context)[0],
    ):
        np.testing.assert_allclose(found_R.numpy(), due, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(
        rows.values_and_grad(out_RS.clone(), context)[2].numpy(),
        entropy.values_and_grad(out_RS.clone(), context)[2].numpy(),
        rtol=1e-9,
    )


@pytest.mark.parametrize(
    ("process", "word"),
    [
        ("graph: uniform, readout: normalised, objective: denoising_ce", "needs a graph with a mask"),
        ("graph: absorbing, readout: scaled, objective: denoising_ce", "Readouts that fit: leave_one_out, normalised"),
        ("graph: absorbing, readout: normalised, objective: udlm", "Graphs that fit: uniform"),
        ("graph: uniform, readout: plain, objective: udlm", "needs a readout that normalises"),
        ("graph: absorbing, corruption: complementary, noise: {type: clipped, low: 0.6, high: 0.9}", "both sides of"),
        ("graph: absorbing, corruption: complementary, times: {type: stratified, eps: 0.6}", "Take corruption even"),
    ],
)
def test_what_does_not_fit_is_told(process, word):
    with pytest.raises(WorkbenchError, match=word):
        load("smoke/sedd.yaml", [f"process={{type: diffusion, {process}}}"])


@pytest.mark.parametrize(
    ("recipe", "change", "word"),
    [
        ("smoke/gpt2.yaml", "seed=0", "head of backbone 'gpt2' has no bias"),
        ("smoke/uniform.yaml", "seed=0", "readout 'plain' cannot say"),
        ("smoke/uniform.yaml", "process.readout=normalised", "readout 'normalised' cannot say"),
    ],
)
def test_a_start_at_the_unigram_that_cannot_be_is_told(recipe, change, word):
    with pytest.raises(WorkbenchError, match=f"unigram_start: .*{word}"):
        load(recipe, [change, "train.unigram_start=true"])
    for fine in ("smoke/sedd.yaml", "smoke/mamba2.yaml"):
        load(fine, ["train.unigram_start=true"])


def divergences(graph, out_RS, context):
    """KL(q ‖ q_θ) + IS(q(x)/q_θ(x)) of rows in numpy, out of GIDD's mixture at their σ, and q(x)."""
    x, x0 = (context[name].numpy() for name in ("x", "target"))
    at, zero_R = np.arange(ROWS), torch.zeros_like(context["sigma"])
    reach = np.stack(
        [graph.kernel_into(torch.full((ROWS,), y), zero_R, context["sigma"])[:, :V].numpy() for y in range(V + 1)], 1
    )
    q = reach[at, :, x0]
    guess = (reach * softmax(out_RS[:, :V].numpy())[:, None]).sum(-1)
    ratio = q[at, x] / guess[at, x]
    return (q * np.log(q / guess)).sum(-1) + ratio - np.log(ratio) - 1, q[at, x]


def mixed(p_uniform, seed=3):
    """A mixture and rows of it that hold masks, drawn tokens and clean ones."""
    graph = Mixture(V, p_uniform)
    out_RS, context = drawn(graph, seed)
    context["x"][::3] = V
    context["x"][1::3] = (context["target"][1::3] + 1) % V
    return graph, out_RS, context


def test_the_score_entropy_of_a_mixture_is_the_bound_of_gidd():
    for p_uniform in (0.1, 0.5):
        graph, out_RS, context = mixed(p_uniform)
        found_R, _ = DenoisingRows(graph, LeaveOneOut().on(graph), ScoreEntropy()).values(out_RS.clone(), context)
        inner, here = divergences(graph, out_RS, context)
        pace = graph.rate_into(context["x"], context["sigma"]).numpy()[np.arange(ROWS), (context["x"].numpy() + 1) % V]
        np.testing.assert_allclose(found_R.numpy(), pace / here * inner, rtol=1e-7, atol=1e-10)


def test_gidd_trains_by_its_published_weights():
    """In its own time: bound weights as printed are those of the graph; training ones 2, 1 and B/N e^(−λ/2)."""
    p_uniform = 0.2
    graph, out_RS, context = mixed(p_uniform)
    x, x0, sigma = (context[name].numpy() for name in ("x", "target", "sigma"))
    B = 2 * p_uniform / (1 - p_uniform)

    def noise(t: float) -> float:
        return float(np.log1p(B * np.sqrt(t * (1 - t))) - np.log1p(-t))

    t = np.array([brentq(lambda t, s=s: noise(t) - s, 0, 1 - 1e-12) for s in sigma])
    c, slope = B * np.sqrt(t * (1 - t)), B * (1 - 2 * t) / (2 * np.sqrt(t * (1 - t)))
    drift = c + (1 - t) * slope
    printed = np.where(x == x0, drift / (V * (1 - t) * (1 - t + c / V)), drift / ((1 - t) * c))
    printed = np.where(x == V, 1 / (t * (1 - t)), printed)
    per_time = graph.time_rate(context["sigma"]).numpy()
    inner, here = divergences(graph, out_RS, context)
    pace = graph.pace(context["x"], context["sigma"]).numpy()
    np.testing.assert_allclose(pace / here / per_time, printed, rtol=1e-6)
    weight = np.where(x == V, 2.0, np.where(x == x0, np.minimum(B / V * np.sqrt(np.exp(sigma) - 1), 1.0), 1.0))
    rows = DenoisingRows(graph, LeaveOneOut().on(graph), Gidd())
    for found_R in (rows.values(out_RS.clone(), context)[0], rows.values_and_grad(out_RS.clone(), context)[0]):
        np.testing.assert_allclose(found_R.numpy(), weight * per_time * inner, rtol=1e-6, atol=1e-10)
    leaf = out_RS.clone().requires_grad_()
    (due_RS,) = torch.autograd.grad(rows.values(leaf, context)[0].sum(), leaf)
    torch.testing.assert_close(rows.values_and_grad(out_RS.clone(), context)[2], due_RS, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("p_uniform", [0.0, 1.0])
def test_gidd_at_its_limits_stays_finite(p_uniform):
    graph = Mixture(V, p_uniform)
    out_RS, context = drawn(graph, seed=4)
    for values in DenoisingRows(graph, LeaveOneOut().on(graph), Gidd()).values_and_grad(out_RS.clone(), context):
        assert bool(values.isfinite().all())
