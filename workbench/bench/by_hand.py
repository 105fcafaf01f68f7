"""What one would compose without the workbench, at SEDD small's size on CUDA: yardsticks.

A layer of the *authors'* is ``mamba_ssm``'s own Mamba-2 block twice, once on the flipped sequence; a *plain* one is the
published SEDD block on scaled_dot_product_attention, adaLN and rotary positions written out. The hybrid takes both in
the order of recipes/sedd-hybrid-small.yaml.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Sizes:
    """Of a network: SEDD small's, and positions."""

    length: int
    dim: int = 768
    heads: int = 12
    cond: int = 128
    state: int = 64
    vocab: int = 50_258

    def angles(self) -> Tensor:
        """[1, L, 1, head width] of rotary positions."""
        half = self.dim // self.heads // 2
        angle = torch.outer(torch.arange(self.length).float(), 10_000.0 ** (-torch.arange(half).float() / half))
        return angle.repeat(1, 2)[None, :, None]


class Authors(nn.Module):
    """Norm and two Mamba-2 blocks, the second from right to left, added. σ is not heard."""

    def __init__(self, sizes: Sizes) -> None:
        """Weights."""
        super().__init__()
        from mamba_ssm import Mamba2

        self.norm = nn.LayerNorm(sizes.dim, bias=False)
        self.ahead, self.back = (Mamba2(sizes.dim, d_state=sizes.state) for _ in range(2))

    def forward(self, h: Tensor, c: Tensor, turned: tuple[Tensor, Tensor]) -> Tensor:
        """[B, L, D] to the same."""
        z = self.norm(h)
        return h + self.ahead(z) + self.back(z.flip(1)).flip(1)


class Plain(nn.Module):
    """Attention and MLP modulated by σ, LayerNorm in float32, attention by PyTorch."""

    def __init__(self, sizes: Sizes) -> None:
        """Weights."""
        super().__init__()
        dim, self.heads = sizes.dim, sizes.heads
        self.qkv, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.inner, self.outer = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.modulate = nn.Linear(sizes.cond, 6 * dim)

    def forward(self, h: Tensor, c: Tensor, turned: tuple[Tensor, Tensor]) -> Tensor:
        """[B, L, D] to the same; ``c`` [B, cond] of σ, ``turned`` cosines and sines of positions."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulate(c)[:, None].chunk(6, dim=-1)
        z = F.layer_norm(h.float(), h.shape[-1:]) * (1 + scale1) + shift1
        q, k, v = self.qkv(z).unflatten(-1, (3, self.heads, -1)).unbind(2)
        q, k = (turn(one, *turned).to(v.dtype).transpose(1, 2) for one in (q, k))
        mixed = F.scaled_dot_product_attention(q, k, v.transpose(1, 2)).transpose(1, 2)
        h = h + gate1 * self.out(mixed.flatten(2))
        z = F.layer_norm(h.float(), h.shape[-1:]) * (1 + scale2) + shift2
        return h + gate2 * self.outer(F.gelu(self.inner(z), approximate="tanh"))


class Composed(nn.Module):
    """Layers one after the other on embedded tokens."""

    def __init__(self, layers: Sequence[type[Authors] | type[Plain]], sizes: Sizes) -> None:
        """``layers``: their kinds, in order."""
        super().__init__()
        self.embed = nn.Embedding(sizes.vocab, sizes.dim)
        self.sigma = nn.Linear(1, sizes.cond)
        self.layers = nn.ModuleList(kind(sizes) for kind in layers)
        angle = sizes.angles()
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, x_BL: Tensor, sigma_B: Tensor) -> Tensor:
        """Features h_BLD."""
        h, c = self.embed(x_BL), F.silu(self.sigma(sigma_B[:, None]))
        for layer in self.layers:
            h = layer(h, c, (self.cos, self.sin))
        return h

    @property
    def non_embedding(self) -> int:
        """Parameters without the table of tokens."""
        return sum(parameter.numel() for parameter in self.parameters()) - self.embed.weight.numel()


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions, half-split."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


NETWORKS: dict[str, Sequence[type[Authors] | type[Plain]]] = {
    "authors": (Authors,) * 12,
    "authors, hybrid": ((Authors,) * 5 + (Plain,)) * 2,
    "plain": (Plain,) * 12,
}
"""Layers of each, by the name of its way."""


def able(name: str) -> bool:
    """Whether its packages are here."""
    return Authors not in NETWORKS[name] or importlib.util.find_spec("mamba_ssm") is not None
