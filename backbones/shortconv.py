"""A short depthwise convolution before a mixer: neighbours are visible from the first step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.base import CachedMixer, Mixer
from workbench.core.errors import WorkbenchError


class ShortConv(CachedMixer):
    """mixer(h + conv(h)): the convolution is depthwise, has no bias and begins at zero, so the mixer begins as is.

    Centred on each position, or on it and those before when causal. It is no part of its own: a wrapper that a
    backbone's ``shortconv`` setting puts around each mixer.
    """

    def __init__(self, mixer: Mixer, dim: int, width: int, causal: bool) -> None:
        """``width``: positions that one output sees; odd.

        Raises:
            WorkbenchError: an even width.
        """
        super().__init__()
        if width % 2 == 0:
            raise WorkbenchError(f"shortconv {width} has no centre; take an odd width, or 0 for none")
        self.mixer, self.width, self.causal = mixer, width, causal
        self.weight = nn.Parameter(torch.zeros(dim, 1, width))

    def forward(self, h_BLD: Tensor, cache: tuple[Tensor, Any] | None = None) -> Tensor:
        """Mix along L."""
        if cache is None:
            return self.mixer(self._convolved(h_BLD, None))
        return self.mixer(self._convolved(h_BLD, cache[0]), cache[1])

    def new_cache(self, batch: int) -> tuple[Tensor, Any]:
        """The inputs just before (zeros at first), and the mixer's cache."""
        before_BLD = self.weight.new_zeros(batch, self.width - 1, self.weight.shape[0])
        return before_BLD, self._cached().new_cache(batch)

    def commit(self, h_BLD: Tensor, cache: tuple[Tensor, Any]) -> tuple[Tensor, tuple[Tensor, Any]]:
        """Mix, and keep the last inputs."""
        before_BLD, kept = cache
        mixed_BLD, kept = self._cached().commit(self._convolved(h_BLD, before_BLD), kept)
        seen_BLD = torch.cat((before_BLD, h_BLD), dim=1)
        return mixed_BLD, (seen_BLD[:, seen_BLD.shape[1] - self.width + 1 :], kept)

    def flops_per_token(self, length: int) -> float:
        """The mixer's, and 2 · width · D."""
        return self.mixer.flops_per_token(length) + 2 * self.width * self.weight.shape[0]

    def state_bytes(self, length: int) -> int:
        """The mixer's, and width − 1 inputs."""
        return self.mixer.state_bytes(length) + 2 * (self.width - 1) * self.weight.shape[0]

    def _convolved(self, h_BLD: Tensor, before_BLD: Tensor | None) -> Tensor:
        reach = self.width - 1
        weight_DW = self.weight[:, 0].to(h_BLD.dtype)
        left = reach if self.causal else reach // 2
        if before_BLD is not None:
            return taps(h_BLD, torch.cat((before_BLD.to(h_BLD.dtype), h_BLD), dim=1), weight_DW)
        if torch.compiler.is_compiling():  # the compiler fuses the plain formula and derives its gradient
            return taps(h_BLD, F.pad(h_BLD, (0, 0, left, reach - left)), weight_DW)
        return _Taps.apply(h_BLD, weight_DW, left)

    def _cached(self) -> CachedMixer:
        if not isinstance(self.mixer, CachedMixer):
            raise WorkbenchError(f"mixer {self.mixer.type_name!r} keeps no cache")
        return self.mixer


def taps(h_BLD: Tensor, padded_BLD: Tensor, weight_DW: Tensor) -> Tensor:
    """The formula: h[l] + Σ_w padded[l + w] · weight[w]; shifted adds keep D innermost, so nothing is transposed."""
    out_BLD = h_BLD
    for step in range(weight_DW.shape[1]):
        out_BLD = torch.addcmul(out_BLD, padded_BLD[:, step : step + h_BLD.shape[1]], weight_DW[:, step])
    return out_BLD


class _Taps(torch.autograd.Function):
    """``taps`` on zero-padded input with half of its memory traffic: no padded copy, sums in place."""

    @staticmethod
    def forward(ctx: Any, h_BLD: Tensor, weight_DW: Tensor, left: int) -> Tensor:
        ctx.save_for_backward(h_BLD, weight_DW)
        ctx.left = left
        out_BLD = h_BLD.clone()
        for step, here, there in _shifts(h_BLD.shape[1], weight_DW.shape[1], left):
            out_BLD[:, here].addcmul_(h_BLD[:, there], weight_DW[:, step])
        return out_BLD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (g_BLD,) = grads
        h_BLD, weight_DW = ctx.saved_tensors
        into_BLD, into_DW = g_BLD.clone(), torch.zeros_like(weight_DW)
        for step, here, there in _shifts(h_BLD.shape[1], weight_DW.shape[1], ctx.left):
            into_BLD[:, there].addcmul_(g_BLD[:, here], weight_DW[:, step])
            into_DW[:, step] = (g_BLD[:, here] * h_BLD[:, there]).sum((0, 1))
        return into_BLD, into_DW, None


def _shifts(length: int, width: int, left: int) -> Iterator[tuple[int, slice, slice]]:
    """(tap, outputs it reaches, inputs it reads)."""
    for step in range(width):
        shift = step - left
        start, stop = max(0, -shift), min(length, length - shift)
        if start < stop:
            yield step, slice(start, stop), slice(start + shift, stop + shift)
