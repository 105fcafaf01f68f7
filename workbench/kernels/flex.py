"""PyTorch's FlexAttention: softmax attention within a window."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention


def attend(q_BLHd: Tensor, k_BTHd: Tensor, v_BTHd: Tensor, causal: bool, window: int) -> Tensor:
    """As `workbench.kernels.attention.flex`."""
    queries, keys = q_BLHd.shape[1], k_BTHd.shape[1]
    # uncompiled it computes everything, but anywhere; within a compiled block it is compiled already
    mix = _compiled_flex() if q_BLHd.is_cuda and not torch.compiler.is_compiling() else flex_attention
    blocks = _flex_mask(queries, keys, causal, window, q_BLHd.device.type)
    out_BHLd = mix(*(z.transpose(1, 2) for z in (q_BLHd, k_BTHd, v_BTHd)), block_mask=blocks)
    return out_BHLd.transpose(1, 2)


@functools.cache
def _compiled_flex() -> Any:
    return torch.compile(flex_attention)


@torch.compiler.disable
@functools.lru_cache(maxsize=64)
def _flex_mask(queries: int, keys: int, causal: bool, window: int, device: str) -> Any:
    """The block mask of `visible`, made once for a shape."""
    ahead = 0 if causal else window or keys

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        away = key - (query + keys - queries)
        return (away <= ahead) & (away >= -(window or keys))

    return create_block_mask(seen, None, None, queries, keys, device=device)
