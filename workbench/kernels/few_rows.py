"""Products of few rows with weights that stay as they are, on a CPU under autocast.

The product of a token's features with a weight takes as long as reading the weight does; rounding both to bfloat16
first, as autocast does, gains nothing there. Few rows are therefore multiplied in float32; and where a weight is met
again and again, by a copy of it packed in float16 (11 bits of mantissa, bfloat16 has 8), which FBGEMM multiplies
and sums in float32: half of the bytes. Either has a smaller error than autocast allows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from workbench.kernels import products
from workbench.kernels.dispatch import Candidate, Dispatcher, usable

FEW = 16
"""Rows up to which reading the weight is most of a product's time."""
AFTER = 128
"""Products in float32 before a weight is packed, which takes as long as some 250 packed products save."""
LARGEST = torch.finfo(torch.float16).max


class Half:
    """A linear map's weight and bias, packed once they have been met ``AFTER`` times."""

    def __init__(self, linear: nn.Linear) -> None:
        """Pack later: most maps never see few rows."""
        self._linear, self._met = linear, 0
        self._packed: Any = None

    def __call__(self, h: Tensor) -> Tensor:
        """h Wᵀ + b in float32, [..., D] → [..., S]."""
        self._met += 1
        if self._met == AFTER:
            self._packed = self._pack()
        if self._packed is not None:
            return torch.ops.quantized.linear_dynamic_fp16(h.float(), self._packed)  # type: ignore[no-any-return]
        with torch.autocast("cpu", enabled=False):
            return products.linear(h.float(), self._linear.weight, self._linear.bias)

    def _pack(self) -> Any:
        """The packed weight; None where one is beyond float16's range, or not a number."""
        weight, bias = self._linear.weight.detach(), self._linear.bias
        low, high = weight.aminmax()
        if not bool((low >= -LARGEST) & (high <= LARGEST)):
            return None
        bias = None if bias is None else bias.detach()
        return torch.ops.quantized.linear_prepack_fp16(weight.contiguous(), bias)


def _callable(device: str, dtype: torch.dtype) -> str | None:
    if device != "cpu":
        return f"it computes on a CPU, not on {device}"
    if dtype != torch.float32:
        return f"it packs float32 weights, not {str(dtype).removeprefix('torch.')}"
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        return "this build of torch has no FBGEMM, which is for x86"
    return None


FEW_ROWS = Dispatcher(
    f"products of up to {FEW} rows under autocast, without gradient",
    [
        Candidate("half", Half, "half the bytes to read, and finer than bfloat16", _callable),
        Candidate("torch", usable, "as autocast computes them"),
    ],
)
_HELD: dict[nn.Module, Half] = {}


@contextmanager
def few_rows(module: nn.Module) -> Iterator[None]:
    """Within it the weights of ``module`` must not change: its linear maps may keep packed copies.

    Blocks that are compiled stay with what was compiled.
    """
    compiled = {part for block in module.modules() if block._compiled_call_impl is not None for part in block.modules()}
    mine = [part for part in module.modules() if isinstance(part, nn.Linear) and part not in compiled]
    mine = [part for part in mine if part not in _HELD and "forward" not in vars(part) and _packs(part)]
    for part in mine:
        _HELD[part] = Half(part)
        part.forward = _Forward(part)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for part in mine:
            del _HELD[part], part.forward


def product(linear: nn.Linear, h: Tensor) -> Tensor | None:
    """h Wᵀ + b in float32; None where that does not pay: many rows, no autocast; or where there is a gradient."""
    half = _HELD.get(linear)
    if half is None or h.numel() > FEW * h.shape[-1] or not h.numel():
        return None
    if torch.is_grad_enabled() or not torch.is_autocast_enabled("cpu"):
        return None
    return half(h)


class _Forward:
    """What stands for a linear map's ``forward``."""

    def __init__(self, linear: nn.Linear) -> None:
        self._linear = linear

    def __call__(self, h: Tensor) -> Tensor:
        out = product(self._linear, h)
        return type(self._linear).forward(self._linear, h) if out is None else out


def _packs(linear: nn.Linear) -> bool:
    weight = linear.weight
    name, _ = FEW_ROWS.choose(device=weight.device.type, dtype=weight.dtype)
    return name == "half"
