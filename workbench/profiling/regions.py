"""Regions: names for stretches of a run, put around modules and methods from outside, for as long as one looks.

Nothing is in the way of a run that is not profiled: hooks and wrappers come with the profile and go with it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn
from torch.autograd.profiler import record_function

from backbones.base import Backbone, BlockMixer, CachedMixer, Mixer
from backbones.conditioning import Embedding, Modulation

PREFIX = "region/"
"""Begins the name of a region's event."""
BACKBONE = "residual stream"
HEAD = "head and objective"
BUILT_IN = {"_FusedRows": HEAD, "Optimizer.step": "optimizer"}
"""Regions that have an event without our doing, by the beginning of its name."""


def region_of(event: str) -> str | None:
    """The region that an event's name begins, or None."""
    if event.startswith(PREFIX):
        return event.removeprefix(PREFIX)
    return next((region for name, region in BUILT_IN.items() if event.split("#")[0] == name), None)


@contextmanager
def around(owner: object, method: str, region: str | Callable[..., str]) -> Iterator[None]:
    """Calls of an object's method are a region while inside; ``region`` may name it by the call's arguments."""
    inner = getattr(owner, method)

    @functools.wraps(inner)
    def call(*args: Any, **kwargs: Any) -> Any:
        name = region(*args, **kwargs) if callable(region) else region
        with record_function(PREFIX + name):
            return inner(*args, **kwargs)

    setattr(owner, method, call)
    try:
        yield
    finally:
        delattr(owner, method)  # the class's own shows again


@contextmanager
def network(net: Backbone, whole_blocks: bool = False) -> Iterator[None]:
    """The parts of a backbone are regions while inside: embedding, σ, norms, mixers by type, MLPs, and the rest.

    ``whole_blocks``: blocks are compiled, and hooks inside would break their graphs; they are one region each.
    """
    with ExitStack() as stack:
        for module, name in named_parts(net, whole_blocks).items():
            stack.enter_context(_hooked(module, name))
            if isinstance(module, CachedMixer):  # with a cache it is not called but asked to commit
                stack.enter_context(around(module, "commit", name))
            if isinstance(module, BlockMixer):
                stack.enter_context(around(module, "beside", name))
        yield


def named_parts(net: Backbone, whole_blocks: bool) -> dict[nn.Module, str]:
    """Modules that are regions, by what they are; what lies inside a mixer or an MLP is theirs."""
    found: dict[nn.Module, str] = {net: BACKBONE}
    blocks = set(getattr(net, "blocks", ()))

    def visit(module: nn.Module) -> None:
        for name, child in module.named_children():
            if child in found:
                continue
            if whole_blocks and child in blocks:
                found[child] = "blocks"
                continue
            told = _what(name, child)
            if told:
                found[child] = told
            else:
                visit(child)

    visit(net)
    return {module: name for module, name in found.items() if module is not getattr(net, "head", None)}


def _what(name: str, module: nn.Module) -> str:
    if isinstance(module, Mixer):
        return f"mixers: {type(module).type_name or type(module).__name__}"
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        return "norms"
    if isinstance(module, (Embedding, Modulation)) or name == "pace":
        return "noise level"
    if name == "mlp":
        return "MLPs"
    if name == "embed":
        return "embedding"
    return ""


@contextmanager
def _hooked(module: nn.Module, name: str) -> Iterator[None]:
    open_: list[record_function] = []

    def begin(module: nn.Module, args: tuple[Any, ...]) -> None:
        region = record_function(PREFIX + name)
        region.__enter__()
        open_.append(region)

    def end(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        open_.pop().__exit__(None, None, None)

    # a forward that raises leaves its region open: a profile does not survive that anyway
    hooks = [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def by_function(names: Mapping[str, str], otherwise: str) -> Callable[..., str]:
    """For `around(shell, "forward", …)`: a region by the name of the function that the shell applies."""

    def named(function: Callable[..., Any], *args: Any) -> str:
        return names.get(getattr(function, "__name__", ""), otherwise)

    return named
