"""Whole draws with passes replayed and without: the same texts to the last bit, by every way that samplers read."""

from __future__ import annotations

import itertools

import pytest
import torch

from backbones.base import Backbone
from backbones.conditioning import ADALN, SigmaVector, TimeFree
from backbones.contract import SUPPLIED
from backbones.gpt2 import GPT2
from backbones.transformer import Transformer
from samplers.base import Canvas
from samplers.blockwise import Blockwise
from samplers.left_to_right import LeftToRight
from samplers.predictors.analytic import Analytic
from samplers.predictors.normalised import Normalised
from samplers.predictors.trapezoidal import Trapezoidal
from samplers.self_conditioning import SelfConditioning
from tests.kernels.tape import Tape
from tests.processes.block_toys import blocks, diffusion
from tests.samplers.toys import reverse
from workbench.core import index
from workbench.core.rng import Rng
from workbench.core.spec import build, resolve
from workbench.kernels import replay
from workbench.kernels.precision import cast_once
from workbench.kernels.replay import replaying
from workbench.processes.autoregressive import Autoregressive
from workbench.processes.base import Shell
from workbench.processes.self_conditioned import SelfConditioned

index.import_parts()
VOCAB, LENGTH = 20, 12


@pytest.fixture(autouse=True)
def sooner(monkeypatch):
    """Every recording is the faster one, whatever the clock says."""
    told = itertools.cycle([2.0, 1.0])
    monkeypatch.setattr(replay, "seconds", lambda way, wait: next(told))


def moved(net):
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net.eval().requires_grad_(False)


def transformer(length=LENGTH, **settings):
    torch.manual_seed(0)
    small = {"dim": 32, "depth": 2, "heads": 2, "cond_dim": 16, "dropout": 0.0}
    return moved(Transformer(VOCAB + 1, VOCAB + 1, length, **small, **settings))


def gpt2():
    torch.manual_seed(0)
    return moved(GPT2(VOCAB, VOCAB, LENGTH, dim=32, depth=2, heads=2, dropout=0.0))


def without_cache():
    net = gpt2()
    net.__class__ = type("Cacheless", (GPT2,), {"has_cache": False})
    return net


WAYS = {  # sampler, process, network, recordings
    "analytic": (reverse(Analytic(), 8), diffusion(VOCAB, LENGTH), transformer, 1),
    # at many steps only the texts that move are read: of the shapes that come up those that recur are recorded
    "some texts": (reverse(Normalised(), 64), diffusion(VOCAB, LENGTH), transformer, 2),
    "two looks": (reverse(Trapezoidal(), 8), diffusion(VOCAB, LENGTH), transformer, 1),
    "hints": (
        reverse(Analytic(), 6, lenses=(SelfConditioning(),)),
        SelfConditioned(diffusion(VOCAB, LENGTH)),
        lambda: transformer(hints=True),
        2,
    ),
    "blocks": (Blockwise(reverse(Analytic(), 8)), blocks(VOCAB, LENGTH, 4), lambda: transformer(blockwise=True), 0),
    "a cache": (LeftToRight(), Autoregressive(VOCAB, VOCAB - 1, LENGTH), gpt2, 0),
    "no cache": (LeftToRight(), Autoregressive(VOCAB, VOCAB - 1, LENGTH), without_cache, LENGTH),
}


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_texts_are_the_same(way, low):
    sampler, process, network, recordings = WAYS[way]

    def drawn(tape):
        net = network()
        with cast_once(net), torch.autocast("cpu", torch.bfloat16, enabled=low), replaying(net, tape):
            return [
                sampler.draw(process.view(Shell(net)), Canvas.blank(4, LENGTH, first=first), Rng(1))
                for first in (0, 4, 8, 12)
            ]

    tape = Tape()
    plain, replayed = drawn(None), drawn(tape)
    assert all(torch.equal(a.tokens_BL, b.tokens_BL) for a, b in zip(plain, replayed, strict=True))
    assert [one.calls for one in plain] == [one.calls for one in replayed]
    assert tape.records == recordings and (tape.replays > 2 * recordings or not recordings)


@pytest.mark.parametrize("name", [name for name in Backbone.names() if "." not in name])
@torch.no_grad()
def test_every_backbones_pass_can_be_recorded(name):
    part = Backbone.lookup(name)
    node, problems = resolve(Backbone, {"type": name, **part.example()})
    assert node is not None and not problems
    torch.manual_seed(0)
    net, tape = moved(build(node, SUPPLIED)), Tape()
    asked = [
        (torch.randint(SUPPLIED["states"], (2, SUPPLIED["length"])), torch.tensor([0.1 + turn])) for turn in range(5)
    ]
    due = [net(*one) for one in asked]
    with replaying(net, tape):
        found = [net(*one) for one in asked]
    assert tape.records == 1 and tape.replays > 2
    assert all(torch.equal(a, b) for a, b in zip(found, due, strict=True))


# --- how often σ is heard -----------------------------------------------------------------------------------------


def rows_heard(net, call):
    """Rows that pass through σ's vector and through each modulation, as a set."""
    heard = set()
    hearing = [net.final.modulation, *(block.modulation for block in net.blocks)]
    hearing += [one for one in net.conditioning.modules() if isinstance(one, SigmaVector)]
    hooks = [one.register_forward_hook(lambda one, x, out: heard.add(_rows(out))) for one in hearing]
    call()
    for hook in hooks:
        hook.remove()
    return heard


def _rows(out):
    first = out[0] if isinstance(out, tuple) else out
    return first.shape[0] * first.shape[1]


@pytest.mark.parametrize("conditioning", [ADALN, TimeFree(ADALN)])
@torch.no_grad()
def test_a_walk_hears_one_sigma_a_step_for_all_texts(conditioning):
    net = transformer(conditioning=conditioning)
    view = diffusion(VOCAB, LENGTH).view(Shell(net))
    walk = reverse(Analytic(), 8)
    assert rows_heard(net, lambda: walk.draw(view, Canvas.blank(4, LENGTH), Rng(1))) == {1}


@torch.no_grad()
def test_no_sigma_is_heard_once_for_all_texts():
    net = transformer(causal=True)
    x_BL = torch.randint(VOCAB, (4, LENGTH))
    assert rows_heard(net, lambda: net(x_BL)) == {1}
    assert rows_heard(net, lambda: net.commit(x_BL, net.new_cache(4))) == {1}
    assert torch.equal(net(x_BL), net(x_BL, torch.zeros(1)))
