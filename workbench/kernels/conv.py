"""Depthwise convolution along a sequence: one call, several implementations.

All take x_BLC and a weight of W taps a channel and return y[l] = bias + Σ_w x[l + w − left] · weight[w], zeros beyond
the ends. ``left`` says how far the taps reach back: W − 1 is causal, W // 2 is centred.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.kernels.dispatch import Candidate, Dispatcher, absent

Kernel = Literal["auto", "causal_conv1d", "taps", "conv1d"]
"""Which implementation of the convolution: "auto" lets the dispatcher choose."""


def depthwise(
    x_BLC: Tensor,
    weight_CW: Tensor,
    bias_C: Tensor | None = None,
    left: int = 0,
    before_BTC: Tensor | None = None,
    kernel: str = "auto",
) -> Tensor:
    """The convolution by the implementation that ``kernel`` names, [B, L, C] in x's type.

    ``before_BTC``: what stood before x (T ≥ ``left``), in place of zeros.

    Raises:
        WorkbenchError: the asked kernel cannot run here.
    """
    width = weight_CW.shape[1]
    implementation, _ = CONVOLUTION.pick(
        kernel,
        device=x_BLC.device.type,
        dtype=x_BLC.dtype,
        width=width,
        causal=left == width - 1,
        aligned=weight_CW.shape[0] % 8 == 0,
    )
    weight_CW = weight_CW.to(x_BLC.dtype)
    bias_C = None if bias_C is None else bias_C.to(x_BLC.dtype)
    if before_BTC is None or before_BTC.shape[1] == 0:
        return implementation(x_BLC, weight_CW, bias_C, left)
    joined_BTC = torch.cat((before_BTC.to(x_BLC.dtype), x_BLC), dim=1)
    return implementation(joined_BTC, weight_CW, bias_C, left)[:, before_BTC.shape[1] :]


def taps(x_BLC: Tensor, weight_CW: Tensor, bias_C: Tensor | None, left: int) -> Tensor:
    """Shifted multiply-adds: C stays innermost, so nothing is transposed and sums are formed in place."""
    if torch.compiler.is_compiling():  # the compiler fuses the plain formula and derives its gradient
        out_BLC = _plain(x_BLC, weight_CW, left)
    else:
        out_BLC = _Taps.apply(x_BLC, weight_CW, left)
    return out_BLC if bias_C is None else out_BLC + bias_C


def conv1d(x_BLC: Tensor, weight_CW: Tensor, bias_C: Tensor | None, left: int) -> Tensor:
    """PyTorch's grouped convolution: the formula that the others are tested against."""
    channels, width = weight_CW.shape
    padded_BCL = F.pad(x_BLC.transpose(1, 2), (left, width - 1 - left))
    return F.conv1d(padded_BCL, weight_CW.unsqueeze(1), bias_C, groups=channels).transpose(1, 2)


def causal_conv1d(x_BLC: Tensor, weight_CW: Tensor, bias_C: Tensor | None, left: int) -> Tensor:
    """The kernel of the ``causal-conv1d`` package (CUDA only), imported at its first use; channels stay innermost."""
    fn = importlib.import_module("causal_conv1d").causal_conv1d_fn
    if x_BLC.stride(2) != 1 or x_BLC.stride(0) % 8 or x_BLC.stride(1) % 8:  # a view of wider rows: it reads by eights
        x_BLC = x_BLC.contiguous()
    out_BLC: Tensor = fn(x_BLC.transpose(1, 2), weight_CW, bias_C).transpose(1, 2)
    return out_BLC


def _plain(x_BLC: Tensor, weight_CW: Tensor, left: int) -> Tensor:
    length, width = x_BLC.shape[1], weight_CW.shape[1]
    padded_BLC = F.pad(x_BLC, (0, 0, left, width - 1 - left))
    out_BLC = padded_BLC[:, :length] * weight_CW[:, 0]
    for step in range(1, width):
        out_BLC = torch.addcmul(out_BLC, padded_BLC[:, step : step + length], weight_CW[:, step])
    return out_BLC


class _Taps(torch.autograd.Function):
    """The formula with half of its memory traffic: no padded copy, sums in place."""

    @staticmethod
    def forward(ctx: Any, x_BLC: Tensor, weight_CW: Tensor, left: int) -> Tensor:
        ctx.save_for_backward(x_BLC, weight_CW)
        ctx.left = left
        out_BLC = x_BLC * weight_CW[:, left]
        for tap, here, there in _shifts(x_BLC.shape[1], weight_CW.shape[1], left):
            if tap != left:
                out_BLC[:, here].addcmul_(x_BLC[:, there], weight_CW[:, tap])
        return out_BLC

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (g_BLC,) = grads
        x_BLC, weight_CW = ctx.saved_tensors
        into_BLC, into_CW = g_BLC * weight_CW[:, ctx.left], torch.zeros_like(weight_CW)
        for tap, here, there in _shifts(x_BLC.shape[1], weight_CW.shape[1], ctx.left):
            if tap != ctx.left:
                into_BLC[:, there].addcmul_(g_BLC[:, here], weight_CW[:, tap])
            into_CW[:, tap] = (g_BLC[:, here] * x_BLC[:, there]).sum((0, 1))
        return into_BLC, into_CW, None


def _shifts(length: int, width: int, left: int) -> Iterator[tuple[int, slice, slice]]:
    """(tap, outputs it reaches, inputs it reads)."""
    for tap in range(width):
        shift = tap - left
        start, stop = max(0, -shift), min(length, length - shift)
        if start < stop:
            yield tap, slice(start, stop), slice(start + shift, stop + shift)


def _package_available(device: str, dtype: torch.dtype, width: int, causal: bool, aligned: bool) -> str | None:
    against = absent("causal-conv1d", "causal_conv1d", device, dtype)
    if against is not None:
        return against
    if not causal:
        return "it knows causal taps only"
    if not aligned:
        return "its channels come in eights"
    return None if 2 <= width <= 4 else f"it has 2 to 4 taps, not {width}"


CONVOLUTION = Dispatcher(
    "convolution",
    [
        Candidate("causal_conv1d", causal_conv1d, "a fused CUDA kernel", _package_available, extra="cuda"),
        Candidate("taps", taps, "shifted multiply-adds, on every device"),
        Candidate("conv1d", conv1d, "PyTorch's grouped convolution"),
    ],
    typical={"width": 4, "causal": True, "aligned": True},
)
"""The dispatcher of depthwise convolutions."""
