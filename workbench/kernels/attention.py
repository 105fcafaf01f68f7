"""Softmax attention: one call, several implementations.

All take queries, keys and values as [B, L, H, d] (keys and values may be longer than queries: T ≥ L) and return
[B, L, H, d]. The last query stands at the last key: query i at key i + T − L. ``causal``: it sees that key and those
before; ``window``: none that is further away than so many positions (0: all).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.kernels.dispatch import Candidate, Dispatcher
from workbench.kernels.precision import full_precision

Kernel = Literal["auto", "sdpa", "matmul", "flex", "xformers", "reference"]
"""Which implementation of attention: "auto" lets the dispatcher choose."""

SMALL = 1 << 25
"""Scores of a whole batch, B·H·L·T, up to which they may be held (64 MiB in bfloat16)."""
SHORT = 512
"""Keys up to which holding them also pays."""


def attention(
    q_BLHd: Tensor,
    k_BTHd: Tensor,
    v_BTHd: Tensor,
    causal: bool = False,
    dropout: float = 0.0,
    kernel: str = "auto",
    window: int = 0,
) -> Tensor:
    """softmax(q kᵀ / √d) v by the implementation that ``kernel`` names, [B, L, H, d].

    ``dropout``: rate at which attention weights are dropped (pass 0 outside training).

    Raises:
        WorkbenchError: the asked kernel cannot run here.
    """
    keys = k_BTHd.shape[1]
    small = keys <= SHORT and q_BLHd.shape[0] * q_BLHd.shape[1] * q_BLHd.shape[2] * keys <= SMALL
    banded = 0 < window < keys - 1
    reach = window * (1 if causal else 2) + 1
    implementation, _ = ATTENTION.pick(
        kernel,
        device=q_BLHd.device.type,
        dtype=q_BLHd.dtype,
        small=small,
        banded=banded,
        sparse=banded and 4 * reach <= keys == q_BLHd.shape[1],
        wide=q_BLHd.shape[3] >= 16,
        dropout=dropout > 0,
        grad=torch.is_grad_enabled(),
    )
    return implementation(q_BLHd, k_BTHd, v_BTHd, causal, dropout, window if banded else 0)


def sdpa(q_BLHd: Tensor, k_BTHd: Tensor, v_BTHd: Tensor, causal: bool, dropout: float, window: int = 0) -> Tensor:
    """PyTorch's scaled_dot_product_attention, which picks flash, efficient, cuDNN or plain kernels itself."""
    queries, keys = q_BLHd.shape[1], k_BTHd.shape[1]
    square = causal and queries == keys and not window
    mask = None
    if window or (causal and 1 < queries != keys):
        mask = visible(queries, keys, causal, window, q_BLHd.device)
    out_BHLd = F.scaled_dot_product_attention(
        q_BLHd.transpose(1, 2),
        k_BTHd.transpose(1, 2),
        v_BTHd.transpose(1, 2),
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=square,
    )
    return out_BHLd.transpose(1, 2)


def matmul(q_BLHd: Tensor, k_BTHd: Tensor, v_BTHd: Tensor, causal: bool, dropout: float, window: int = 0) -> Tensor:
    """Two batched matrix products around a softmax, in the inputs' type; holds the whole matrix of scores.

    On CPUs in bfloat16 it takes a third of SDPA's time at lengths up to a few hundred: SDPA's CPU kernels gain
    nothing from bfloat16, oneDNN's products do.
    """
    batch, queries, heads, width = q_BLHd.shape
    q, k, v = (z.transpose(1, 2).reshape(batch * heads, -1, width) for z in (q_BLHd, k_BTHd, v_BTHd))
    if window or (causal and queries > 1):
        bias = q.new_zeros(()).masked_fill(~visible(queries, k.shape[1], causal, window, q.device), -torch.inf)
        scores_NLT = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=width**-0.5)
    else:
        scores_NLT = torch.baddbmm(q.new_zeros(()), q, k.transpose(1, 2), beta=0, alpha=width**-0.5)
    weights_NLT = F.dropout(scores_NLT.softmax(-1, dtype=q.dtype), dropout, training=dropout > 0)
    return (weights_NLT @ v).unflatten(0, (batch, heads)).transpose(1, 2)


def reference(q_BLHd: Tensor, k_BTHd: Tensor, v_BTHd: Tensor, causal: bool, dropout: float, window: int = 0) -> Tensor:
    """The formula written out, at least in float32 (float64 inputs stay so): what the others are tested against."""
    wide = torch.promote_types(q_BLHd.dtype, torch.float32)
    q, k, v = (z.to(wide).transpose(1, 2) for z in (q_BLHd, k_BTHd, v_BTHd))
    with full_precision(q):
        scores_BHLT = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if causal or window:
            seen_LT = visible(q.shape[2], k.shape[2], causal, window, q.device)
            scores_BHLT = scores_BHLT.masked_fill(~seen_LT, -torch.inf)
        weights_BHLT = F.dropout(scores_BHLT.softmax(-1), dropout, training=dropout > 0)
        return (weights_BHLT @ v).transpose(1, 2).to(q_BLHd.dtype)


def flex(q_BLHd: Tensor, k_BTHd: Tensor, v_BTHd: Tensor, causal: bool, dropout: float, window: int = 0) -> Tensor:
    """PyTorch's FlexAttention, compiled: blocks of keys that no query of a block sees are skipped.

    It stands in a module of its own: importing it imports the compiler, which takes seconds.
    """
    from workbench.kernels.flex import attend

    return attend(q_BLHd, k_BTHd, v_BTHd, causal, window)


def xformers(q_BLHd: Tensor, k_BTHd: Tensor, v_BTHd: Tensor, causal: bool, dropout: float, window: int = 0) -> Tensor:
    """xformers' memory_efficient_attention (CUDA only), imported at its first use."""
    fmha = _fmha()
    bias = fmha.attn_bias.LowerTriangularFromBottomRightMask() if causal else None
    return fmha.memory_efficient_attention(q_BLHd, k_BTHd, v_BTHd, attn_bias=bias, p=dropout)


def visible(queries: int, keys: int, causal: bool, window: int, device: torch.device) -> Tensor:
    """[L, T] bool: which keys a query sees."""
    ones_LT = torch.ones(queries, keys, dtype=torch.bool, device=device)
    here = keys - queries
    seen_LT = ones_LT.tril(here) if causal else ones_LT.tril(here + window) if window else ones_LT
    return seen_LT.triu(here - window) if window else seen_LT


@functools.cache
def _fmha() -> Any:
    """xformers' attention module; its warning about missing compiled extensions is silenced (PyTorch's are used)."""
    logging.getLogger("xformers").setLevel(logging.ERROR)
    return importlib.import_module("xformers.ops.fmha")


def _matmul_advisable(device: str, dtype: torch.dtype, small: bool, **where: Any) -> str | None:
    if device != "cpu" or dtype != torch.bfloat16:
        return "pays in bfloat16 on a CPU only"
    return None if small else "its scores would be too large to hold"


def _flex_available(
    device: str, dropout: bool = False, grad: bool = True, wide: bool = True, **where: Any
) -> str | None:
    if device == "meta":
        return "it cannot be costed"
    if device == "cpu" and grad:
        return "it has no backward pass on a CPU"
    if device == "cuda" and not wide:
        return "its heads are 16 wide at least"
    return "it drops no weights" if dropout else None


def _flex_advisable(device: str, sparse: bool = False, **where: Any) -> str | None:
    if device != "cuda":
        return "pays on CUDA only"
    return None if sparse else "pays for whole sequences that see a quarter of their keys at most"


def _xformers_available(device: str, banded: bool = False, **where: Any) -> str | None:
    if importlib.util.find_spec("xformers") is None:
        return "xformers is not installed"
    if device != "cuda":
        return f"it computes on CUDA only, not on {device}"
    return "it is not used for windows here" if banded else None


ATTENTION = Dispatcher(
    "attention",
    [
        Candidate("matmul", matmul, "fastest in bfloat16 on a CPU", advisable=_matmul_advisable),
        Candidate("flex", flex, "skips the keys outside of the window", _flex_available, _flex_advisable),
        Candidate("sdpa", sdpa, "PyTorch's own fused kernels, on every device"),
        Candidate("xformers", xformers, "memory-efficient attention", _xformers_available, extra="cuda"),
        Candidate("reference", reference, "plain PyTorch"),
    ],
    typical={"small": False, "banded": False, "sparse": False, "dropout": False, "grad": True, "wide": True},
)
"""The dispatcher of attention. ``xformers`` stands behind ``sdpa``: it runs only where it is asked for by name."""
