"""Optimizers, schedules, the averaged weights: grouping and formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.train.toy import WIDTH, ToyNet
from workbench.core.errors import WorkbenchError
from workbench.core.part import settings as settings_of
from workbench.train.ema import Ema
from workbench.train.optim import AdamW, Muon, Optimizer, load_state, set_factor, split, state_tensors
from workbench.train.schedules import Cosine, Schedule, Warmup, WarmupStableDecay


def names(net, params):
    """Names of parameters, sorted."""
    table = {id(p): name for name, p in net.named_parameters()}
    return sorted(table[id(p)] for p in params)


def train(net, optimizers, steps, start=0):
    """A few updates on a fixed sequence of gradients."""
    for step in range(start, start + steps):
        torch.manual_seed(step)
        for p in net.parameters():
            p.grad = torch.randn_like(p)
        set_factor(optimizers, 1 / (step + 1))
        for optimizer in optimizers:
            optimizer.step()


def test_weight_decay_is_for_matrices_only():
    net = ToyNet()
    matrices, decayed, rest = split(net)
    assert matrices == []
    assert names(net, decayed) == ["conv.weight", "head.weight", "hidden.weight"]
    assert names(net, rest) == sorted(
        ["apart", "conv.bias", "embed.weight", "head.bias", "hidden.bias", "norm.bias", "norm.weight"]
    )


def test_muon_takes_hidden_matrices_only():
    net = ToyNet()
    muon, adamw = Muon(lr=0.02, rest_lr=0.003).build(net)
    assert names(net, muon.param_groups[0]["params"]) == ["hidden.weight"]
    held = [p for group in adamw.param_groups for p in group["params"]]
    assert len(held) + 1 == len(list(net.parameters()))
    assert set_factor([muon, adamw], 0.5) == 0.01
    assert [group["lr"] for group in adamw.param_groups] == [0.0015, 0.0015]


def test_a_head_tied_to_the_embedding_counts_once_and_does_not_decay():
    net = ToyNet()
    net.head.weight = net.embed.weight
    _, decayed, rest = split(net)
    assert "embed.weight" in names(net, rest)
    assert len(decayed) + len(rest) == len(list(net.parameters()))
    assert "hidden.weight" in names(net, decayed)


def test_frozen_parameters_are_left_out():
    net = ToyNet()
    net.hidden.weight.requires_grad_(False)
    assert all(p is not net.hidden.weight for part in split(net, matrices=True) for p in part)


def test_no_decay_must_name_parameters():
    net = ToyNet()
    net.no_decay = lambda: {"nowhere"}
    with pytest.raises(WorkbenchError, match="nowhere"):
        AdamW().build(net)


def test_adamw_is_torch_adamw_with_decay_on_matrices():
    net, twin = ToyNet(), ToyNet()
    twin.load_state_dict(net.state_dict())
    train(net, AdamW(lr=0.01, beta1=0.8, beta2=0.95, eps=1e-7, weight_decay=0.3).build(net), 4)
    _, decayed, rest = split(twin)
    plain = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.3, "rate": 0.01}, {"params": rest, "weight_decay": 0.0, "rate": 0.01}],
        lr=0.01,
        betas=(0.8, 0.95),
        eps=1e-7,
        foreach=False,
        fused=False,
    )
    train(twin, [plain], 4)
    for (name, p), q in zip(net.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("name", Optimizer.names())
def test_state_survives_a_round_trip_to_the_last_bit(name):
    """Any optimizer part: stop after 3 updates, build anew, put the state back, go on."""
    part = Optimizer.lookup(name)()
    straight = ToyNet()
    start = {n: p.clone() for n, p in straight.state_dict().items()}
    train(straight, part.build(straight), 6)

    first = ToyNet()
    first.load_state_dict(start)
    optimizers = part.build(first)
    train(first, optimizers, 3)
    tensors, numbers = state_tensors(optimizers, first)
    tensors = {key: t.clone() for key, t in tensors.items()}

    second = ToyNet()
    second.load_state_dict(first.state_dict())
    again = part.build(second)
    load_state(again, second, tensors, numbers)
    train(second, again, 3, start=3)
    for (n, p), q in zip(straight.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(p, q), n


def test_state_of_another_network_is_refused():
    net = ToyNet()
    optimizers = AdamW().build(net)
    with pytest.raises(WorkbenchError, match="another network"):
        load_state(optimizers, net, {"elsewhere|exp_avg": torch.zeros(2)}, {})


@pytest.mark.parametrize("name", Optimizer.names())
def test_every_setting_of_an_optimizer_is_documented(name):
    assert all(setting.doc for setting in settings_of(Optimizer.lookup(name)).values())


# --- schedules --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", Schedule.names())
def test_schedules_rise_from_above_zero_and_stay_in_bounds(name):
    schedule = Schedule.lookup(name)(warmup=10)
    factors = [schedule.factor(step, 100) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == pytest.approx(1.0)
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])


def test_warmup_is_constant_after():
    assert [Warmup(4).factor(step, 10) for step in range(10)] == [0.25, 0.5, 0.75] + [1.0] * 7
    assert Warmup(0).factor(0, 10) == 1.0


def test_cosine_ends_where_it_should():
    schedule = Cosine(warmup=0, end=0.2)
    assert schedule.factor(50, 100) == pytest.approx(0.6)
    assert schedule.factor(25, 100) == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert schedule.factor(100, 100) == pytest.approx(0.2)


def test_wsd_is_flat_then_a_line():
    schedule = WarmupStableDecay(warmup=0, decay=0.2)
    assert [schedule.factor(step, 100) for step in (0, 50, 80)] == [1.0, 1.0, 1.0]
    assert [schedule.factor(step, 100) for step in (85, 90, 99, 100)] == pytest.approx([0.75, 0.5, 0.05, 0.0])
    assert WarmupStableDecay(warmup=0, decay=0.0).factor(99, 100) == 1.0
    assert WarmupStableDecay(warmup=0, decay=1.0).factor(25, 100) == pytest.approx(0.75)


# --- the averaged weights ---------------------------------------------------------------------------------------


def test_ema_follows_the_formula():
    """θ̄ ← θ̄ − (1 − d)(θ̄ − θ), d = min(decay, (1 + n)/(10 + n)), n = 1, 2, …"""
    net = nn.Linear(3, 2).double()
    ema = Ema(net, 0.5)
    expected = {name: p.detach().clone() for name, p in net.named_parameters()}
    for n in range(1, 12):
        torch.manual_seed(n)
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p))
        ema.update()
        decay = min(0.5, (1 + n) / (10 + n))
        for name, p in net.named_parameters():
            expected[name] -= (1 - decay) * (expected[name] - p.detach())
    for name, value in ema.tensors().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-12)


def test_swapped_shows_the_average_in_place_and_restores_after_an_error():
    net = nn.Linear(WIDTH, WIDTH)
    ema = Ema(net, 0.9)
    first = net.weight.detach().clone()
    with torch.no_grad():
        net.weight.add_(1.0)
    place, live = net.weight.data_ptr(), net.weight.detach().clone()
    with pytest.raises(ZeroDivisionError), ema.swapped():
        assert torch.equal(net.weight, first)
        assert net.weight.data_ptr() == place
        _ = 1 / 0
    assert torch.equal(net.weight, live)
    assert net.weight.data_ptr() == place


def test_decay_zero_keeps_no_average():
    net = nn.Linear(2, 2)
    ema = Ema(net, 0.0)
    ema.update()
    assert ema.tensors() == {}
    with ema.swapped():
        assert net.weight.isfinite().all()
