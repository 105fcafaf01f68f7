"""What a process of a training holds in memory, by arithmetic: nothing is allocated (build the network on meta)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from workbench.train.optim import Optimizer, Trainable
from workbench.train.sharing import Sharing


@dataclass(frozen=True)
class Footprint:
    """Bytes that the first process holds, which has no fewer rows than any other.

    ``gathered``: what it holds for a while besides its rows; the rest stays from update to update (gradients from
    backward pass to step).
    """

    parameters: int
    gradients: int
    optimizer: int
    average: int
    gathered: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.parameters + self.gradients + self.optimizer + self.average + self.gathered


def footprint(
    net: nn.Module, trainable: Trainable, optimizer: Optimizer, ema: bool, sharing: Sharing, processes: int
) -> Footprint:
    """The footprint of ``net`` (as optimizers see it: ``trainable``) in each of ``processes``."""
    sizes = {name: _held(p, sharing, processes) for name, p in net.named_parameters()}
    trained = {name: sizes[name] for name, p in net.named_parameters() if p.requires_grad}
    one = max((p.element_size() for p in net.parameters()), default=4)
    state = optimizer.state(trainable)
    kept = sum(state[name].bytes(size, one) for name, size in trained.items())
    numbers = sum(trained.values())
    cut = sharing.rows(processes, processes) < processes
    stepping = optimizer.gathered(trainable) if cut else 0  # after the backward pass, when nothing else is gathered
    return Footprint(
        parameters=one * sum(sizes.values()),
        gradients=one * numbers,
        optimizer=kept,
        average=one * numbers * ema,
        gathered=max(sharing.gathered(net, processes), stepping),
    )


def _held(parameter: nn.Parameter, sharing: Sharing, processes: int) -> int:
    rows = parameter.shape[0] if parameter.ndim else 1
    return sharing.rows(rows, processes) * (parameter.numel() // rows if rows else 0)
