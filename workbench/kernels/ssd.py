"""The state-space dual (Mamba-2; Dao & Gu 2024): a recurrence with one decay a head, as matrix products by chunks.

    S_t = exp(Δ_t A) S_{t−1} + Δ_t x_t B_tᵀ,    y_t = S_t C_t

All implementations take x_BLHP, Δ_BLH (positive), A_H (negative), B_BLGN and C_BLGN (group g serves H / G heads that
follow one another), and the state before the first position S_BHPN (float32) or None; they return y_BLHP in x's type
and the state after the last position, float32. Decays, their sums and states are float32 whatever x is.
"""

from __future__ import annotations

import importlib
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from workbench.kernels.dispatch import Candidate, Dispatcher, absent
from workbench.kernels.precision import full_precision

Kernel = Literal["auto", "mamba_ssm", "chunked", "recurrence"]
"""Which implementation: "auto" lets the dispatcher choose."""

CHUNK = 64
"""Positions of one chunk: within it work grows with the chunk, between chunks with the number of chunks."""
KEPT_BYTES = 8 << 20
"""Size of one B × L × H × Q matrix up to which those within chunks (four of them) are kept for the backward pass."""
MODULE = "mamba_ssm.ops.triton.ssd_combined"
KERNEL_CHUNK = 256
"""The same for the CUDA kernel, whose authors' default it is."""


def ssd(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLGN: Tensor,
    C_BLGN: Tensor,
    state_BHPN: Tensor | None = None,
    kernel: str = "auto",
) -> tuple[Tensor, Tensor]:
    """(y_BLHP, last state_BHPN) by the implementation that ``kernel`` names.

    Raises:
        WorkbenchError: the asked kernel cannot run here.
    """
    width, n = x_BLHP.shape[3], B_BLGN.shape[3]
    if x_BLHP.numel() == 0:
        none = x_BLHP.new_zeros(x_BLHP.shape[0], x_BLHP.shape[2], width, n, dtype=A_H.dtype)
        return x_BLHP, none if state_BHPN is None else state_BHPN
    small = max(width, n) <= 256
    implementation, _ = SSD.pick(kernel, device=x_BLHP.device.type, dtype=x_BLHP.dtype, small=small)
    with full_precision(x_BLHP):
        wide = torch.promote_types(x_BLHP.dtype, torch.float32)
        return implementation(x_BLHP, dt_BLH.to(wide), A_H.to(wide), B_BLGN, C_BLGN, state_BHPN)


def chunked(
    x_BLHP: Tensor, dt_BLH: Tensor, A_H: Tensor, B_BLGN: Tensor, C_BLGN: Tensor, state_BHPN: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Listing 1 of the paper: attention-like products within chunks, a short recurrence between them.

    Where the matrices within chunks are large they are computed again for the backward pass, not kept.
    """
    inputs = x_BLHP, dt_BLH, A_H, B_BLGN, C_BLGN, state_BHPN
    if torch.is_grad_enabled() and dt_BLH.numel() * CHUNK * dt_BLH.element_size() > KEPT_BYTES:
        found: tuple[Tensor, Tensor] = checkpoint(_chunked, *inputs, use_reentrant=False, preserve_rng_state=False)
        return found
    return _chunked(*inputs)


def _chunked(
    x_BLHP: Tensor, dt_BLH: Tensor, A_H: Tensor, B_BLGN: Tensor, C_BLGN: Tensor, state_BHPN: Tensor | None
) -> tuple[Tensor, Tensor]:
    batch, length, heads, width = x_BLHP.shape
    groups, n = B_BLGN.shape[2:]
    chunk = min(CHUNK, length)
    pad = -length % chunk
    if pad:  # Δ = 0 there: nothing decays and nothing enters, so the last state is that of the last position
        x_BLHP, B_BLGN, C_BLGN = (F.pad(z, (0, 0, 0, 0, 0, pad)) for z in (x_BLHP, B_BLGN, C_BLGN))
        dt_BLH = F.pad(dt_BLH, (0, 0, 0, pad))
    low, share = x_BLHP.dtype, heads // groups
    # b batch, j chunk, g group, s head within its group, q position within its chunk
    x = x_BLHP.unflatten(1, (-1, chunk)).unflatten(3, (groups, share)).permute(0, 1, 3, 4, 2, 5)  # b j g s q p
    dt = dt_BLH.unflatten(1, (-1, chunk)).unflatten(3, (groups, share)).permute(0, 1, 3, 4, 2)  # b j g s q
    B, C = (z.unflatten(1, (-1, chunk)).transpose(2, 3) for z in (B_BLGN, C_BLGN))  # b j g q n
    total = (dt * A_H.view(groups, share, 1)).cumsum(-1)
    decay = (total.unsqueeze(-1) - total.unsqueeze(-2)).masked_fill(_later(chunk, x.device), -torch.inf).exp()
    pairs = (C @ B.transpose(-1, -2)).unsqueeze(3)  # b j g 1 q k
    y = (pairs * decay * dt.unsqueeze(-2)).to(low) @ x
    # what each chunk adds to the state, and what is left of the state at its end
    enters = (x * (dt * (total[..., -1:] - total).exp()).unsqueeze(-1).to(low)).transpose(-1, -2)  # b j g s p q
    added = (enters @ B.unsqueeze(3)).to(total.dtype)  # b j g s p n
    left = total[..., -1].exp()[..., None, None]
    state = x.new_zeros(batch, groups, share, width, n, dtype=total.dtype)
    if state_BHPN is not None:
        state = state_BHPN.to(total.dtype).unflatten(1, (groups, share))
    before = []
    for kept, new in zip(left.unbind(1), added.unbind(1), strict=True):
        before.append(state)
        state = torch.addcmul(new, kept, state)
    if len(before) > 1 or state_BHPN is not None:
        carried = torch.stack(before, 1).to(low)
        y = y + (C.unsqueeze(3) @ carried.transpose(-1, -2)) * total.exp().unsqueeze(-1).to(low)
    y_BLHP = y.permute(0, 1, 4, 2, 3, 5).reshape(batch, length + pad, heads, width)[:, :length]
    return y_BLHP, state.flatten(1, 2)


def recurrence(
    x_BLHP: Tensor, dt_BLH: Tensor, A_H: Tensor, B_BLGN: Tensor, C_BLGN: Tensor, state_BHPN: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The formula, position after position, at least in float32: what the others are tested against."""
    heads, groups = x_BLHP.shape[2], B_BLGN.shape[2]
    wide = dt_BLH.dtype
    x = x_BLHP.to(wide)
    B_BLHN, C_BLHN = (z.to(wide).repeat_interleave(heads // groups, dim=2) for z in (B_BLGN, C_BLGN))
    state = x.new_zeros(x.shape[0], heads, x.shape[3], B_BLGN.shape[3]) if state_BHPN is None else state_BHPN.to(wide)
    out = []
    for t in range(x.shape[1]):
        decay_BH11 = (dt_BLH[:, t] * A_H).exp()[..., None, None]
        state = decay_BH11 * state + (dt_BLH[:, t].unsqueeze(-1) * x[:, t]).unsqueeze(-1) * B_BLHN[:, t].unsqueeze(-2)
        out.append((state @ C_BLHN[:, t].unsqueeze(-1)).squeeze(-1))
    return torch.stack(out, 1).to(x_BLHP.dtype), state


def mamba_ssm(
    x_BLHP: Tensor, dt_BLH: Tensor, A_H: Tensor, B_BLGN: Tensor, C_BLGN: Tensor, state_BHPN: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The Triton kernels of the ``mamba-ssm`` package (CUDA only), imported at their first use."""
    fn: Any = importlib.import_module(MODULE).mamba_chunk_scan_combined
    y_BLHP, state = fn(
        x_BLHP, dt_BLH, A_H, B_BLGN, C_BLGN, KERNEL_CHUNK, initial_states=state_BHPN, return_final_states=True
    )
    return y_BLHP, state.to(dt_BLH.dtype)


def _later(chunk: int, device: torch.device) -> Tensor:
    """[Q, Q] bool: inputs that stand after their output."""
    return torch.ones(chunk, chunk, dtype=torch.bool, device=device).triu(1)


def _mamba_ssm_available(device: str, dtype: torch.dtype, small: bool) -> str | None:
    against = absent("mamba-ssm", MODULE, device, dtype)
    return against or (None if small else "its states and heads have 256 numbers at most")


SSD = Dispatcher(
    "state-space dual",
    [
        Candidate("mamba_ssm", mamba_ssm, "the authors' Triton kernels", _mamba_ssm_available, extra="cuda"),
        Candidate("chunked", chunked, "matrix products by chunks in PyTorch, on every device"),
        Candidate("recurrence", recurrence, "the formula, position after position"),
    ],
    typical={"small": True},
)
"""The dispatcher of the state-space dual."""
