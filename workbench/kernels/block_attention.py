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
SPAN = 64
"""Positions that are worth two products of their own."""
SPANS = 8
"""Spans that a long text is cut into."""


def block_attention(
    noised: Heads, clean: Heads, size: int, dropout: float = 0.0, kernel: str = "auto"
) -> tuple[Tensor, Tensor]:
    """(mixed noised [B, L, H, d], mixed clean [B, T, H, d]) by the implementation that ``kernel`` names.

    ``kernel``: one of this operation's; any other name (attention has more of them) is read as "auto".
    """
    asked = kernel if kernel in BLOCK_ATTENTION.candidates else "auto"
    q_BLHd = noised[0]
    short = q_BLHd.shape[1] < 2 * SPAN and size < SPAN
    implementation, _ = BLOCK_ATTENTION.pick(asked, device=q_BLHd.device.type, dtype=q_BLHd.dtype, short=short)
    return implementation(noised, clean, size, dropout)


def spans(noised: Heads, clean: Heads, size: int, dropout: float) -> tuple[Tensor, Tensor]:
    """Two products a span of blocks, against no key beyond it: half of all pairs are never computed.

    A span is one long block, which then needs no mask, or as many shorter ones as come near to ``SPAN`` positions or
    to so much of the text that there are not many more than ``SPANS``.
    """
    length, seen_clean = noised[0].shape[1], clean[0].shape[1]
    span = max(1, max(SPAN, length // SPANS) // size) * size
    seen_LT, seen_TT = visible(length, size, noised[0].device) if span > size else (None, None)
    mixed, mixed_clean = [], []
    for start in range(0, length, span):
        end = min(start + span, length)
        before, own, until = slice(0, end - size), slice(start, end), slice(0, min(end, seen_clean))
        k, v = (torch.cat((c[:, before], z[:, own]), dim=1) for c, z in zip(clean[1:], noised[1:], strict=True))
        mask = None
        if seen_LT is not None:
            mask = torch.cat((seen_LT[own, before], seen_LT[own, seen_clean:][:, own]), dim=1)
        mixed.append(_sdpa(noised[0][:, own], k, v, mask, dropout))
        if start < seen_clean:
            mask = None if seen_TT is None else seen_TT[own, until]
            mixed_clean.append(_sdpa(clean[0][:, own], clean[1][:, until], clean[2][:, until], mask, dropout))
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


def _long(short: bool = False, **where: object) -> str | None:
    return "two products are enough for so short a text" if short else None


BLOCK_ATTENTION = Dispatcher(
    "attention of blocks",
    [
        Candidate("spans", spans, "computes hardly a pair that is masked", advisable=_long),
        Candidate("sdpa", masked, "two products under a mask"),
        Candidate("reference", reference, "plain PyTorch"),
    ],
    typical={"short": False},
)
"""The dispatcher of attention by blocks."""
