"""Training on continuations: the bound of what follows, given the beginning, by exact enumeration."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from graphs.absorbing import Absorbing
from graphs.noise import LogLinear
from graphs.uniform import Uniform
from tests.processes.tables import MASKS, X0, L, Table, V, cost
from workbench.core.errors import WorkbenchError
from workbench.core.rng import Rng
from workbench.processes.base import Shell
from workbench.processes.corruptions import Complementary, EvenShare, ExactCount, Independent
from workbench.processes.denoising import DenoisingCrossEntropy
from workbench.processes.diffusion import Diffusion
from workbench.processes.kept import KeptEnds
from workbench.processes.objectives import ScoreEntropy
from workbench.processes.prefix import Prefix
from workbench.processes.readouts import Normalised, Plain
from workbench.processes.time_draws import UniformTimes
from workbench.recipe import load

NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)


class Keyed(Rng):
    """The uniform numbers it is given, by stream."""

    def __init__(self, **streams) -> None:
        super().__init__(0)
        self.streams = streams

    def uniform(self, stream, step, seq_B, n):
        return np.tile(np.asarray(self.streams[stream], dtype=float)[:n], (len(seq_B), 1))


def process(corruption, graph=None, eps=0.2) -> Diffusion:
    graph = graph or Absorbing(V)
    readout, objective = (Normalised(), DenoisingCrossEntropy()) if graph.mask else (Plain(), ScoreEntropy())
    return Diffusion(V, L, graph, LogLinear(), readout, objective, UniformTimes(eps=eps), corruption)


def conditional_bound(k: int, low: float, high: float) -> float:
    """∫ dλ/λ E of the cost over masks of share λ of the L − k last positions, the first k being clean."""
    total = 0.0
    rest = {mask[k:] for mask in MASKS}
    for share, w in zip(low + (high - low) * (NODES + 1) / 2, WEIGHTS / 2, strict=True):
        for mask in rest:
            chance = np.prod(np.where(mask, share, 1 - share))
            total += (high - low) * w / share * chance * cost((False,) * k + mask)
    return total


@pytest.mark.parametrize("hat", [False, True], ids=["the clock's σ", "σ̂"])
def test_the_mean_over_its_draws_is_the_bound_of_the_rest_given_the_beginning(hat):
    """Times by quadrature, masks and lengths by their probabilities; one training loss each, in nats of a block."""
    share, eps = 0.3, 0.2
    made = process(Prefix(Independent(), share=share, longest=0.7, sigma_hat=hat), eps=eps)
    low, high = (-np.expm1(-made.noise.total(torch.tensor([eps, 1.0]).double()).numpy())).tolist()
    assert min(max(1, int(0.7 * L)), L - 1) == 2
    lengths = {0: 1 - share, 1: share / 2, 2: share / 2}
    found, shell = 0.0, Shell(Table())
    for node, w in zip((NODES + 1) / 2, WEIGHTS / 2, strict=True):
        moved = -np.expm1(-float(made.noise.total(torch.tensor(eps + (1 - eps) * node).double())))
        for k, chance in lengths.items():
            for mask in MASKS:
                p = chance * np.prod(np.where(mask, moved, 1 - moved))
                prefix = [share / 2 if k else 0.9, (k - 0.5) / 2]
                rng = Keyed(time=[node], corrupt=np.where(mask, 0.0, 1 - 2.0**-53), prefix=prefix)
                noised = made.prepare(X0[None], np.arange(1), 0, rng)
                assert bool((noised.x_BL[0, :k] == torch.from_numpy(X0)[:k]).all())
                found += w * p * float(made.loss(shell, noised).nats.detach()) * L
    due = sum(chance * conditional_bound(k, low, high) for k, chance in lengths.items())
    assert found == pytest.approx(due, rel=1e-5)
    assert due < 0.99 * conditional_bound(0, low, high), "the beginning costs nothing"


@pytest.mark.parametrize("within", [EvenShare(), ExactCount()], ids=lambda part: part.type_name)
def test_any_noise_may_stand_within(within):
    """Their bound holds for every function of the masks, those of what follows among them."""
    made = process(Prefix(within, share=1.0, longest=0.34), eps=1e-3)
    x0, shell = np.tile(X0, (4000, 1)), Shell(Table())
    losses = [float(made.loss(shell, made.prepare(x0, np.arange(4000), step, Rng(2))).nats.detach()) for step in (0, 1)]
    assert np.mean(losses) * L == pytest.approx(conditional_bound(1, 1e-3, 1.0), rel=0.03)


def test_what_the_network_hears():
    seq_B, noise, times = np.arange(400), LogLinear(), UniformTimes()
    plain = Prefix(Independent(), share=0.5, longest=0.5).draw(seq_B, 8, 0, Rng(0), noise, times)
    assert plain.told_N is None
    drawn = Prefix(Independent(), share=0.5, longest=0.5, sigma_hat=True).draw(seq_B, 8, 0, Rng(0), noise, times)
    kept_N = drawn.given_NL.sum(-1)
    assert torch.equal(drawn.told_N[kept_N == 0], drawn.sigma_N[kept_N == 0]), "whole sequences hear the clock"
    masks_N = ((drawn.u_NL < -torch.expm1(-drawn.sigma_N)[:, None]) & ~drawn.given_NL).sum(-1)
    some = (kept_N > 0) & (masks_N > 0)
    torch.testing.assert_close(drawn.told_N[some], -torch.log1p(-masks_N[some] / 8.0).double())
    base = Independent().draw(seq_B, 8, 0, Rng(0), noise, times)
    assert torch.equal(drawn.sigma_N, base.sigma_N) and torch.equal(drawn.weight_N, base.weight_N)
    made = Diffusion(V, 8, Absorbing(V), noise, Normalised(), DenoisingCrossEntropy(), times)
    noised = made.noised_by(np.zeros((400, 8), dtype=np.int64), drawn)
    assert torch.equal(noised.sigma_B, drawn.told_N.float())
    assert torch.equal(noised.sigma_R, drawn.sigma_N.float()[noised.rows_R // 8]), "the law's σ is the clock's"


def test_lengths_are_even_and_their_share_is_kept():
    kept = Counter(Prefix(Independent(), share=0.6, longest=0.5).kept(np.arange(20_000), 8, 3, Rng(1)).tolist())
    assert set(kept) == {0, 1, 2, 3, 4}
    assert kept[0] == pytest.approx(8000, abs=300) and all(abs(kept[k] - 3000) < 250 for k in range(1, 5))
    assert set(Prefix(Independent(), share=1.0, longest=1.0).kept(np.arange(500), 4, 0, Rng(1)).tolist()) == {1, 2, 3}
    assert not Prefix(Independent(), share=1.0).kept(np.arange(50), 1, 0, Rng(1)).any(), "one token has no rest"


def test_where_tokens_move_the_beginning_is_no_target_either():
    made = process(Prefix(Independent(), share=1.0, longest=0.34), Uniform(V))
    noised = made.prepare(np.tile(X0, (64, 1)), np.arange(64), 0, Rng(0))
    assert bool((noised.x_BL[:, 0] == int(X0[0])).all())
    assert set((noised.rows_R[noised.weight_R > 0] % L).tolist()) == {1, 2}


@pytest.mark.parametrize(
    ("corruption", "graph", "said"),
    [
        ("{type: prefix, sigma_hat: true}", "uniform", "corruption 'prefix' needs a graph with a mask"),
        ("{type: prefix, within: prefix}", "absorbing", "cannot be 'prefix' again"),
        ("{type: prefix, within: exact_count}", "uniform", "corruption 'exact_count' needs a graph with a mask"),
    ],
)
def test_what_does_not_fit(corruption, graph, said):
    with pytest.raises(WorkbenchError, match=said):
        load("smoke/sedd.yaml", [f"process={{type: diffusion, graph: {graph}, corruption: {corruption}}}"])
    load("smoke/sedd.yaml", ["process={type: diffusion, graph: uniform, corruption: prefix}"])


def test_what_wraps_a_corruption_says_how_often_it_draws():
    assert Prefix(Complementary()).copies == KeptEnds(Complementary()).copies == 2


def test_kept_ends_are_given_on_every_graph_and_around_a_prefix():
    """Not only numbers at which masks stay: on a graph whose tokens all move their rows are none of the loss."""
    made = KeptEnds(Prefix(Independent(), share=0.9), first=5, last=3)
    drawn = made.draw(np.arange(4), 32, 0, Rng(0), LogLinear(), UniformTimes())
    assert drawn.given_NL[:, :5].all() and drawn.given_NL[:, -3:].all()
    assert drawn.given_NL[:, 5].any() and not drawn.given_NL.all(-1).any()
    assert drawn.u_NL.shape == drawn.given_NL.shape == (4, 32)
    assert not KeptEnds(Independent()).whole
