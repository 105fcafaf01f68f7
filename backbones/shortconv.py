"""A short depthwise convolution before a mixer: neighbours are visible from the first step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from backbones.base import BlockMixer, CachedMixer, Mixer
from backbones.blockwise import before_blocks
from workbench.core.errors import WorkbenchError
from workbench.kernels.conv import depthwise


class ShortConv(BlockMixer):
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

    def beside(self, h_NSD: Tensor, clean_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Each block convolved after the clean inputs before it, then mixed as the mixer does."""
        size = h_NSD.shape[1]
        before_NTD = before_blocks(clean_BTD, self.width - 1, size)
        before_MTD = before_NTD.unflatten(0, (len(clean_BTD), -1))[:, :-1].flatten(0, 1)
        clean_MSD = self._convolved(clean_BTD.reshape(-1, size, clean_BTD.shape[-1]), before_MTD)
        if not isinstance(self.mixer, BlockMixer):
            raise WorkbenchError(f"mixer {self.mixer.type_name!r} reads no blocks")
        return self.mixer.beside(self._convolved(h_NSD, before_NTD), clean_MSD.reshape(clean_BTD.shape))

    def flops_per_token(self, length: int) -> float:
        """The mixer's, and 2 · width · D."""
        return self.mixer.flops_per_token(length) + 2 * self.width * self.weight.shape[0]

    def state_bytes(self, length: int) -> int:
        """The mixer's, and width − 1 inputs."""
        return self.mixer.state_bytes(length) + (self.width - 1) * self.weight.shape[0] * self.weight.element_size()

    def _convolved(self, h_BLD: Tensor, before_BLD: Tensor | None) -> Tensor:
        reach = self.width - 1
        left = reach if self.causal else reach // 2
        weight_DW = self.weight[:, 0].clone()
        weight_DW[:, left] += 1  # h itself: one pass instead of two
        return depthwise(h_BLD, weight_DW, left=left, before_BTC=before_BLD)

    def _cached(self) -> CachedMixer:
        if not isinstance(self.mixer, CachedMixer):
            raise WorkbenchError(f"mixer {self.mixer.type_name!r} keeps no cache")
        return self.mixer
