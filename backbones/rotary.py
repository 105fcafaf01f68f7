"""Rotary positions (Su et al. 2021, "RoFormer"), half-split layout, base 10 000, on the whole head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

BASE = 10_000.0


class Rotary(nn.Module):
    """Splits a fused projection into queries, keys and values and turns the first two by their position.

    Pair (i, i + d/2) of a head turns by position · BASE^(−2i/d). The tables are float32; products are formed in
    float32 and rounded once to the input's type.
    """

    cos_Lh: Tensor
    sin_Lh: Tensor

    def __init__(self, width: int, length: int) -> None:
        """``width``: d, a head's width, even; ``length``: positions in the tables (longer input computes its own)."""
        super().__init__()
        self.width = width
        cos_Lh, sin_Lh = tables(width, length)
        self.register_buffer("cos_Lh", cos_Lh, persistent=False)
        self.register_buffer("sin_Lh", sin_Lh, persistent=False)

    def forward(self, qkv_BL3Hd: Tensor, start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values [B, L, H, d] of positions ``start`` … ``start`` + L − 1."""
        end = start + qkv_BL3Hd.shape[1]
        cos_Lh, sin_Lh = self.cos_Lh, self.sin_Lh
        if end > cos_Lh.shape[0]:
            cos_Lh, sin_Lh = tables(self.width, end, cos_Lh.device)
        cos, sin = cos_Lh[start:end, None, None], sin_Lh[start:end, None, None]
        if torch.compiler.is_compiling():  # the compiler fuses the plain formula and derives its gradient
            return split_and_turn(qkv_BL3Hd, cos, sin)
        return _SplitAndTurn.apply(qkv_BL3Hd, cos, sin)


def tables(width: int, length: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """cos and sin of position · frequency, [length, width / 2], float32."""
    # in float64, rounded once: positions in the thousands keep all of float32's digits, at any table length
    frequency_h = BASE ** (-torch.arange(0, width, 2, dtype=torch.float64, device=device) / width)
    angle_Lh = torch.outer(torch.arange(length, dtype=torch.float64, device=device), frequency_h)
    return angle_Lh.cos().float(), angle_Lh.sin().float()


def split_and_turn(qkv_BL3Hd: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The formula: (x₁, x₂) → (x₁ cos − x₂ sin, x₂ cos + x₁ sin) on queries and keys.

    ``cos``, ``sin``: [L, 1, 1, d/2].
    """
    first, second = qkv_BL3Hd[:, :, :2].chunk(2, dim=-1)
    qk = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(qkv_BL3Hd.dtype)
    return qk[:, :, 0], qk[:, :, 1], qkv_BL3Hd[:, :, 2]


class _SplitAndTurn(torch.autograd.Function):
    """``split_and_turn`` with a third of its memory traffic: no temporaries, and one buffer for the gradient."""

    @staticmethod
    def forward(ctx: Any, qkv_BL3Hd: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(cos, sin)
        qk = torch.empty_like(qkv_BL3Hd[:, :, :2], memory_format=torch.contiguous_format)
        _turn(qkv_BL3Hd[:, :, :2], cos, sin, qk)
        return qk[:, :, 0], qk[:, :, 1], qkv_BL3Hd[:, :, 2]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        q, k, v = grads
        batch, length, heads, width = q.shape
        out = q.new_empty(batch, length, 3, heads, width)
        cos, sin = cos[:, 0], sin[:, 0]
        _turn(q, cos, -sin, out[:, :, 0])  # the inverse turn
        _turn(k, cos, -sin, out[:, :, 1])
        out[:, :, 2] = v
        return out, None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> None:
    wide = x.to(torch.promote_types(x.dtype, cos.dtype))  # narrow types are widened once and rounded once
    turned = out if out.dtype == wide.dtype else torch.empty_like(out, dtype=wide.dtype)
    first, second = wide.chunk(2, dim=-1)
    turned_first, turned_second = turned.chunk(2, dim=-1)
    torch.mul(first, cos, out=turned_first).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=turned_second).addcmul_(first, sin)
    if turned is not out:
        out.copy_(turned)
