"""What of a network each process of a training holds: the contract, and a network that is whole.

A part of kind ``parallel`` puts a shell on its device, among the processes; what it gives is a `Shared`, all that the
trainer knows of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import nn

from workbench.core.errors import Problem
from workbench.core.part import Part
from workbench.processes.base import Shell
from workbench.train.ema import Ema
from workbench.train.parallel import Parallel
from workbench.train.pieces import Cut, every_row

if TYPE_CHECKING:
    from workbench.core.node import Node


class Shared:
    """A shell on its device; this one whole and alone. ``model`` is what losses call, ``shell`` has the weights."""

    def __init__(self, shell: Shell, device: torch.device, parallel: Parallel) -> None:
        """Put the shell on ``device``."""
        self.parallel = parallel
        self.shell: Shell = shell.to(device)
        self.model: nn.Module = self.shell

    def quiet(self, last: bool) -> AbstractContextManager[None]:
        """Around the forward and backward pass of a micro-batch, the ``last`` one of an update or another."""
        return nullcontext()

    def cut(self) -> Cut:
        """The rows of named tensors, optimizer state among them, that this process holds."""
        return every_row

    @contextmanager
    def looking(self, ema: Ema) -> Iterator[Shell | None]:
        """A shell with the averaged weights in evaluation mode, without gradient; None where another process looks.

        Every process enters; all is undone at the end, whatever happens.
        """
        if not self.parallel.lead:
            yield None
            return
        self.shell.eval()
        try:
            with ema.swapped(), torch.no_grad():
                yield self.shell
        finally:
            self.shell.train()


class Sharing(Part, ABC, kind="parallel"):
    """How several processes share a training. Alone, each of these is the same as none.

    Settings:
        processes: how many train together where nobody says so: in a cell of a grid. Under torchrun its number counts.
    """

    processes: int

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """A batch that the processes cannot share equally."""
        yield from super().misfits(node, root)
        train = root.find("train")
        if train is not None:
            batch, accumulate = train.settings["batch"], train.settings["accumulate"]
            processes = node.settings["processes"]
            if batch % (processes * accumulate) and not batch % accumulate:
                yield Problem(
                    f"{node.path}.processes",
                    f"{processes} processes × accumulate {accumulate} cannot share a batch of {batch} equally",
                )

    def require(self, processes: int, precision: str, why: str) -> None:
        """Check that so many processes can train with products in ``precision``, chosen for the reason ``why``.

        Raises:
            WorkbenchError: they cannot.
        """

    @abstractmethod
    def wrap(self, shell: Shell, device: torch.device, parallel: Parallel) -> Shared:
        """The shell on its device, among the processes.

        Raises:
            WorkbenchError: the network cannot be shared so.
        """

    @abstractmethod
    def rows(self, rows: int, processes: int) -> int:
        """The most rows that a process holds of a parameter of ``rows``, its gradient and its state alike."""

    def lowered(self, net: nn.Module, processes: int) -> frozenset[str]:
        """Names of parameters that blocks find in bfloat16, whatever the type of their rows."""
        return frozenset()

    @abstractmethod
    def gathered(self, net: nn.Module, processes: int) -> int:
        """Bytes that a process holds for a while besides its rows: parameters and gradients at work."""


def blocks_of(net: nn.Module) -> list[nn.Module]:
    """The blocks of a backbone that has ``blocks``; none of others."""
    blocks = getattr(net, "blocks", None)
    return list(blocks) if isinstance(blocks, nn.ModuleList) else []


def split_by_block(net: nn.Module) -> tuple[Mapping[nn.Module, list[nn.Parameter]], list[nn.Parameter]]:
    """(parameters that one block alone uses, by block; all others), each parameter once."""
    uses: dict[nn.Parameter, list[nn.Module]] = {parameter: [] for parameter in net.parameters()}
    blocks = dict.fromkeys(blocks_of(net))
    inside = {id(parameter) for block in blocks for parameter in block.parameters()}
    for block in blocks:
        for parameter in block.parameters():
            uses[parameter].append(block)
    for module in net.modules():  # a weight that is tied from outside the blocks is not theirs alone
        if not any(module is inner for block in blocks for inner in block.modules()):
            for parameter in module.parameters(recurse=False):
                if id(parameter) in inside:
                    uses[parameter].append(module)
    own = {block: [p for p in block.parameters() if len(uses[p]) == 1] for block in blocks}
    return own, [parameter for parameter, users in uses.items() if len(users) != 1]
