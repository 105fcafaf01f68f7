"""The selective scan (Mamba; Gu & Dao 2023): a diagonal recurrence with a decay of its own for every channel and state.

    h_t = exp(Δ_t A) h_{t−1} + Δ_t x_t B_t,    y_t = Σ_n C_tn h_tn

All implementations take x_BLD and Δ_BLD (positive), A_DN (negative), B_BLGN and C_BLGN (group g serves D / G channels
that follow one another), and the state before the first position h_BDN (float32) or None; they return y_BLD in x's
type and the state after the last position, float32. Decays and states are float32 whatever x is; the authors' kernel
rounds Δ to x's type before it forms them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from workbench.kernels.dispatch import Candidate, Dispatcher, absent
from workbench.kernels.precision import full_precision
from workbench.kernels.scan_by_chunks import scan_by_chunks

Kernel = Literal["auto", "mamba_ssm", "chunked", "recurrence"]
"""Which implementation: "auto" lets the dispatcher choose."""
MODULE = "mamba_ssm.ops.selective_scan_interface"


def selective_scan(
    x_BLD: Tensor,
    dt_BLD: Tensor,
    A_DN: Tensor,
    B_BLGN: Tensor,
    C_BLGN: Tensor,
    state_BDN: Tensor | None = None,
    kernel: str = "auto",
) -> tuple[Tensor, Tensor]:
    """(y_BLD, last state_BDN) by the implementation that ``kernel`` names.

    Raises:
        WorkbenchError: the asked kernel cannot run here.
    """
    implementation: Callable[..., tuple[Tensor, Tensor]]
    if x_BLD.numel() == 0:
        none = x_BLD.new_zeros(x_BLD.shape[0], *A_DN.shape, dtype=A_DN.dtype)
        return x_BLD, none if state_BDN is None else state_BDN
    facts = {"begun": state_BDN is not None, "small": A_DN.shape[1] <= 256}
    implementation, _ = SELECTIVE_SCAN.pick(kernel, device=x_BLD.device.type, dtype=x_BLD.dtype, **facts)
    with full_precision(x_BLD):
        wide = torch.promote_types(x_BLD.dtype, torch.float32)
        return implementation(x_BLD, dt_BLD.to(wide), A_DN.to(wide), B_BLGN, C_BLGN, state_BDN)


def chunked(
    x_BLD: Tensor, dt_BLD: Tensor, A_DN: Tensor, B_BLGN: Tensor, C_BLGN: Tensor, state_BDN: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Chunks side by side, then the states between them (see `scan_by_chunks`)."""
    wide, (batch, _, channels), (groups, n) = dt_BLD.dtype, x_BLD.shape, B_BLGN.shape[2:]
    shape = (batch, groups, n, channels // groups)
    state = x_BLD.new_zeros(shape, dtype=wide) if state_BDN is None else _to_scan(state_BDN.to(wide), groups)
    x, dt = (z.to(wide).unflatten(-1, (groups, -1)) for z in (x_BLD, dt_BLD))
    decay = A_DN.unflatten(0, (groups, -1)).transpose(1, 2).contiguous()
    y, last, _ = scan_by_chunks(x, dt, decay, B_BLGN.to(wide), C_BLGN.to(wide), state)
    return y.flatten(2).to(x_BLD.dtype), last.transpose(-1, -2).flatten(1, 2)


def recurrence(
    x_BLD: Tensor, dt_BLD: Tensor, A_DN: Tensor, B_BLGN: Tensor, C_BLGN: Tensor, state_BDN: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The formula, position after position, at least in float32: what the others are tested against."""
    wide, share = dt_BLD.dtype, x_BLD.shape[-1] // B_BLGN.shape[2]
    B_BLDN, C_BLDN = (z.to(wide).repeat_interleave(share, dim=2) for z in (B_BLGN, C_BLGN))
    x = x_BLD.to(wide)
    state = torch.zeros_like(B_BLDN[:, 0]) if state_BDN is None else state_BDN.to(wide)
    out = []
    for t in range(x.shape[1]):
        dt_BD1 = dt_BLD[:, t].unsqueeze(-1)
        state = (dt_BD1 * A_DN).exp() * state + dt_BD1 * x[:, t].unsqueeze(-1) * B_BLDN[:, t]
        out.append((state * C_BLDN[:, t]).sum(-1))
    return torch.stack(out, 1).to(x_BLD.dtype), state


def mamba_ssm(
    x_BLD: Tensor, dt_BLD: Tensor, A_DN: Tensor, B_BLGN: Tensor, C_BLGN: Tensor, state_BDN: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The CUDA kernel of the ``mamba-ssm`` package, imported at its first use.

    It begins without a state, takes Δ in x's type, and gives no gradient to the last state, which is detached.
    """
    fn: Any = importlib.import_module(MODULE).selective_scan_fn
    x_BDL, dt_BDL = (z.transpose(1, 2).contiguous() for z in (x_BLD, dt_BLD.to(x_BLD.dtype)))
    B_BGNL, C_BGNL = (z.to(x_BLD.dtype).permute(0, 2, 3, 1).contiguous() for z in (B_BLGN, C_BLGN))
    y_BDL, last_BDN = fn(x_BDL, dt_BDL, A_DN, B_BGNL, C_BGNL, return_last_state=True)
    return y_BDL.transpose(1, 2), last_BDN.detach().to(dt_BLD.dtype)


def _to_scan(state_BDN: Tensor, groups: int) -> Tensor:
    """[B, D, N] → [B, G, N, D / G]: channels innermost."""
    return state_BDN.unflatten(1, (groups, -1)).transpose(-1, -2).contiguous()


def _mamba_ssm_available(device: str, dtype: torch.dtype, begun: bool, small: bool) -> str | None:
    against = absent("mamba-ssm", MODULE, device, dtype)
    if against is None and begun:
        against = "its kernel cannot begin from a state"
    return against or (None if small else "a state has 256 numbers at most")


SELECTIVE_SCAN = Dispatcher(
    "selective scan",
    [
        Candidate("mamba_ssm", mamba_ssm, "the authors' CUDA kernel", _mamba_ssm_available, extra="cuda"),
        Candidate("chunked", chunked, "chunks side by side in PyTorch, on every device"),
        Candidate("recurrence", recurrence, "the formula, position after position"),
    ],
    typical={"begun": False, "small": True},
)
"""The dispatcher of the selective scan."""
