"""Every process holds some rows of each parameter, of its gradient and of its state (PyTorch's FSDP2)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from workbench.core.bounds import Count
from workbench.core.errors import Problem, WorkbenchError
from workbench.processes.base import Loss, Shell, named_weights
from workbench.train.ema import Ema
from workbench.train.optim import STATE
from workbench.train.parallel import Parallel
from workbench.train.pieces import Cut, is_cut, rows_of, whole
from workbench.train.sharing import Shared, Sharing, split_by_block

if TYPE_CHECKING:
    from workbench.core.node import Node

METHODS = ("beside", "commit")
"""What a network may call of a block besides ``forward``."""


@Sharing.register("fsdp")
class Fsdp(Sharing):
    """Parameters, gradients, optimizer state and averages in rows over the processes (Zhao et al. 2023; FSDP2).

    Blocks are gathered one by one while they are at work; head, embeddings and what blocks share are one group, whole
    from the forward pass to the end of the backward pass. Parameters travel and gradients are summed in float32, and
    products take ``train.precision`` as without sharding: the same training to rounding.

    Settings:
        processes: how many train together where nobody says so: in a cell of a grid. Under torchrun its number counts.
        free: a block's parameters after its forward pass, to be gathered again for the backward pass: less memory,
            half as much traffic again.
        exchange: gradients after each micro-batch (a process never keeps a whole gradient), or once an update.
    """

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """An optimizer that needs whole matrices."""
        yield from super().misfits(node, root)
        optimizer: Any = root.find("train.optimizer")
        if optimizer is not None and optimizer.part.whole_matrices:
            yield Problem(
                node.path,
                f"optimizer {optimizer.part.type_name!r} turns whole matrices, and a process of {cls.type_name!r} "
                "holds some rows of each; take parallel ddp, or an optimizer that goes number by number, as adamw",
            )

    def __init__(
        self, processes: Count = 1, free: bool = True, exchange: Literal["each", "once"] = "each"
    ) -> None:
        """Keep the settings; ``wrap`` shards."""
        self.processes, self.free, self.exchange = processes, free, exchange

    def wrap(self, shell: Shell, device: torch.device, parallel: Parallel) -> Shared:
        """See the base."""
        return Shared(shell, device, parallel) if parallel.world == 1 else Sharded(shell, device, parallel, self)

    def rows(self, rows: int, processes: int) -> int:
        """Those of the first process, which has no fewer than any other."""
        first = rows_of(0, processes, rows)
        return first.stop - first.start

    def gathered(self, net: nn.Module, processes: int) -> int:
        """The group of head and embeddings with its gradient, and two blocks (the next one is fetched ahead) with the
        gradient of one; all blocks where they are not freed, and all gradients where they are exchanged once.
        """
        if processes == 1:
            return 0
        own, rest = split_by_block(net)
        blocks = sorted((sum(p.numel() for p in parameters) for parameters in own.values()), reverse=True)
        root = sum(p.numel() for p in rest)
        at_work = sum(blocks[:2]) if self.free else sum(blocks)
        gradients = sum(blocks[:1]) if self.exchange == "each" else sum(blocks)
        return root + at_work + root + gradients


class Sharded(Shared):
    """A network of which each process holds rows, and the first one a whole copy to look at, kept on the host."""

    def __init__(self, shell: Shell, device: torch.device, parallel: Parallel, settings: Fsdp) -> None:
        """Shard block by block, so that no more than one is ever whole on the device.

        Raises:
            WorkbenchError: a parameter has no axis to cut.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
        from torch.utils._pytree import SUPPORTED_NODES, register_dataclass

        for name, parameter in shell.net.named_parameters():
            if not parameter.ndim:
                raise WorkbenchError(f"train.parallel: {name} is a single number, which fsdp cannot cut; take ddp")
        if Loss not in SUPPORTED_NODES:  # FSDP looks for the tensors of an output to know when the backward begins
            register_dataclass(Loss)
        self.parallel, self.device, self.settings = parallel, device, settings
        self.replica = copy.deepcopy(shell).cpu() if parallel.lead else None
        mesh = init_device_mesh(device.type, (parallel.world,))
        own, rest = split_by_block(shell.net)
        for block in own:
            fully_shard(block, mesh=mesh, reshard_after_forward=settings.free, ignored_params=set(rest))
            for method in METHODS:
                register_fsdp_forward_method(block, method)
        fully_shard(shell, mesh=mesh, reshard_after_forward=False)
        self.shell = shell.to(device)
        self.model = shell

    def quiet(self, last: bool) -> AbstractContextManager[None]:
        """No exchange before the last micro-batch, where the settings say so."""
        if self.settings.exchange == "once":
            sharded: Any = self.model
            sharded.set_requires_gradient_sync(last)
        return nullcontext()

    def cut(self) -> Cut:
        """See the base: rows of parameters, and of the state that has a row for each of theirs."""
        held = {name for name, parameter in self.shell.net.named_parameters() if is_cut(parameter)}
        rank, world = self.parallel.rank, self.parallel.world

        def rows(name: str, total: int) -> slice:
            return rows_of(rank, world, total) if name.partition(STATE)[0] in held else slice(0, total)

        return rows

    @contextmanager
    def looking(self, ema: Ema) -> Iterator[Shell | None]:
        """The first process's copy, with the averages that all of them bring together tensor by tensor."""
        own = {} if self.replica is None else named_weights(self.replica.net)
        for name, tensor in (named_weights(self.shell.net) | ema.tensors()).items():
            gathered = whole(tensor)
            if own:
                own[name].copy_(gathered)
        if self.replica is None:
            yield None
            return
        try:
            with torch.no_grad():
                yield self.replica.to(self.device).eval()
        finally:
            self.replica.cpu()
