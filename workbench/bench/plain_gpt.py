"""GPT-2 as a small training script has it, written plainly: the yardstick of the left-to-right benchmarks.

One fused attention call a block, all logits of all positions at once, one optimizer over two groups: what a loop in
the manner of nanoGPT does. Weights are of GPT-2's shapes; the head is the token table.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainBlock(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x))."""

    def __init__(self, dim: int, heads: int) -> None:
        """``heads`` of width dim / heads."""
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.inner, self.outer = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, h: Tensor) -> Tensor:
        """[B, L, D] to the same."""
        q, k, v = self.qkv(self.norms[0](h)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.out(mixed.transpose(1, 2).flatten(2))
        return h + self.outer(F.gelu(self.inner(self.norms[1](h)), approximate="tanh"))


class PlainGPT(nn.Module):
    """Tokens and positions, blocks, a last norm, and logits by the token table."""

    def __init__(self, vocab: int, length: int, dim: int, depth: int, heads: int) -> None:
        """GPT-2's shapes at these sizes."""
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab, dim), nn.Embedding(length, dim)
        self.blocks = nn.Sequential(*(PlainBlock(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        for weight in self.parameters():
            if weight.ndim > 1:
                nn.init.normal_(weight, std=0.02)

    def forward(self, x_BL: Tensor) -> Tensor:
        """Mean cross-entropy of each next token but the first."""
        h = self.tokens(x_BL) + self.positions.weight[: x_BL.shape[1]]
        logits = F.linear(self.norm(self.blocks(h)), self.tokens.weight)
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), x_BL[:, 1:].flatten())


def train_step(net: PlainGPT, optimizer: torch.optim.Optimizer, x_BL: Tensor, autocast: torch.autocast) -> None:
    """Forward in autocast, backward, clip, AdamW."""
    with autocast:
        loss = net(x_BL)
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def optimizer_of(net: PlainGPT, rate: float, fused: bool) -> torch.optim.Optimizer:
    """AdamW, matrices decayed; ``fused`` as such scripts take it, on CUDA."""
    groups = [
        {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in net.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=fused)
