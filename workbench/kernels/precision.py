"""Where autocast must not reach."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn


def full_precision(like: Tensor) -> AbstractContextManager[None]:
    """A region without autocast on the device of ``like`` (devices that know no autocast, as meta, have none)."""
    kind = like.device.type
    if not torch.amp.is_autocast_available(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)


@contextmanager
def cast_once(module: nn.Module) -> Iterator[None]:
    """No gradients; and within autocast a module's weights are cast at their first use, not at every one.

    autocast keeps a cast weight until it is left, but only of weights that require a gradient. Frozen ones it casts
    again at every product: for a few rows (a token from a cache) that is most of the product's cost. The numbers are
    the same.
    """
    frozen = [weight for weight in module.parameters() if not weight.requires_grad and weight.is_floating_point()]
    with torch.no_grad():
        for weight in frozen:
            weight.requires_grad_(True)
        try:
            yield
        finally:
            for weight in frozen:
                weight.requires_grad_(False)


@contextmanager
def relaxed_products(low: bool) -> Iterator[None]:
    """float32 matrix products on a CPU may round their *inputs* to bfloat16 if ``low``; sums and outputs stay float32.

    Where the CPU has tile instructions (AMX) they do, as tensor cores do on CUDA; elsewhere oneDNN computes them in
    float32 all the same, and on AMD at up to twice the speed of the library that torch asks otherwise. Not for
    outputs that must keep more than bfloat16 inputs give: outside of autocast nothing is relaxed.
    """
    settings = torch.backends.mkldnn.matmul
    before = settings.fp32_precision
    if low:
        settings.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.fp32_precision = before
