"""What every backbone and every mixer must do, as checks that return what they found wrong (nothing: all is well).

They build small instances through the same resolving as recipes do, from ``example()`` settings over the defaults,
and perturb the parameters first: networks that begin at zero would hide faults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from backbones import probes
from backbones.base import Backbone, BlockMixer, CachedBackbone, CachedMixer, Mixer, Sight
from backbones.conditioning import Conditioning
from backbones.directions import Directions
from backbones.mamba import SelectiveCore
from backbones.mamba2 import SSDCore
from backbones.probes import BATCH, DIM, LENGTH, OUTPUTS, STATES
from backbones.recurrence import MakeCore
from workbench.core.checks import run_checks
from workbench.core.part import Part

SUPPLIED = {"states": STATES, "outputs": OUTPUTS, "length": LENGTH}
"""What a small backbone is built for."""
CORES: dict[str, MakeCore] = {
    "mamba": partial(SelectiveCore, inner=12, state=3, rank=2, conv=3, steps=(0.01, 0.1), kernel="auto"),
    "mamba2": partial(SSDCore, inner=12, state=3, head_dim=4, conv=3, steps=(0.01, 0.1), kernel="auto"),
}
"""Makers of the cores there are, small."""


def check_backbone(cls: type[Part]) -> list[str]:
    """What is wrong with a backbone; [] if nothing."""
    return _collect(cls, _backbone_checks)


def check_mixer(cls: type[Part]) -> list[str]:
    """What is wrong with a mixer, in both directions and causal; [] if nothing."""
    return _collect(cls, _mixer_checks)


def check_conditioning(cls: type[Part]) -> list[str]:
    """What is wrong with a conditioning; [] if nothing."""
    return run_checks(Conditioning, cls, (_conditions,))


def check_directions(cls: type[Part]) -> list[str]:
    """What is wrong with a way of two directions, around each core; [] if nothing."""
    return run_checks(Directions, cls, (_directions,))


CHECKS: dict[str, Callable[[type[Part]], list[str]]] = {
    "backbone": check_backbone,
    "mixer": check_mixer,
    "conditioning": check_conditioning,
    "directions": check_directions,
}
"""The check of each kind that is declared in this package's contracts."""


def _collect(cls: type[Part], checks: Callable[[type[Any]], Iterator[str]]) -> list[str]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found: list[str] = []
        try:
            found.extend(checks(cls))
        except Exception as error:
            found.append(f"fails with {type(error).__name__}: {error}")
        return found


def _backbone_checks(cls: type[Backbone]) -> Iterator[str]:
    settings, make = probes.maker(cls, Backbone, SUPPLIED)
    net = make().eval()
    if not isinstance(net.head, nn.Linear) or net.head.out_features != OUTPUTS:
        yield f"head must be an nn.Linear with {OUTPUTS} outputs, as supplied; found {net.head}"
        return
    if (net.head.bias is not None) != cls.head_bias:
        yield f"head_bias says {cls.head_bias}, and the head has {'a' if cls.head_bias is False else 'no'} bias"
    probes.perturb(net)
    x_BL = torch.randint(0, STATES, (BATCH, LENGTH))
    sigma_B = torch.rand(BATCH) + 0.1
    with torch.no_grad():
        h_BLD = net(x_BL, sigma_B)
        yield from probes.shape("features", h_BLD, (BATCH, LENGTH, net.head.in_features))
        for length in (1, LENGTH - 3):
            yield from probes.shape(
                f"features at length {length}", net(x_BL[:, :length]), (BATCH, length, h_BLD.shape[-1])
            )
        per_token = sigma_B[:, None].expand(BATCH, LENGTH)
        if probes.differ(net(x_BL, per_token), h_BLD):
            yield "σ given per token [B, L] and per sequence [B] lead to different features"
        if not torch.equal(net(x_BL, sigma_B), h_BLD):
            yield "two calls in eval mode differ: the features are not deterministic"
        if probes.differ(net(x_BL[:1], sigma_B[:1]), h_BLD[:1]):
            yield "a sequence's features depend on the others in its batch"
    yield from probes.gradients(net, lambda: net.head(net(x_BL, sigma_B)))
    yield from probes.meta(make)
    yield from probes.reloads(net, make, lambda other: other(x_BL, sigma_B))
    yield from probes.autocast(lambda: net(x_BL, sigma_B))
    yield from probes.products(net, net.products(), lambda other: other(x_BL, sigma_B))
    yield from probes.sight(cls.sight(settings), lambda ids_BL: net(ids_BL, None), probes.swapped)
    if cls.sight(settings) == "block":
        yield from _blocks(net)
    elif isinstance(net, CachedBackbone) and net.has_cache:
        with torch.no_grad():
            yield from probes.cache(net(x_BL), x_BL, net.new_cache(BATCH), net.commit, lambda x, c: net(x, None, c))

    if cls.hears(settings):
        yield from _hints(make)
    for name, value in settings.items():
        other = {**settings, name: not value}
        if isinstance(value, bool) and cls.sight(other) == "block" != cls.sight(settings):
            _, make = probes.maker(cls, Backbone, SUPPLIED, {name: not value})
            net = make().eval()
            probes.perturb(net)
            yield from (f"{fault} ({name}: {not value})" for fault in _blocks(net))
        if isinstance(value, bool) and cls.hears(other) and not cls.hears(settings):
            _, make = probes.maker(cls, Backbone, SUPPLIED, {name: not value})
            yield from (f"{fault} ({name}: {not value})" for fault in _hints(make))


def _hints(make: Callable[[], Backbone]) -> Iterator[str]:
    """Hints are linear in the law; none is 0; an untrained network heeds none, a trained one its text's own."""
    net = make().eval()
    x_BL, sigma_B = torch.randint(0, STATES, (BATCH, LENGTH)), torch.rand(BATCH) + 0.1
    p_RV = torch.rand(BATCH * LENGTH, OUTPUTS).softmax(-1)
    with torch.no_grad():
        hint_RD = net.expected(p_RV)
        yield from probes.shape("hints", hint_RD, (BATCH * LENGTH, hint_RD.shape[-1]))
        if probes.differ(hint_RD, p_RV @ net.expected(torch.eye(OUTPUTS))):
            yield "the hint of a law is not the mean of its tokens' hints"
        hint_BLD = hint_RD.unflatten(0, (BATCH, LENGTH))
        if not torch.equal(net(x_BL, sigma_B, hint_BLD=hint_BLD), net(x_BL, sigma_B)):
            yield "a hint changes what an untrained network says"
        probes.perturb(net)
        plain_BLD = net(x_BL, sigma_B)
        if not torch.equal(net(x_BL, sigma_B, hint_BLD=torch.zeros_like(hint_BLD)), plain_BLD):
            yield "a hint of 0 is not the same as none"
        first_BLD = hint_BLD.masked_fill(torch.arange(BATCH).view(-1, 1, 1) > 0, 0.0)
        moved_BLD = net(x_BL, sigma_B, hint_BLD=first_BLD)
        if not probes.differ(moved_BLD[:1], plain_BLD[:1]):
            yield "no hint changes its features"
        if probes.differ(moved_BLD[1:], plain_BLD[1:]):
            yield "a hint reaches other texts of its batch"
    yield from probes.gradients(net, lambda: net.head(net(x_BL, sigma_B, hint_BLD=hint_BLD)))
    yield from probes.autocast(lambda: net(x_BL, sigma_B, hint_BLD=hint_BLD))


def _blocks(net: Backbone) -> Iterator[str]:
    """A network that reads noised blocks beside clean text does so, by its cache too; σ reaches each block alone."""
    sigma_N = torch.rand(2 * BATCH) + 0.1
    x_NS, clean_BT = torch.randint(0, STATES, (2 * BATCH, 4)), torch.randint(0, STATES, (BATCH, 4))
    kept = None
    if isinstance(net, CachedBackbone) and net.has_cache:
        kept = net.new_cache(BATCH), net.commit, lambda x_BS, cache: net(x_BS, None, cache)
    yield from probes.blocks(net.beside, probes.swapped, kept)
    yield from probes.gradients(net, lambda: net.head(net.beside(x_NS, clean_BT, sigma_N)))
    with torch.no_grad():
        told_NSD = net.beside(x_NS, clean_BT, sigma_N)
        first_N = torch.arange(2 * BATCH) % 2 == 0
        other_NSD = net.beside(x_NS, clean_BT, torch.where(first_N, sigma_N + 1, sigma_N))
        if probes.differ(told_NSD[~first_N], other_NSD[~first_N]):
            yield "σ of one block changes the features of another"


def _mixer_checks(cls: type[Mixer]) -> Iterator[str]:
    for causal in (False, True):
        supplied = {"dim": DIM, "length": LENGTH, "causal": causal}
        _, make = probes.maker(cls, Mixer, supplied)
        for fault in _one_mixer(make, "left" if causal else "all"):
            yield f"{fault} (causal: {causal})"


def _one_mixer(make: Callable[[], Mixer], sight: Sight) -> Iterator[str]:
    mixer = make().eval()
    probes.perturb(mixer)
    h_BLD = torch.randn(BATCH, LENGTH, DIM)
    with torch.no_grad():
        out_BLD = mixer(h_BLD)
        yield from probes.shape("output", out_BLD, (BATCH, LENGTH, DIM))
        yield from probes.shape("output at length 1", mixer(h_BLD[:, :1]), (BATCH, 1, DIM))
        if not torch.equal(mixer(h_BLD), out_BLD):
            yield "two calls in eval mode differ"
        if probes.differ(mixer(h_BLD[:1]), out_BLD[:1]):
            yield "a sequence's output depends on the others in its batch"
        if mixer.paced:
            pace_BL1 = torch.rand(BATCH, LENGTH, 1) + 0.5
            yield from probes.shape("output at a pace", mixer(h_BLD, None, pace=pace_BL1), (BATCH, LENGTH, DIM))
            if probes.differ(mixer(h_BLD, None, pace=torch.ones(BATCH, 1, 1)), out_BLD):
                yield "a pace of 1 changes the output"
            if not probes.differ(mixer(h_BLD, None, pace=3 * pace_BL1), out_BLD):
                yield "says that it is paced, and no pace changes its output"
    yield from probes.gradients(mixer, lambda: mixer(h_BLD))
    yield from probes.meta(make)
    yield from probes.reloads(mixer, make, lambda other: other(h_BLD))
    yield from probes.autocast(lambda: mixer(h_BLD))
    yield from probes.products(mixer, mixer.products(), lambda other: other(h_BLD))
    yield from probes.sight(sight, mixer, probes.nudged)
    if not mixer.flops_per_token(LENGTH) > 0 or mixer.state_bytes(LENGTH) < 0:
        yield "flops_per_token and state_bytes must be positive"
    if sight == "all" and isinstance(mixer, BlockMixer):
        kept = mixer.new_cache(BATCH), mixer.commit, mixer
        yield from probes.blocks(lambda h_NSD, clean_BTD: mixer.beside(h_NSD, clean_BTD)[0], probes.nudged, kept)
    if sight == "left" and isinstance(mixer, CachedMixer):
        with torch.no_grad():
            yield from probes.cache(out_BLD, h_BLD, mixer.new_cache(BATCH), mixer.commit, mixer)


def _conditions(made: Conditioning) -> Iterator[str]:
    """Its modules take σ a sequence, a token or none, and give tensors that fit h_BLD, or None."""
    embedding, modulation = made.embedding(DIM, 8), made.modulation(DIM, 8, 6)
    h_BLD = torch.randn(BATCH, LENGTH, DIM, generator=torch.Generator().manual_seed(1))
    pace = made.pace(8)
    for sigma in (None, torch.rand(1) + 0.1, torch.rand(BATCH) + 0.1, torch.rand(BATCH, LENGTH) + 0.1):
        c, changed_BLD = embedding(sigma, h_BLD)
        yield from probes.shape("tokens", changed_BLD, tuple(h_BLD.shape))
        parts = modulation(c)
        if len(parts) != 6:
            yield f"6 modulating tensors were asked for, {len(parts)} came"
        for part in parts:
            if part is not None and torch.broadcast_shapes(part.shape, h_BLD.shape) != h_BLD.shape:
                yield f"a modulating tensor of shape {tuple(part.shape)} does not fit features {tuple(h_BLD.shape)}"
        factor = None if pace is None else pace(c)
        if factor is not None and not (factor > 0).all():
            yield "a pace is not positive"
        if factor is not None and torch.broadcast_shapes(factor.shape, (BATCH, LENGTH, 1)) != (BATCH, LENGTH, 1):
            yield f"a pace of shape {tuple(factor.shape)} does not fit [{BATCH}, {LENGTH}, 1]"


def _directions(made: Directions) -> Iterator[str]:
    """Its module looks to both sides of every position around each core, at any pace."""
    for name, make in CORES.items():
        for fault in _one_directions(partial(made.module, DIM, make)):
            yield f"{fault} (around {name})"


def _one_directions(make: Callable[[], nn.Module]) -> Iterator[str]:
    module = make()
    probes.perturb(module)
    h_BLD = torch.randn(BATCH, LENGTH, DIM)
    pace_BL1 = torch.rand(BATCH, LENGTH, 1) + 0.5
    with torch.no_grad():
        yield from probes.shape("output", module(h_BLD, None), (BATCH, LENGTH, DIM))
        if probes.differ(module(h_BLD, pace_BL1[:, :1]), module(h_BLD, pace_BL1[:, :1].expand(-1, LENGTH, -1))):
            yield "a pace of the sequence and the same pace of every position lead to different outputs"
    yield from probes.gradients(module, lambda: module(h_BLD, pace_BL1))
    yield from probes.meta(make)
    yield from probes.sight("all", lambda h_BLD: module(h_BLD, None), probes.nudged)
