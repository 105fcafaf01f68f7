"""Estimators of the likelihood: one number by all of them where everything can be enumerated."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from graphs.absorbing import Absorbing
from graphs.noise import LogLinear
from tests import oracle
from tests.processes.tables import OUT, X0, L, Table, V, by_count
from workbench.core.errors import WorkbenchError
from workbench.core.rng import Rng
from workbench.processes.base import Shell
from workbench.processes.diffusion import Diffusion
from workbench.processes.estimators import (
    Estimator,
    ImportanceOrders,
    MaskCounts,
    MonteCarlo,
    Orders,
    order_nats,
)
from workbench.processes.likelihood import diffusion_bound
from workbench.processes.objectives import ScoreEntropy
from workbench.processes.readouts import Normalised, Scaled
from workbench.processes.time_draws import StratifiedTimes
from workbench.recipe import load

ORDERS = list(itertools.permutations(range(L)))
"""Ranks of positions: what is masked last has rank 0."""


class Hearing(Table):
    """The table, bent by what it hears of the noise."""

    def forward(self, x_BL, sigma=None, cache=None):
        return super().forward(x_BL) * (1 + 0.3 * torch.sin(3 * sigma.double()))[:, None, None]


def process(estimator: Estimator, readout=None) -> Diffusion:
    times = StratifiedTimes(eps=1e-4)
    return Diffusion(
        V, L, Absorbing(V), LogLinear(1e-4), readout or Normalised(), ScoreEntropy(), times, estimator=estimator
    )


def order_truth(x0, rank, bend=lambda k: 1.0) -> float:
    """−log p_π(x0) of the table in numpy: the token of rank k − 1 is told where ranks below k are masked."""
    total = 0.0
    for k in range(L, 0, -1):
        x, at = np.where(np.array(rank) < k, V, x0), int(np.argmax(np.array(rank) == k - 1))
        out = bend(k) * OUT[np.ravel_multi_index(tuple(x), (V + 1,) * L)][at, :V]
        total += np.log(np.exp(out).sum()) - out[x0[at]]
    return float(total)


def bend(k: int) -> float:
    """What ``Hearing`` hears of k masks: the σ of the share k/(L + 1)."""
    return 1 + 0.3 * np.sin(-3 * np.log1p(-k / (L + 1)))


@pytest.mark.parametrize(("net", "heard"), [(Table(), lambda k: 1.0), (Hearing(), bend)], ids=["table", "hearing"])
def test_an_order_is_the_product_of_its_conditionals_and_a_law(net, heard):
    blocks = oracle.states(V, L)
    for rank in ORDERS:
        nats_B = order_nats(process(Orders()), Shell(net), blocks, np.tile(rank, (len(blocks), 1)))
        due = [order_truth(x0, rank, heard) for x0 in blocks]
        np.testing.assert_allclose(nats_B, due, rtol=2e-6)
        assert np.exp(-nats_B).sum() == pytest.approx(1, abs=1e-6)


def test_left_to_right_is_exact_and_reads_from_the_left():
    bound = process(Orders(left_to_right=True)).nll(Shell(Table()), X0[None], np.arange(1), Rng(0), 5)
    assert bound.kind == "exact"
    assert bound.nats_BK.shape == (1, 1)
    assert bound.nats_BK[0, 0] == pytest.approx(order_truth(X0, (2, 1, 0)), rel=1e-6)


@pytest.mark.parametrize("readout", [Normalised(), Scaled(V)], ids=["normalised", "scaled"])
def test_estimators_agree_where_all_can_be_enumerated(readout):
    """The mean over orders, the bound over counts and the bound over times are one number; importance lies below."""
    mean = np.mean([order_truth(X0, rank) for rank in ORDERS])
    assert mean == pytest.approx(by_count(), rel=1e-12)
    mixture = -np.log(np.mean([np.exp(-order_truth(X0, rank)) for rank in ORDERS]))
    shell, draws, seq = Shell(Table()), 600, np.arange(1)
    for estimator in (Orders(), MaskCounts()):
        bound = process(estimator, readout).nll(shell, X0[None], seq, Rng(0), draws)
        error = bound.nats_BK.std() / np.sqrt(draws)
        assert bound.nats_BK.mean() == pytest.approx(mean, abs=4 * error + 1e-6)
        assert bound.kind == "upper"
    tight = process(ImportanceOrders(), readout).nll(shell, X0[None], seq, Rng(0), draws)
    assert tight.nats_BK[0, 0] == pytest.approx(mixture, abs=0.05)
    assert mixture < mean - 0.05
    assert sum(tight.parts.values())[0] == pytest.approx(tight.nats_BK[0, 0])
    if isinstance(readout, Normalised):  # a raw score pays for its slack besides
        bound = process(MonteCarlo()).nll(shell, X0[None], seq, Rng(0), 3000)
        error = bound.nats_BK.std() / np.sqrt(3000)
        assert bound.nats_BK.mean() == pytest.approx(mean, abs=4 * error + 5e-3)


def test_each_count_once_spreads_less_than_as_many_times():
    seq = np.arange(60)
    x0 = np.tile(X0, (60, 1))
    spread = {}
    for estimator in (MonteCarlo(), MaskCounts()):
        means = process(estimator).nll(Shell(Table()), x0, seq, Rng(1), L).nats_BK.mean(1)
        spread[estimator.type_name] = means.std()
    assert spread["mask_counts"] < 0.5 * spread["monte_carlo"]


def test_two_models_see_the_same_draws():
    """The same numbers for the same sequence: a difference of two models spreads less than either."""
    seq, x0 = np.arange(40), np.tile(X0, (40, 1))
    for estimator in (MonteCarlo(), MaskCounts(), Orders(), ImportanceOrders()):
        made = process(estimator)
        first = made.nll(Shell(Table()), x0, seq, Rng(2), 2).nats_BK.mean(1)
        other = made.nll(Shell(Hearing()), x0, seq, Rng(2), 2).nats_BK.mean(1)
        assert (first - other).std() < first.std()


def test_the_usual_estimator_gives_the_numbers_it_gave():
    made = Diffusion(V, L, Absorbing(V), LogLinear(), Normalised(), ScoreEntropy(), StratifiedTimes())
    shell, x0, seq = Shell(Table()), np.tile(X0, (4, 1)), np.arange(4)
    found, due = made.nll(shell, x0, seq, Rng(3), 2), diffusion_bound(made, shell, x0, seq, Rng(3), 2)
    assert np.array_equal(found.nats_BK, due.nats_BK)


def test_orders_need_masks_and_an_estimator_trains_nothing_anew():
    with pytest.raises(WorkbenchError, match="estimator 'orders' needs a graph with a mask"):
        load("smoke/sedd.yaml", ["process={type: diffusion, graph: uniform, estimator: orders}"])
    usual = load("smoke/sedd.yaml", ["process={type: diffusion, graph: absorbing}"])
    other = load("smoke/sedd.yaml", ["process={type: diffusion, graph: absorbing, estimator: mask_counts}"])
    assert usual.node.find("process").material(False) == other.node.find("process").material(False)
    assert usual.node.find("process").material() != other.node.find("process").material()
