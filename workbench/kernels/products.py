"""The product of features and head in float32 on a CPU: by the library that torch asks, or by oneDNN.

Both are full float32 (a test holds them against float64). torch asks MKL for float32 products, which is slower than
oneDNN on processors of AMD.
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import Tensor, nn

from workbench.kernels.dispatch import Candidate, Dispatcher


@functools.cache
def vendor() -> str:
    """Who made this processor, as Linux says it; "" where nothing tells."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8", errors="replace").splitlines() if facts.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("vendor_id")), "")


def _onednn(h_RD: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(h_RD, weight, bias, "none", [], "")  # type: ignore[no-any-return]


def _callable(device: str, dtype: torch.dtype) -> str | None:
    if device != "cpu":
        return f"it computes on a CPU, not on {device}"
    if dtype != torch.float32:
        return f"here it is asked for float32 alone, not for {str(dtype).removeprefix('torch.')}"
    if not torch.backends.mkldnn.is_available() or getattr(torch.ops.mkldnn, "_linear_pointwise", None) is None:
        return "this build of torch does not offer it"
    return None


def _faster(device: str, dtype: torch.dtype) -> str | None:
    return None if vendor() == "AuthenticAMD" else "nothing speaks against MKL on a processor that is not AMD's"


PRODUCT = Dispatcher(
    "head product without gradient",
    [
        Candidate(
            "onednn", _onednn, "faster than MKL on AMD at a large vocabulary, the same float32", _callable, _faster
        ),
        Candidate("torch", nn.functional.linear, "whatever torch asks on this device"),
    ],
)


def linear(h_RD: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """h Wᵀ + b in the type of ``weight``; by the picked library where no gradient is recorded, else by torch."""
    if torch.compiler.is_compiling() or (torch.is_grad_enabled() and (weight.requires_grad or h_RD.requires_grad)):
        return nn.functional.linear(h_RD, weight, bias)
    product, _ = PRODUCT.pick(device=h_RD.device.type, dtype=weight.dtype)
    return product(h_RD, weight, bias)  # type: ignore[no-any-return]
