"""What the contract checks of this package are made of: probes that yield what they found wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from backbones.base import Sight
from workbench.core.spec import build, misfits, resolve

STATES, OUTPUTS, LENGTH, BATCH, DIM = 7, 6, 8, 3, 16
CLOSE = 1e-5


def maker(
    cls: type[Any], kind: type[Any], supplied: Mapping[str, Any], changes: Mapping[str, Any] | None = None
) -> tuple[Mapping[str, Any], Callable[[], Any]]:
    """The resolved settings of an example, with ``changes``, and a function that builds it anew."""
    node, problems = resolve(kind, {"type": cls.type_name, **cls.example(), **(changes or {})})
    if node is None or problems:
        raise ValueError(f"example settings do not resolve: {'; '.join(map(str, problems))}")
    problems = misfits(node)
    if problems:
        raise ValueError(f"example settings do not fit: {'; '.join(map(str, problems))}")
    return node.settings, lambda: build(node, supplied)


def perturb(module: nn.Module) -> None:
    """Move every parameter away from zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)


def differ(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are apart by more than rounding."""
    return not torch.allclose(a, b, rtol=CLOSE, atol=CLOSE)


def shape(what: str, value: Tensor, shape: tuple[int, ...]) -> Iterator[str]:
    """Another shape than due, or something that is no finite number."""
    if value.shape != shape:
        yield f"{what} must be {list(shape)}; found {list(value.shape)}"
    elif not value.is_floating_point() or not value.isfinite().all():
        yield f"{what} must be finite floating point numbers; found {value.dtype}"


def gradients(module: nn.Module, output: Callable[[], Tensor]) -> Iterator[str]:
    """Parameters that no gradient reaches."""
    out = output()
    (out * torch.randn_like(out)).sum().backward()
    for name, parameter in module.named_parameters():
        if parameter.grad is None or not parameter.grad.abs().sum() > 0:
            yield f"no gradient reaches the parameter {name!r}"
    module.zero_grad(set_to_none=True)


def meta(make: Callable[[], nn.Module]) -> Iterator[str]:
    """Tensors that are made elsewhere than on the device in force."""
    with torch.device("meta"):
        module = make()
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if not value.is_meta:
            yield f"{name!r} is made on {value.device} although the meta device was asked for; name no device"


def reloads(module: nn.Module, make: Callable[[], Any], call: Callable[[Any], Tensor]) -> Iterator[str]:
    """A second instance with the same state dict, or a copy, that computes something else."""
    other = make().eval()
    other.load_state_dict(module.state_dict())
    with torch.no_grad():
        if not torch.equal(call(other), call(module)):
            yield "a second instance with the same state dict computes something else"
        if differ(call(copy.deepcopy(module)), call(module)):
            yield "a deep copy computes something else"


def autocast(call: Callable[[], Tensor]) -> Iterator[str]:
    """Values or gradients that do not survive bfloat16 autocast."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = call()
    if not value.isfinite().all():
        yield "not finite under bfloat16 autocast"
    value.float().square().mean().backward()


def products(module: nn.Module, names: set[str], call: Callable[[Any], Tensor]) -> Iterator[str]:
    """Parameters that ``products`` names and something reads besides products under autocast: given in autocast's
    type, they change values or gradients.
    """
    named = dict(module.named_parameters())
    if names - named.keys():
        yield f"products() names no parameter: {sorted(names - named.keys())}"
    low = copy.deepcopy(module)
    for name in names & named.keys():
        owner, _, own = name.rpartition(".")
        place = low.get_submodule(owner)
        if getattr(place, own).dtype == torch.float32:  # of a tied one, once
            setattr(place, own, nn.Parameter(getattr(place, own).detach().bfloat16()))
    found = []
    for one in (module, low):
        one.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = call(one)
        value.float().square().mean().backward()
        gradients = {name: p.grad.float() for name, p in one.named_parameters() if p.grad is not None}
        found.append({"the output": value, **gradients})
        one.zero_grad(set_to_none=True)
    before, after = found
    moved = [name for name, value in before.items() if name not in after or not torch.equal(value, after[name])]
    if moved:
        yield f"products() names too much: with it in bfloat16 these differ under autocast: {', '.join(moved[:3])}"


def swapped(x_BL: Tensor | None, place: int) -> Tensor:
    """Token ids, and the same with another id at ``place``."""
    if x_BL is None:
        return torch.randint(0, STATES, (BATCH, LENGTH), generator=torch.Generator().manual_seed(1))
    x_BL = x_BL.clone()
    x_BL[:, place] = (x_BL[:, place] + 1) % STATES
    return x_BL


def nudged(h_BLD: Tensor | None, place: int) -> Tensor:
    """Features, and the same moved at ``place``."""
    if h_BLD is None:
        return torch.randn(BATCH, LENGTH, DIM, generator=torch.Generator().manual_seed(1))
    h_BLD = h_BLD.clone()
    h_BLD[:, place] += 1.0
    return h_BLD


def sight(
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


def blocks(
    beside: Callable[[Tensor, Tensor], Tensor],
    change: Callable[[Tensor | None, int], Tensor],
    kept: tuple[Any, Callable[[Tensor, Any], tuple[Tensor, Any]], Callable[[Tensor, Any], Tensor]] | None,
) -> Iterator[str]:
    """Noised blocks beside clean text: which inputs they depend on, and what the cache makes of the same.

    ``beside(noised blocks, clean text)``; ``kept``: (an empty cache, commit, read), or None without a cache.
    """
    noised, text = change(None, 0), change(None, 1)
    for size in (2, LENGTH // 2, LENGTH):

        def at(noised: Tensor, text: Tensor, size: int = size) -> Tensor:
            cut = noised.reshape(-1, size, *noised.shape[2:])
            return beside(cut, text[:, : LENGTH - size]).reshape(BATCH, LENGTH, -1)

        with torch.no_grad():
            found = at(noised, text)
            yield from shape(f"features of blocks of {size}", found, (BATCH, LENGTH, found.shape[-1]))
            for j in range(LENGTH):
                own = torch.arange(LENGTH) // size == j // size
                later = torch.arange(LENGTH) // size > j // size
                for moved, may, what in (
                    (at(change(noised, j), text) - found, own, "noised"),
                    (at(noised, change(text, j)) - found, later, "clean"),
                ):
                    sees = moved.abs().amax((0, 2)) > 1e-6 * found.abs().max()
                    if bool((sees & ~may).any()):
                        yield f"blocks of {size}: {what} position {j} reaches positions that must not see it"
                    if not bool((sees & may).any()) and bool(may.any()):
                        yield f"blocks of {size}: nothing that may see {what} position {j} does"
            if kept is None:
                continue
            cache, commit, read = kept
            for start in range(0, LENGTH, size):
                here = slice(start, start + size)
                commit(noised[:, here], cache)  # a continuation that is thrown away
                if differ(read(noised[:, here], cache), found[:, here]):
                    yield f"blocks of {size}: forward with a cache of {start} tokens differs from the pass over all"
                _, cache = commit(text[:, here], cache)


def cache(
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
        if differ(read(piece, cache), due):
            yield f"forward with a cache of {start} tokens differs from the full forward"
        commit(piece.flip(0), cache)  # a continuation that is thrown away
        out, longer = commit(piece, cache)
        if differ(out, due):
            yield f"committing tokens {start} … {start + size - 1} differs from the full forward"
        if differ(read(piece, cache), due):
            yield f"a cache of {start} tokens is no longer valid after a commit made a longer one of it"
        cache, start = longer, start + size
