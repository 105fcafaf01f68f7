"""Bounds and exact likelihoods of processes against enumerated truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from backbones.base import Backbone
from graphs.absorbing import Absorbing
from graphs.mixture import Mixture
from graphs.noise import Geometric, LogLinear
from graphs.uniform import Uniform
from tests import oracle
from workbench.core.rng import Rng
from workbench.processes.autoregressive import Autoregressive
from workbench.processes.base import Shell
from workbench.processes.diffusion import Diffusion
from workbench.processes.likelihood import CleanUpRows, _unit, clean_up, per_block
from workbench.processes.objectives import ScoreEntropy
from workbench.processes.readouts import Plain, Scaled
from workbench.processes.time_draws import AntitheticTimes, StratifiedTimes, UniformTimes

VOCAB, LENGTH = 3, 2


class ExactNet(Backbone):
    """A network whose head outputs are the exact log-scores of an enumerable law (its head is the identity)."""

    def __init__(self, p0, rates, unscale: bool) -> None:
        super().__init__()
        self.size, self.p0, self.rates, self.unscale = rates.shape[0], p0, rates, unscale
        self.head = nn.Linear(self.size, self.size, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(self.size))

    def forward(self, x_BL, sigma=None, cache=None):
        rows = []
        for x, s in zip(x_BL.numpy(), sigma.double().numpy(), strict=True):
            score = oracle.scores(self.noised(float(s)))
            with np.errstate(divide="ignore"):
                log_score = np.log(score[np.ravel_multi_index(tuple(x), self.p0.shape)])
            if self.unscale:
                log_score = log_score + np.log(np.expm1(float(s))) + np.log(self.size - 1)
            rows.append(np.clip(log_score, -60, 60))
        return torch.tensor(np.stack(rows), dtype=torch.float32)

    def noised(self, sigma):
        return oracle.noised(self.p0, self.rates, sigma)


class ExactMixture(ExactNet):
    """The same of a chain that is not homogeneous, noised by its kernel."""

    def __init__(self, p0, graph) -> None:
        super().__init__(p0, np.zeros((graph.states, graph.states)), unscale=False)
        self.graph = graph

    def noised(self, sigma):
        x_R, zero_R = torch.arange(self.size), torch.zeros(self.size, dtype=torch.float64)
        return oracle.push(self.p0, self.graph.kernel_into(x_R, zero_R, zero_R + sigma).numpy())


def _world(masked: bool):
    if masked:
        rates = oracle.absorbing(VOCAB)
        p0 = oracle.embed(oracle.random_joint(VOCAB, LENGTH, seed=3), VOCAB + 1)
        process = Diffusion(
            VOCAB, LENGTH, Absorbing(VOCAB), LogLinear(), Scaled(VOCAB), ScoreEntropy(), StratifiedTimes()
        )
    else:
        rates = oracle.uniform(VOCAB)
        p0 = oracle.random_joint(VOCAB, LENGTH, seed=3)
        noise = Geometric(sigma_min=1e-3, sigma_max=8.0)
        process = Diffusion(
            VOCAB, LENGTH, Uniform(VOCAB), noise, Plain(), ScoreEntropy(), StratifiedTimes(eps=1e-3)
        )
    return rates, p0, process, Shell(ExactNet(p0, rates, unscale=masked))


class Half(ScoreEntropy):
    """An objective that is no bound."""

    def rows(self, log_score_RS, graph, context):
        nats_R, aux_RK = super().rows(log_score_RS, graph, context)
        return nats_R / 2, aux_RK


def test_the_bound_is_the_score_entropys_whatever_is_trained_on():
    _, _, process, shell = _world(True)
    other = Diffusion(VOCAB, LENGTH, process.graph, process.noise, process.readout, Half(), process.times)
    x0 = np.array([[0, 2], [1, 1]])
    due, found = (one.nll(shell, x0, np.arange(2), Rng(0), 4).nats_BK for one in (process, other))
    assert np.array_equal(due, found)


@pytest.mark.parametrize("masked", [True, False])
def test_bound_of_the_exact_score_is_the_likelihood_plus_the_known_gap_at_the_end(masked):
    rates, p0, process, shell = _world(masked)
    sigma_end = float(process.noise.total(torch.ones((), dtype=torch.float64)))
    x0 = np.array([[0, 2], [1, 1]])
    draws = 1500
    bound = process.nll(shell, x0, np.arange(2), Rng(0), draws)
    assert bound.kind == "upper"
    for b, x in enumerate(x0):
        truth = -np.log(p0[tuple(x)])
        gap = bound.parts["prior"][b] - oracle.end_kl(p0, rates, x, sigma_end)
        mean, error = bound.nats_BK[b].mean(), bound.nats_BK[b].std() / np.sqrt(draws)
        assert abs(mean - truth - gap) < 4 * error + 5e-3, (mean, truth, gap, error)
        total = sum(part[b] for part in bound.parts.values())
        assert abs(total - mean) < 1e-9


def test_bound_of_the_exact_score_on_a_graph_whose_rate_moves_with_the_noise():
    graph, noise, draws = Mixture(VOCAB, 0.3), LogLinear(0.02), 1500
    p0 = oracle.embed(oracle.random_joint(VOCAB, LENGTH, seed=3), VOCAB + 1)
    process = Diffusion(VOCAB, LENGTH, graph, noise, Plain(), ScoreEntropy(), StratifiedTimes())
    net, x0 = ExactMixture(p0, graph), np.array([[0, 2], [1, 1]])
    bound = process.nll(Shell(net), x0, np.arange(2), Rng(0), draws)
    sigma_end = float(noise.total(torch.ones((), dtype=torch.float64)))
    for b, x in enumerate(x0):
        clean = np.zeros_like(p0)
        clean[tuple(x)] = 1.0
        end = oracle.kl(ExactMixture(clean, graph).noised(sigma_end), net.noised(sigma_end))
        truth, gap = -np.log(p0[tuple(x)]), bound.parts["prior"][b] - end
        mean, error = bound.nats_BK[b].mean(), bound.nats_BK[b].std() / np.sqrt(draws)
        assert abs(mean - truth - gap) < 4 * error + 5e-3, (mean, truth, gap, error)


def test_training_loss_estimates_the_diffusion_term():
    _, _, process, shell = _world(True)
    x0 = np.array([[0, 2]] * 64)
    losses = []
    for step in range(30):
        noised = process.prepare(x0, np.arange(step * 64, step * 64 + 64), step, Rng(1))
        loss = process.loss(shell, noised)
        sums = loss.logs["bound/bucket"]
        assert abs(float(sums[:, 0].sum() / noised.tokens - loss.nats.detach())) < 1e-5
        assert int(sums[:, 1].sum()) == noised.tokens
        losses.append(float(loss.nats.detach()) * LENGTH)
        assert (
            float(loss.logs["calibration/bucket"][:, 0].sum()) < 1e-3
        )  # exact scores sum to what they should
    bound = process.nll(shell, x0[:1], np.arange(1), Rng(0), 1000)
    spread = np.std(losses) / np.sqrt(len(losses)) + bound.nats_BK.std() / np.sqrt(1000)
    assert abs(np.mean(losses) - bound.parts["diffusion"][0]) < 4 * spread


class TinyCausal(Backbone):
    """A left-sighted network: a running mean of embeddings."""

    def __init__(self, states: int, outputs: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embed = nn.Parameter(torch.randn(states, 5, generator=generator))
        self.head = nn.Linear(5, outputs)
        with torch.no_grad():
            self.head.weight.copy_(torch.randn(outputs, 5, generator=generator))

    @classmethod
    def sight(cls, settings):
        return "left"

    def forward(self, x_BL, sigma=None, cache=None):
        h = self.embed[x_BL]
        return h.cumsum(1) / torch.arange(1, x_BL.shape[1] + 1)[:, None]


def test_autoregressive_likelihood_is_exact_and_normalised_over_all_blocks():
    process = Autoregressive(vocab=VOCAB, eos=2, length=3)
    net = TinyCausal(process.states, process.outputs)
    blocks = oracle.states(VOCAB, 3)
    bound = process.nll(Shell(net), blocks, np.arange(len(blocks)), Rng(0), 5)
    assert bound.kind == "exact"
    assert bound.nats_BK.shape == (27, 1)
    assert abs(np.exp(-bound.nats_BK).sum() - 1) < 1e-5
    x = torch.tensor([[2, 0, 1]])
    log_p = net.head(net(x)).log_softmax(-1)
    want = -(log_p[0, 0, 0] + log_p[0, 1, 1] + log_p[0, 2, 2])
    got = process.nll(Shell(net), np.array([[0, 1, 2]]), np.array([0]), Rng(0), 1).nats_BK[0, 0]
    assert abs(got - float(want)) < 1e-5
    noised = process.prepare(np.array([[0, 1, 2]]), np.array([0]), 0, Rng(0))
    assert abs(float(process.loss(Shell(net), noised).nats) * 3 - got) < 1e-5


def test_next_token_view_of_a_network_without_a_cache_reads_all_again():
    process = Autoregressive(vocab=VOCAB, eos=2, length=3)
    net = TinyCausal(process.states, process.outputs)
    view = process.view(Shell(net))
    cache = view.start(2)
    first, cache = view.next(torch.zeros(2, 0, dtype=torch.long), cache)
    second, cache = view.next(torch.tensor([[0], [1]]), cache)
    whole = net.head(net(torch.tensor([[2, 0], [2, 1]]))).log_softmax(-1)
    assert torch.allclose(first, whole[:, 0], atol=1e-6)
    assert torch.allclose(second, whole[:, 1], atol=1e-6)
    assert view.calls == 2


@pytest.mark.parametrize("part", [UniformTimes, StratifiedTimes, AntitheticTimes])
def test_time_draws_integrate_and_do_not_depend_on_the_cut_of_the_batch(part):
    times = part(eps=0.01)
    total, count = 0.0, 0
    for step in range(200):
        t, weight = times.draw(np.arange(step * 32, step * 32 + 32), step, Rng(3))
        assert t.min() >= 0.01
        assert t.max() <= 1
        total, count = total + float((weight * t**2).sum()), count + 32
        again, _ = times.draw(np.arange(step * 32 + 8, step * 32 + 16), step, Rng(3))
        assert np.array_equal(again, t[8:16])
    assert abs(total / count - (1 - 0.01**3) / 3) < 0.01


def test_stratified_times_spread_evenly_within_a_batch():
    t, _ = StratifiedTimes(eps=0.0).draw(np.arange(1000, 1064), 7, Rng(0))
    counts, _ = np.histogram(t, bins=16, range=(0, 1))
    assert counts.max() - counts.min() <= 2


def test_antithetic_times_are_a_comb_with_one_tooth_a_part_whatever_the_first_sequence():
    for first in (0, 7, 12_345):
        t, weight = AntitheticTimes(every=16, eps=0.2).draw(np.arange(first, first + 16), 5, Rng(0))
        place = np.sort((t - 0.2) / 0.8)
        assert np.array_equal((16 * place).astype(int), np.arange(16))
        np.testing.assert_allclose(np.diff(place), 1 / 16, atol=1e-12)
        np.testing.assert_allclose(weight, 0.8)


def test_times_that_hang_together_estimate_an_integral_with_less_spread():
    """The mean of t² over 64 sequences: a comb is as good as stratified, both far better than chance."""
    spread = {}
    for times in (UniformTimes(0.0), StratifiedTimes(0.0), AntitheticTimes(64, 0.0)):
        drawn = [times.draw(np.arange(64 * step, 64 * step + 64), step, Rng(2)) for step in range(400)]
        spread[times.type_name] = np.std([float((weight * t**2).mean()) for t, weight in drawn])
    assert spread["stratified"] < 0.4 * spread["uniform"]
    assert spread["antithetic"] < 0.2 * spread["uniform"]


class Reads(Shell):
    """Counts the texts that its network reads."""

    def __init__(self, net):
        super().__init__(net)
        self.texts = []
        net.register_forward_pre_hook(lambda module, args: self.texts.append(len(args[0])))


@pytest.mark.parametrize("masked", [True, False])
def test_the_clean_up_reads_only_texts_that_may_move_several_draws_at_once(masked):
    _, _, process, shell = _world(masked)
    process.times = UniformTimes(eps=0.1)
    shell, x0 = Reads(shell.net), np.array([[0, 2], [1, 1], [2, 0]])
    seq_B, rng, draws = np.arange(3), Rng(0), 40
    found = clean_up(process, shell, x0, seq_B, rng, draws)
    live = 0
    for k in range(draws):  # one draw at a time, every text of it
        u_BL = rng.uniform("bound/eps", k, seq_B, LENGTH)
        noised = process.noised(x0, np.full(3, 0.1), np.ones(3), u_BL)
        due = per_block(Shell(shell.net), CleanUpRows(process), _unit(noised), process.chunk, 3, LENGTH)
        assert np.allclose(found[:, k], due, rtol=1e-6, atol=1e-9)
        live += int(process.graph.live(noised.x_BL).any(-1).sum())
    read = shell.texts[:-draws]
    assert sum(read) == live and max(read) == 3 and set(read[:-1]) == {3}
    assert (live < 3 * draws) == masked
