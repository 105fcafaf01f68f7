"""Continuations after clean text: their bound and their guesses, by enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from graphs.absorbing import Absorbing
from graphs.noise import LogLinear
from graphs.uniform import Uniform
from tests.processes.tables import OUT, X0, L, Table, V, by_count, cost
from workbench import assemble
from workbench.core.errors import WorkbenchError
from workbench.core.rng import Rng
from workbench.processes.base import Shell
from workbench.processes.diffusion import Diffusion
from workbench.processes.objectives import ScoreEntropy
from workbench.processes.readouts import Normalised, Plain, Scaled
from workbench.processes.time_draws import StratifiedTimes
from workbench.recipe import load


class Hearing(Table):
    """The table, bent by what it hears of the noise."""

    def forward(self, x_BL, sigma=None, cache=None):
        return super().forward(x_BL) * (1 + 0.3 * torch.sin(3 * sigma.double()))[:, None, None]


def diffusion(readout=None) -> Diffusion:
    return Diffusion(V, L, Absorbing(V), LogLinear(1e-4), readout or Normalised(), ScoreEntropy(), StratifiedTimes())


def law(masked, hears: bool) -> np.ndarray:
    """log p [L, V] of the table where ``masked``; it hears the share of masks of the whole text."""
    bend = 1 + 0.3 * np.sin(-3 * np.log1p(-sum(masked) / (L + 1))) if hears else 1.0
    out = bend * OUT[np.ravel_multi_index(tuple(np.where(masked, V, X0)), (V + 1,) * L)][:, :V]
    return out - np.log(np.exp(out).sum(-1, keepdims=True))


def truth(given: int, hears: bool = False) -> float:
    """The mean over orders of the continuation of −log p_π, token by token."""
    orders = list(itertools.permutations(range(given, L)))
    total = 0.0
    for order in orders:
        for at in range(len(order)):
            masked = np.isin(np.arange(L), order[at:])
            total -= law(masked, hears)[order[at], X0[order[at]]]
    return total / len(orders)


@pytest.mark.parametrize("readout", [Normalised(), Scaled(V)], ids=["normalised", "scaled"])
@pytest.mark.parametrize("given", [0, 1, 2])
@pytest.mark.parametrize(("net", "hears"), [(Table(), False), (Hearing(), True)], ids=["table", "hearing"])
def test_every_set_of_masks_is_the_mean_over_orders(net, hears, given, readout):
    found = diffusion(readout).continuation(Shell(net), X0[None], given, np.arange(1), Rng(0), 7)
    assert found.bound.kind == "upper"
    assert found.bound.nats_BK.shape == (1, 1)
    assert found.bound.nats_BK[0, 0] == pytest.approx(truth(given, hears), rel=2e-6)


def test_draws_meet_what_they_stand_for():
    assert truth(0) == pytest.approx(by_count())
    seq, draws = np.arange(1500), 3  # seven sets: too many for three draws
    found = diffusion().continuation(Shell(Table()), np.tile(X0, (1500, 1)), 0, seq, Rng(0), draws).bound.nats_BK
    assert found.shape == (1500, draws)
    assert found.mean() == pytest.approx(truth(0), abs=4 * found.mean(1).std() / np.sqrt(len(seq)))
    one = diffusion().continuation(Shell(Table()), np.tile(X0, (1500, 1)), 1, seq, Rng(0), 2).bound.nats_BK
    assert one.mean() == pytest.approx(truth(1), abs=4 * one.mean(1).std() / np.sqrt(len(seq)))


def test_sequences_of_one_number_see_the_same_noise():
    x0 = np.tile(X0, (4, 1))
    found = diffusion().continuation(Shell(Table()), x0, 0, np.array([5, 5, 6, 5]), Rng(0), 2).bound.nats_BK
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[3])
    alone = diffusion().continuation(Shell(Table()), x0[:1], 0, np.array([6]), Rng(0), 2).bound.nats_BK
    assert np.array_equal(found[2], alone[0])


@pytest.mark.parametrize("readout", [Normalised(), Scaled(V), Plain()], ids=["normalised", "scaled", "plain"])
@pytest.mark.parametrize("given", [0, 1, 2])
def test_guesses_are_of_one_look_at_all_of_it_masked(given, readout):
    states = np.array(list(itertools.product(range(V), repeat=L)))
    found = diffusion(readout).continuation(Shell(Hearing()), states, given, np.arange(len(states)), Rng(0), 1)
    for x0, right in zip(states, found.right_Bn, strict=True):
        masked = np.where(np.arange(L) >= given, V, x0)
        out = OUT[np.ravel_multi_index(tuple(masked), (V + 1,) * L)][:, :V]
        assert (right == (out.argmax(-1) == x0)[given:]).all()
    assert 0 < found.right_Bn.sum() < found.right_Bn.size
    assert cost((False, False, True)) == pytest.approx(truth(2))


def test_what_has_no_masks_or_nothing_to_continue_is_refused():
    usual = {"noise": LogLinear(), "readout": Plain(), "objective": ScoreEntropy(), "times": StratifiedTimes()}
    uniform = Diffusion(vocab=V, length=L, graph=Uniform(V), **usual)
    with pytest.raises(WorkbenchError, match="has no masks to put on a continuation"):
        uniform.continuation(Shell(Table()), X0[None], 1, np.arange(1), Rng(0), 1)
    with pytest.raises(WorkbenchError, match="nothing is left"):
        diffusion().continuation(Shell(Table()), X0[None], L, np.arange(1), Rng(0), 1)


def test_left_to_right_continuations_are_exact():
    """Pieces of a block add up to the block's likelihood, and guesses are those of the view."""
    resolved = load("smoke/gpt2.yaml")
    model = assemble.model(resolved, assemble.data_of(resolved).tokenizer)
    process, shell = model.process, model.shell.eval()
    x0_BL = np.random.default_rng(0).integers(0, 256, (3, model.length))
    whole_BL = np.concatenate([np.full((3, 1), model.tokenizer.eos), x0_BL], axis=1)
    assert process.reach == whole_BL.shape[1]
    block_B = process.nll(shell, x0_BL, np.arange(3), Rng(0), 1).nats_BK[:, 0]
    first = process.continuation(shell, whole_BL[:, :10], 1, np.arange(3), Rng(0), 1)
    rest = process.continuation(shell, whole_BL, 10, np.arange(3), Rng(0), 1)
    assert first.bound.kind == rest.bound.kind == "exact"
    np.testing.assert_allclose(first.bound.nats_BK[:, 0] + rest.bound.nats_BK[:, 0], block_B, rtol=1e-6)
    with torch.no_grad():
        view = process.view(shell)
        log_p_BV, _ = view.next(torch.from_numpy(x0_BL[:, :9]), view.start(3))
    likely_B1 = log_p_BV.argmax(-1, keepdim=True).numpy()
    guessed = process.continuation(shell, np.concatenate([whole_BL[:, :10], likely_B1], 1), 10, np.arange(3), Rng(0), 1)
    assert guessed.right_Bn.all()
    with pytest.raises(WorkbenchError, match="one token at least"):
        process.continuation(shell, whole_BL, 0, np.arange(3), Rng(0), 1)
