"""Every process holds the whole network; gradients are averaged."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from workbench.core.bounds import Count
from workbench.processes.base import Shell
from workbench.train.parallel import Parallel
from workbench.train.sharing import Shared, Sharing


@Sharing.register("ddp")
class Ddp(Sharing):
    """The whole network in each process, gradients averaged in the backward pass (Li et al. 2020, PyTorch DDP).

    Settings:
        processes: how many train together where nobody says so: in a cell of a grid. Under torchrun its number counts.
    """

    def __init__(self, processes: Count = 1) -> None:
        """``processes`` of a cell."""
        self.processes = processes

    def wrap(self, shell: Shell, device: torch.device, parallel: Parallel) -> Shared:
        """See the base."""
        return Shared(shell, device, parallel) if parallel.world == 1 else Averaged(shell, device, parallel)

    def rows(self, rows: int, processes: int) -> int:
        """All of them."""
        return rows

    def gathered(self, net: nn.Module, processes: int) -> int:
        """None: what is exchanged are the gradients themselves, in place."""
        return 0


class Averaged(Shared):
    """A whole network whose gradients are averaged over processes."""

    def __init__(self, shell: Shell, device: torch.device, parallel: Parallel) -> None:
        """In DDP."""
        super().__init__(shell, device, parallel)
        self.wrapped = DistributedDataParallel(self.shell, broadcast_buffers=False, gradient_as_bucket_view=True)
        self.model = self.wrapped

    def quiet(self, last: bool) -> AbstractContextManager[None]:
        """No exchange of gradients before the last micro-batch."""
        return nullcontext() if last else self.wrapped.no_sync()
