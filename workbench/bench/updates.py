"""A training update as the workbench makes it, less what stands around it (log, checkpoints, prefetching)."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from workbench.bench.base import Absent, Meter
from workbench.core.rng import Rng
from workbench.kernels.row_passes import triton_available
from workbench.processes.base import Process, Shell
from workbench.train.ddp import Ddp
from workbench.train.learner import Learner, compile_blocks
from workbench.train.optim import AdamW, Optimizer
from workbench.train.schedules import Warmup
from workbench.train.section import Train

RATE = 3e-4


def update_of(
    net: nn.Module,
    process: Process,
    batch: int,
    meter: Meter,
    low: bool,
    ema: float,
    optimizer: Optimizer | None = None,
) -> Callable[[], Tensor]:
    """An update on ``batch`` random blocks: prepare, loss, backward, clip, step, average; ``low``: autocast. It gives
    the number of rows that its loss reads.

    ``optimizer``: fused AdamW where left out.
    """
    by = optimizer or AdamW(lr=RATE)
    settings = Train(steps=1 << 30, batch=batch, optimizer=by, schedule=Warmup(0), parallel=Ddp(), ema=ema)
    learner, shell, device = Learner(net, settings), Shell(net), torch.device(meter.device)
    x0_BL = np.random.default_rng(0).integers(0, process.outputs - 1, (batch, process.length))
    numbers, rng = itertools.count(), Rng(1)

    def update() -> Tensor:
        step = next(numbers)
        noised = process.prepare(x0_BL, np.arange(batch) + step * batch, step, rng)
        with meter.autocast(low):
            loss = process.loss(shell, (noised.pin() if device.type == "cuda" else noised).to(device))
        loss.nats.backward()  # type: ignore[no-untyped-call]
        learner.clip()
        learner.update(step)
        learner.forget_gradients()
        return noised.weight_R.count_nonzero()

    return update


def compiled(net: nn.Module, device: str, process: Process | None = None) -> None:
    """Compile blocks, and a process's chunks of rows, as `train.compile` does.

    Raises:
        Absent: they cannot be compiled here.
    """
    if reason := triton_available(device):
        raise Absent(f"blocks are compiled by Triton: {reason}")
    compile_blocks(net)
    if process is not None:
        process.compile_chunks()
