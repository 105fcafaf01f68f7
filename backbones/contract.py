"""What every backbone and every mixer must do, as checks that return what they found wrong (nothing: all is well).

They build small instances through the same resolving as recipes do, from ``example()`` settings over the defaults,
and perturb the parameters first: networks that begin at zero would hide faults.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from backbones.base import Backbone, CachedBackbone, CachedMixer, Mixer, Sight
from backbones.conditioning import Conditioning
from workbench.core.checks import run_checks
from workbench.core.part import Part
from workbench.core.spec import build, misfits, resolve

STATES, OUTPUTS, LENGTH, BATCH, DIM = 7, 6, 8, 3, 16
CLOSE = 1e-5


def check_backbone(cls: type[Part]) -> list[str]:
    """What is wrong with a backbone; [] if nothing."""
    return _collect(cls, _backbone_checks)


def check_mixer(cls: type[Part]) -> list[str]:
    """What is wrong with a mixer, in both directions and causal; [] if nothing."""
    return _collect(cls, _mixer_checks)


def check_conditioning(cls: type[Part]) -> list[str]:
    """What is wrong with a conditioning; [] if nothing."""
    return run_checks(Conditioning, cls, (_conditions,))


CHECKS: dict[str, Callable[[type[Part]], list[str]]] = {
    "backbone": check_backbone,
    "mixer": check_mixer,
    "conditioning": check_conditioning,
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
    settings, make = _maker(cls, Backbone, {"states": STATES, "outputs": OUTPUTS, "length": LENGTH})
    net = make().eval()
    if not isinstance(net.head, nn.Linear) or net.head.out_features != OUTPUTS:
        yield f"head must be an nn.Linear with {OUTPUTS} outputs, as supplied; found {net.head}"
        return
    _perturb(net)
    x_BL = torch.randint(0, STATES, (BATCH, LENGTH))
    sigma_B = torch.rand(BATCH) + 0.1
    with torch.no_grad():
        h_BLD = net(x_BL, sigma_B)
        yield from _shape("features", h_BLD, (BATCH, LENGTH, net.head.in_features))
        for length in (1, LENGTH - 3):
            yield from _shape(f"features at length {length}", net(x_BL[:, :length]), (BATCH, length, h_BLD.shape[-1]))
        per_token = sigma_B[:, None].expand(BATCH, LENGTH)
        if _differ(net(x_BL, per_token), h_BLD):
            yield "σ given per token [B, L] and per sequence [B] lead to different features"
        if not torch.equal(net(x_BL, sigma_B), h_BLD):
            yield "two calls in eval mode differ: the features are not deterministic"
        if _differ(net(x_BL[:1], sigma_B[:1]), h_BLD[:1]):
            yield "a sequence's features depend on the others in its batch"
    yield from _gradients(net, lambda: net.head(net(x_BL, sigma_B)))
    yield from _meta(make)
    yield from _reloads(net, make, lambda other: other(x_BL, sigma_B))
    yield from _autocast(lambda: net(x_BL, sigma_B))
    yield from _sight(cls.sight(settings), lambda ids_BL: net(ids_BL, None), _swapped)
    if isinstance(net, CachedBackbone) and net.has_cache:
        with torch.no_grad():
            yield from _cache(net(x_BL), x_BL, net.new_cache(BATCH), net.commit, lambda x, c: net(x, None, c))


def _mixer_checks(cls: type[Mixer]) -> Iterator[str]:
    for causal in (False, True):
        supplied = {"dim": DIM, "length": LENGTH, "causal": causal}
        _, make = _maker(cls, Mixer, supplied)
        for fault in _one_mixer(make, "left" if causal else "all"):
            yield f"{fault} (causal: {causal})"


def _one_mixer(make: Callable[[], Mixer], sight: Sight) -> Iterator[str]:
    mixer = make().eval()
    _perturb(mixer)
    h_BLD = torch.randn(BATCH, LENGTH, DIM)
    with torch.no_grad():
        out_BLD = mixer(h_BLD)
        yield from _shape("output", out_BLD, (BATCH, LENGTH, DIM))
        yield from _shape("output at length 1", mixer(h_BLD[:, :1]), (BATCH, 1, DIM))
        if not torch.equal(mixer(h_BLD), out_BLD):
            yield "two calls in eval mode differ"
        if _differ(mixer(h_BLD[:1]), out_BLD[:1]):
            yield "a sequence's output depends on the others in its batch"
    yield from _gradients(mixer, lambda: mixer(h_BLD))
    yield from _meta(make)
    yield from _reloads(mixer, make, lambda other: other(h_BLD))
    yield from _autocast(lambda: mixer(h_BLD))
    yield from _sight(sight, mixer, _nudged)
    if not mixer.flops_per_token(LENGTH) > 0 or mixer.state_bytes(LENGTH) < 0:
        yield "flops_per_token and state_bytes must be positive"
    if sight == "left" and isinstance(mixer, CachedMixer):
        with torch.no_grad():
            yield from _cache(out_BLD, h_BLD, mixer.new_cache(BATCH), mixer.commit, mixer)


def _conditions(made: Conditioning) -> Iterator[str]:
    """Its modules take σ a sequence, a token or none, and give tensors that fit h_BLD, or None."""
    embedding, modulation = made.embedding(DIM, 8), made.modulation(DIM, 8, 6)
    h_BLD = torch.randn(BATCH, LENGTH, DIM, generator=torch.Generator().manual_seed(1))
    for sigma in (None, torch.rand(1) + 0.1, torch.rand(BATCH) + 0.1, torch.rand(BATCH, LENGTH) + 0.1):
        c, changed_BLD = embedding(sigma, h_BLD)
        yield from _shape("tokens", changed_BLD, tuple(h_BLD.shape))
        parts = modulation(c)
        if len(parts) != 6:
            yield f"6 modulating tensors were asked for, {len(parts)} came"
        for part in parts:
            if part is not None and torch.broadcast_shapes(part.shape, h_BLD.shape) != h_BLD.shape:
                yield f"a modulating tensor of shape {tuple(part.shape)} does not fit features {tuple(h_BLD.shape)}"


# --- pieces -----------------------------------------------------------------------------------------------------


def _maker(
    cls: type[Any], kind: type[Any], supplied: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Callable[[], Any]]:
    """The resolved settings of an example, and a function that builds it anew."""
    node, problems = resolve(kind, {"type": cls.type_name, **cls.example()})
    if node is None or problems:
        raise ValueError(f"example settings do not resolve: {'; '.join(map(str, problems))}")
    problems = misfits(node)
    if problems:
        raise ValueError(f"example settings do not fit: {'; '.join(map(str, problems))}")
    return node.settings, lambda: build(node, supplied)


def _perturb(module: nn.Module) -> None:
    """Move every parameter away from zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)


def _differ(a: Tensor, b: Tensor) -> bool:
    return not torch.allclose(a, b, rtol=CLOSE, atol=CLOSE)


def _shape(what: str, value: Tensor, shape: tuple[int, ...]) -> Iterator[str]:
    if value.shape != shape:
        yield f"{what} must be {list(shape)}; found {list(value.shape)}"
    elif not value.is_floating_point() or not value.isfinite().all():
        yield f"{what} must be finite floating point numbers; found {value.dtype}"


def _gradients(module: nn.Module, output: Callable[[], Tensor]) -> Iterator[str]:
    out = output()
    (out * torch.randn_like(out)).sum().backward()
    for name, parameter in module.named_parameters():
        if parameter.grad is None or not parameter.grad.abs().sum() > 0:
            yield f"no gradient reaches the parameter {name!r}"
    module.zero_grad(set_to_none=True)


def _meta(make: Callable[[], nn.Module]) -> Iterator[str]:
    with torch.device("meta"):
        module = make()
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if not value.is_meta:
            yield f"{name!r} is made on {value.device} although the meta device was asked for; name no device"


def _reloads(module: nn.Module, make: Callable[[], Any], call: Callable[[Any], Tensor]) -> Iterator[str]:
    other = make().eval()
    other.load_state_dict(module.state_dict())
    with torch.no_grad():
        if not torch.equal(call(other), call(module)):
            yield "a second instance with the same state dict computes something else"
        if _differ(call(copy.deepcopy(module)), call(module)):
            yield "a deep copy computes something else"


def _autocast(call: Callable[[], Tensor]) -> Iterator[str]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = call()
    if not value.isfinite().all():
        yield "not finite under bfloat16 autocast"
    value.float().square().mean().backward()


def _swapped(x_BL: Tensor | None, place: int) -> Tensor:
    """Token ids, and the same with another id at ``place``."""
    if x_BL is None:
        return torch.randint(0, STATES, (BATCH, LENGTH), generator=torch.Generator().manual_seed(1))
    x_BL = x_BL.clone()
    x_BL[:, place] = (x_BL[:, place] + 1) % STATES
    return x_BL


def _nudged(h_BLD: Tensor | None, place: int) -> Tensor:
    """Features, and the same moved at ``place``."""
    if h_BLD is None:
        return torch.randn(BATCH, LENGTH, DIM, generator=torch.Generator().manual_seed(1))
    h_BLD = h_BLD.clone()
    h_BLD[:, place] += 1.0
    return h_BLD


def _sight(
    sight: Sight, call: Callable[[Tensor], Tensor], change: Callable[[Tensor | None, int], Tensor]
) -> Iterator[str]:
    """Which inputs change which outputs, held against the declared sight."""
    with torch.no_grad():
        base = change(None, 0)
        before = call(base)
        moved_JBL = torch.stack([(call(change(base, j)) - before).abs().amax(-1) for j in range(LENGTH)])
    moved_IJ = moved_JBL.amax(1).T
    sees_IJ = moved_IJ > 1e-6 * before.abs().max()
    left_IJ = torch.ones(LENGTH, LENGTH).tril(-1).bool()
    right_IJ, self_IJ = left_IJ.T, torch.eye(LENGTH).bool()
    forbidden = {"left": right_IJ, "others": self_IJ}.get(sight, torch.zeros_like(self_IJ))
    for i, j in (sees_IJ & forbidden).nonzero()[:1].tolist():
        yield f"declares sight {sight!r}, yet position {i} changes with position {j}"
    due = {"left": [left_IJ], "all": [left_IJ, right_IJ], "others": [left_IJ, right_IJ], "block": []}[sight]
    for side_IJ, name in zip(due, ("left", "right"), strict=False):
        blind = side_IJ.any(1) & ~(sees_IJ & side_IJ).any(1)
        if blind.any():
            yield f"declares sight {sight!r}, yet position {int(blind.nonzero()[0])} sees nothing to its {name}"
    if sight in ("left", "all") and not (sees_IJ & self_IJ).any(1).all():
        yield f"declares sight {sight!r}, yet a position does not see itself"


def _cache(
    full: Tensor,
    x: Tensor,
    cache: Any,
    commit: Callable[[Tensor, Any], tuple[Tensor, Any]],
    read: Callable[[Tensor, Any], Tensor],
) -> Iterator[str]:
    """Committing piece by piece gives the full forward; reading leaves a cache as it was; old caches stay valid."""
    start = 0
    for size in (1, 3, 1, LENGTH - 5):
        piece, due = x[:, start : start + size], full[:, start : start + size]
        if _differ(read(piece, cache), due):
            yield f"forward with a cache of {start} tokens differs from the full forward"
        commit(piece.flip(0), cache)  # a continuation that is thrown away
        out, longer = commit(piece, cache)
        if _differ(out, due):
            yield f"committing tokens {start} … {start + size - 1} differs from the full forward"
        if _differ(read(piece, cache), due):
            yield f"a cache of {start} tokens is no longer valid after a commit made a longer one of it"
        cache, start = longer, start + size
