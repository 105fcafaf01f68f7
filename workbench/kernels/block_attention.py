"""Softmax attention of noised blocks beside clean text: each block sees itself and the clean blocks before it.

One sequence of K blocks of ``size`` positions is there twice: noised, L = K · size positions, and clean, its first
T = L − size (nothing reads the last block clean). A noised position sees the noised positions of its own block and
the clean ones of all blocks before; a clean position sees the clean ones of its own block and of those before. It is
the pass of block diffusion over x_t ⊕ x_0 (Arriola et al. 2025, §3.2 and appendix) as two products, so that no
clean query is held against noised keys.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.kernels.attention import reference as attend_by_formula
from workbench.kernels.dispatch import Candidate, Dispatcher

Heads = tuple[Tensor, Tensor, Tensor]
"""Queries, keys and values, [B, length, H, d] each."""
MANY = 16
"""Blocks from which on one masked product is faster than two products a block."""


def block_attention(
    noised: Heads, clean: Heads, size: int, dropout: float = 0.0, kernel: str = "auto"
) -> tuple[Tensor, Tensor]:
    """(mixed noised [B, L, H, d], mixed clean [B, T, H, d]) by the implementation that ``kernel`` names.

    ``kernel``: one of this operation's; any other name (attention has more of them) is read as "auto".
    """
    asked = kernel if kernel in BLOCK_ATTENTION.candidates else "auto"
    q_BLHd = noised[0]
    implementation, _ = BLOCK_ATTENTION.pick(
        asked, device=q_BLHd.device.type, dtype=q_BLHd.dtype, many=q_BLHd.shape[1] // size >= MANY
    )
    return implementation(noised, clean, size, dropout)


def by_block(noised: Heads, clean: Heads, size: int, dropout: float) -> tuple[Tensor, Tensor]:
    """Two products a block, without a mask: no pair is computed that is not needed."""
    mixed, mixed_clean = [], []
    for end in range(size, noised[0].shape[1] + size, size):
        before, own = slice(0, end - size), slice(end - size, end)
        k, v = (torch.cat((c[:, before], z[:, own]), dim=1) for c, z in zip(clean[1:], noised[1:], strict=True))
        mixed.append(_sdpa(noised[0][:, own], k, v, None, dropout))
        if end <= clean[0].shape[1]:
            mixed_clean.append(_sdpa(clean[0][:, own], clean[1][:, :end], clean[2][:, :end], None, dropout))
    return torch.cat(mixed, dim=1), torch.cat(mixed_clean, dim=1) if mixed_clean else clean[0]


def masked(noised: Heads, clean: Heads, size: int, dropout: float) -> tuple[Tensor, Tensor]:
    """PyTorch's scaled_dot_product_attention under a mask: one product for each of the two."""
    seen_LT, seen_TT = visible(noised[0].shape[1], size, noised[0].device)
    k, v = (torch.cat((c, z), dim=1) for c, z in zip(clean[1:], noised[1:], strict=True))
    mixed_clean = _sdpa(*clean, seen_TT, dropout) if clean[0].shape[1] else clean[0]
    return _sdpa(noised[0], k, v, seen_LT, dropout), mixed_clean


def reference(noised: Heads, clean: Heads, size: int, dropout: float) -> tuple[Tensor, Tensor]:
    """Position by position, each with exactly the keys it sees, by the formula: what the others are tested against."""

    def attended(q: Tensor, k: Tensor, v: Tensor, here: int) -> Tensor:
        return attend_by_formula(q[:, here : here + 1], k, v, False, dropout)

    mixed, mixed_clean = [], []
    for here in range(noised[0].shape[1]):
        start = here // size * size
        own, before = slice(start, start + size), slice(0, start)
        k, v = (torch.cat((c[:, before], z[:, own]), dim=1) for c, z in zip(clean[1:], noised[1:], strict=True))
        mixed.append(attended(noised[0], k, v, here))
        if here < clean[0].shape[1]:
            mixed_clean.append(attended(clean[0], clean[1][:, : start + size], clean[2][:, : start + size], here))
    return torch.cat(mixed, dim=1), torch.cat(mixed_clean, dim=1) if mixed_clean else clean[0]


def visible(length: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which keys a query sees, bool: [L, T + L] of a noised one, clean keys first; [T, T] of a clean one."""
    block_L = torch.arange(length, device=device) // size
    block_T = block_L[: length - size]
    seen_LT = torch.cat((block_T < block_L[:, None], block_L == block_L[:, None]), dim=1)
    return seen_LT, block_T <= block_T[:, None]


def _sdpa(q_BLHd: Tensor, k_BTHd: Tensor, v_BTHd: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    q, k, v = (z.transpose(1, 2) for z in (q_BLHd, k_BTHd, v_BTHd))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout).transpose(1, 2)


def _few(many: bool = False, **where: object) -> str | None:
    return "too many blocks" if many else None


BLOCK_ATTENTION = Dispatcher(
    "attention of blocks",
    [
        Candidate("by_block", by_block, "computes no pair that is masked", advisable=_few),
        Candidate("sdpa", masked, "two products whatever the number of blocks"),
        Candidate("reference", reference, "plain PyTorch"),
    ],
    typical={"many": False},
)
"""The dispatcher of attention by blocks."""
