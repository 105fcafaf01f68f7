"""Products of a network in 8-bit floats while it trains (Micikevicius et al. 2022), by torchao.

A linear map's input, weight and gradient are scaled and rounded to 8 bits just before each of its three products,
which sum in float32. Weights, gradients, optimizer state and averages stay the float32 tensors that they are, under the
same names: checkpoints know nothing of it. Which maps these are the network says (``coarse_products``); the head and
what σ passes through never are. In evaluation mode a map computes as any other does, in the precision of the run.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.core.errors import WorkbenchError

Scaling = Literal["none", "tensorwise", "rowwise", "rowwise_with_gw_hp"]
"""How numbers are scaled before they are rounded, by torchao's names; none for no 8-bit floats."""
REMEDY = 'pip install "sedd-workbench[float8]"'
CAPABILITY = (8, 9)
"""The first of CUDA's compute capabilities with products of 8-bit floats (Ada; Hopper is 9.0)."""
TORCHAO = (0, 18)
"""The first of its versions that was tried (setup.py asks for it)."""
MULTIPLE = 16
"""What both sizes of a weight must be multiples of: `torch._scaled_mm` asks for it."""
NOISE = {"torchao": "Failed to load ", "torch.utils._pytree": "<enum 'KernelPreference'> is an Enum subclass"}
"""By logger: how messages begin that torchao makes whenever it is imported. They are of compiled kernels for other
uses, and of how it registers a type with torch."""


class Coarse(Protocol):
    """What is asked of a network."""

    def coarse_products(self) -> set[str]:
        """Names of the parameters of linear maps that may be computed in 8-bit floats."""
        ...


def hindrance(device: torch.device, emulated: bool = False) -> str | None:
    """Why a training on ``device`` cannot take products in 8-bit floats; None where it can. Imports nothing."""
    if importlib.util.find_spec("torchao") is None:
        return f"it needs torchao: {REMEDY}"
    if _numbers(found := importlib.metadata.version("torchao")) < TORCHAO:
        return f"it needs torchao {'.'.join(map(str, TORCHAO))}, and {found} is installed: {REMEDY}"
    if emulated:
        return None
    if device.type != "cuda":
        return f"it computes on CUDA, not on {device.type}"
    able = torch.cuda.get_device_capability(device)
    if able < CAPABILITY:
        return "{} has compute capability {}.{}, and 8-bit floats need {}.{}".format(
            torch.cuda.get_device_name(device), *able, *CAPABILITY
        )
    return None


def _numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def require(scaling: Scaling, emulated: bool, device: torch.device) -> None:
    """Check that this machine can do what ``train.float8`` asks for.

    Raises:
        WorkbenchError: it cannot, with the reason and what would.
    """
    reason = None if scaling == "none" else hindrance(device, emulated)
    if reason is None:
        return
    remedy = "" if emulated or hindrance(device, emulated=True) else (
        "; train.float8_emulated: true rounds alike and takes the products in float32, slowly, on any device"
    )
    raise WorkbenchError(f"train.float8: {scaling!r} cannot be had here: {reason}{remedy}")


def lower(net: nn.Module, scaling: Scaling, emulated: bool, device: torch.device) -> str:
    """Have a network's linear maps computed in 8-bit floats, in place; what was done, in words ("": nothing).

    Maps whose sizes are no multiples of 16 stay as they are.

    Raises:
        WorkbenchError: this machine cannot, or no map of the network fits.
    """
    if scaling == "none":
        return ""
    require(scaling, emulated, device)
    every = maps_of(net)
    fitting = {id(m) for m in every if m.in_features % MULTIPLE == 0 and m.out_features % MULTIPLE == 0}
    if not fitting:
        raise WorkbenchError(
            f"train.float8: none of the {len(every)} linear maps in the network's mixers and MLPs has both sizes a "
            f"multiple of {MULTIPLE}; choose other widths, or float8: none"
        )
    names = [name for name, module in net.named_modules() if id(module) in fitting]
    float8 = _torchao()
    config = float8.Float8LinearConfig.from_recipe_name(scaling)
    # Rows of a batch are summed over for a weight's gradient: as many zeros are added as make them a multiple, too.
    config = replace(config, emulate=emulated, pad_inner_dim=not emulated)
    float8.convert_to_float8_training(net, module_filter_fn=lambda module, name: id(module) in fitting, config=config)
    for name in names:
        made = net.get_submodule(name)
        made.__class__ = _while_training(type(made))  # no closure: copies compute with their own weights
    how = "emulated, products in float32" if emulated else "by the device"
    by = f"({how}; torchao {importlib.metadata.version('torchao')})"
    return f"float8 {scaling} in {len(fitting)} of {len(every)} linear maps of mixers and MLPs {by}"


def maps_of(net: nn.Module) -> list[nn.Linear]:
    """The linear maps that a network says may be computed in 8-bit floats."""
    coarse = cast("Coarse", net).coarse_products()
    maps = [(path, module) for path, module in net.named_modules() if isinstance(module, nn.Linear)]
    return [m for path, m in maps if {f"{path}.weight", f"{path}.bias"} & coarse]


def told(scaling: Scaling, emulated: bool) -> str:
    """The settings in words, for where figures are told: ``float8 tensorwise, emulated`` ("" for none)."""
    return "" if scaling == "none" else f"float8 {scaling}{', emulated' * emulated}"


@functools.cache
def _while_training(kind: type[nn.Module]) -> type[nn.Module]:
    """``kind`` in training mode, a plain linear map in evaluation mode."""

    def forward(self: nn.Linear, h: Tensor) -> Tensor:
        if not self.training:
            return F.linear(h, self.weight, self.bias)
        if torch.is_autocast_enabled(h.device.type):  # torchao asks for CUDA's alone
            h = h.to(torch.get_autocast_dtype(h.device.type))
        return cast("Tensor", kind.forward(self, h))

    return type(kind.__name__, (kind,), {"forward": forward, "__doc__": kind.__doc__, "__module__": kind.__module__})


def _torchao() -> Any:
    """``torchao.float8``, imported without what it says on each import."""
    with contextlib.ExitStack() as stack:
        for name, beginning in NOISE.items():
            stack.enter_context(_without(logging.getLogger(name), beginning))
        import torchao.float8
    return torchao.float8


@contextlib.contextmanager
def _without(logger: logging.Logger, beginning: str) -> Iterator[None]:
    """Drop messages of one logger that begin so; all others pass."""

    def passes(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(beginning)

    logger.addFilter(passes)
    try:
        yield
    finally:
        logger.removeFilter(passes)
