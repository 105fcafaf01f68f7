"""Where autocast must not reach."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor


def full_precision(like: Tensor) -> AbstractContextManager[None]:
    """A region without autocast on the device of ``like`` (devices that know no autocast, as meta, have none)."""
    kind = like.device.type
    if not torch.amp.is_autocast_available(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)


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
