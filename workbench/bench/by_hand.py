"""What one would compose without the workbench, at SEDD small's size on CUDA: yardsticks.

*authors* stacks ``mamba_ssm``'s own Mamba-2 block twice a layer, once on the flipped sequence; *plain* is the published
SEDD block on scaled_dot_product_attention, adaLN and rotary positions written out.
"""

from __future__ import annotations

import importlib.util

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DIM, DEPTH, HEADS, VOCAB = 768, 12, 12, 50_258


class Authors(nn.Module):
    """12 layers of norm and two Mamba-2 blocks, the second from right to left, added."""

    def __init__(self) -> None:
        """SEDD small's sizes."""
        super().__init__()
        from mamba_ssm import Mamba2

        self.embed = nn.Embedding(VOCAB, DIM)
        self.norms = nn.ModuleList(nn.LayerNorm(DIM, bias=False) for _ in range(DEPTH))
        self.ahead, self.back = (nn.ModuleList(Mamba2(DIM, d_state=64) for _ in range(DEPTH)) for _ in range(2))

    def forward(self, x_BL: Tensor, sigma_B: Tensor) -> Tensor:
        """Features h_BLD."""
        h = self.embed(x_BL)
        for norm, ahead, back in zip(self.norms, self.ahead, self.back, strict=True):
            z = norm(h)
            h = h + ahead(z) + back(z.flip(1)).flip(1)
        return h


class Plain(nn.Module):
    """The published transformer: every block modulated by σ, LayerNorm in float32, attention by PyTorch."""

    def __init__(self, length: int) -> None:
        """``length``: positions."""
        super().__init__()
        self.embed = nn.Embedding(VOCAB, DIM)
        self.qkv = nn.ModuleList(nn.Linear(DIM, 3 * DIM, bias=False) for _ in range(DEPTH))
        self.out = nn.ModuleList(nn.Linear(DIM, DIM, bias=False) for _ in range(DEPTH))
        self.inner = nn.ModuleList(nn.Linear(DIM, 4 * DIM) for _ in range(DEPTH))
        self.outer = nn.ModuleList(nn.Linear(4 * DIM, DIM) for _ in range(DEPTH))
        self.modulate = nn.ModuleList(nn.Linear(128, 6 * DIM) for _ in range(DEPTH))
        self.sigma = nn.Linear(1, 128)
        half = DIM // HEADS // 2
        angle = torch.outer(torch.arange(length).float(), 10_000.0 ** (-torch.arange(half).float() / half))
        self.register_buffer("cos", angle.cos().repeat(1, 2)[None, :, None])
        self.register_buffer("sin", angle.sin().repeat(1, 2)[None, :, None])

    def forward(self, x_BL: Tensor, sigma_B: Tensor) -> Tensor:
        """Features h_BLD."""
        h, c = self.embed(x_BL), F.silu(self.sigma(sigma_B[:, None]))
        for qkv, out, inner, outer, modulate in zip(
            self.qkv, self.out, self.inner, self.outer, self.modulate, strict=True
        ):
            shift1, scale1, gate1, shift2, scale2, gate2 = modulate(c)[:, None].chunk(6, dim=-1)
            z = F.layer_norm(h.float(), (DIM,)) * (1 + scale1) + shift1
            q, k, v = qkv(z).unflatten(-1, (3, HEADS, -1)).unbind(2)
            q, k = (turn(one, self.cos, self.sin).to(v.dtype).transpose(1, 2) for one in (q, k))
            h = h + gate1 * out(F.scaled_dot_product_attention(q, k, v.transpose(1, 2)).transpose(1, 2).flatten(2))
            z = F.layer_norm(h.float(), (DIM,)) * (1 + scale2) + shift2
            h = h + gate2 * outer(F.gelu(inner(z), approximate="tanh"))
        return h


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions, half-split."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


NETWORKS = {
    "authors": lambda length, device: Authors().to(device),
    "plain": lambda length, device: Plain(length).to(device),
}


def able(name: str) -> bool:
    """Whether its packages are here."""
    return name != "authors" or importlib.util.find_spec("mamba_ssm") is not None
