"""Every process holds some rows of each parameter, of its gradient and of its state (PyTorch's FSDP2)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

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

LOW = "bfloat16"


class Gathered(Protocol):
    """What is asked of a network whose blocks are gathered in bfloat16."""

    def products(self) -> set[str]:
        """Names of parameters that nothing reads but products which autocast casts them for."""
        ...


@Sharing.register("fsdp")
class Fsdp(Sharing):
    """Parameters, gradients, optimizer state and averages in rows over the processes (Zhao et al. 2023; FSDP2).

    Blocks are gathered one by one while they are at work; head, embeddings and what blocks share are one group, whole
    from the forward pass to the end of the backward pass. Gradients are summed in float32, and products take
    ``train.precision`` as without sharding: the same training to rounding.

    Settings:
        processes: how many train together where nobody says so: in a cell of a grid. Under torchrun its number counts.
        free: a block's parameters after its forward pass, to be gathered again for the backward pass: less memory,
            half as much traffic again.
        exchange: gradients after each micro-batch (a process never keeps a whole gradient), or once an update.
        param_dtype: type in which blocks are gathered. bfloat16 is half the traffic and the memory, and the same
            numbers: only what products cast anyway (`Backbone.products`) is gathered so, and the rest of the blocks
            (norms, what σ passes through) joins the group of the head in float32, as rows and states stay. It needs
            products in bf16.
    """

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """An optimizer that needs whole matrices; parameters in a type that products do not take."""
        yield from super().misfits(node, root)
        train = root.find("train")
        if train is not None and node.settings["param_dtype"] == LOW and train.settings["precision"] == "fp32":
            yield Problem(f"{node.path}.param_dtype", _unfit("train.precision is fp32"))
        if train is not None and node.settings["param_dtype"] == LOW and train.settings["float8"] != "none":
            yield Problem(
                f"{node.path}.param_dtype",
                f"weights that come in {LOW} would be rounded twice under train.float8, to another training than one "
                "process's; leave param_dtype float32",
            )
        optimizer: Any = root.find("train.optimizer")
        if optimizer is not None and optimizer.part.whole_matrices:
            yield Problem(
                node.path,
                f"optimizer {optimizer.part.type_name!r} needs whole matrices, and a process of {cls.type_name!r} "
                "holds some rows of each; take parallel ddp, or an optimizer that does not, as adamw or muon",
            )

    def __init__(
        self,
        processes: Count = 1,
        free: bool = True,
        exchange: Literal["each", "once"] = "each",
        param_dtype: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        """Keep the settings; ``wrap`` shards."""
        self.processes, self.free, self.exchange, self.param_dtype = processes, free, exchange, param_dtype

    def require(self, processes: int, precision: str, why: str) -> None:
        """See the base: parameters in bfloat16 are for products in it."""
        if processes > 1 and self.param_dtype == LOW and precision != "bf16":
            raise WorkbenchError(f"train.parallel.param_dtype: {_unfit(f'products are {precision} here ({why})')}")

    def wrap(self, shell: Shell, device: torch.device, parallel: Parallel) -> Shared:
        """See the base."""
        return Shared(shell, device, parallel) if parallel.world == 1 else Sharded(shell, device, parallel, self)

    def rows(self, rows: int, processes: int) -> int:
        """Those of the first process, which has no fewer than any other."""
        first = rows_of(0, processes, rows)
        return first.stop - first.start

    def gathered(self, net: nn.Module, processes: int) -> int:
        """The group of head and embeddings with its gradient, and two blocks (the next one is fetched ahead) with the
        gradient of one and the float32 copy in which another one's is on its way; all blocks where they are not freed,
        and all gradients where they are exchanged once (which takes two micro-batches).
        """
        if processes == 1:
            return 0
        groups, rest = self.groups(net)
        width = 2 if self.param_dtype == LOW else 4
        blocks = sorted((sum(p.numel() for p in parameters) for parameters in groups.values()), reverse=True)
        root, largest = sum(p.numel() for p in rest), sum(blocks[:1])
        at_work = width * (sum(blocks[:2]) if self.free else sum(blocks))
        gradients = width * largest if self.exchange == "each" else 4 * sum(blocks)
        return 2 * 4 * root + at_work + gradients + 4 * largest

    def lowered(self, net: nn.Module, processes: int) -> frozenset[str]:
        """See the base: what blocks alone use of `products`."""
        if self.param_dtype != LOW or processes == 1:
            return frozenset()
        low = {parameter for parameters in self.groups(net)[0].values() for parameter in parameters}
        return frozenset(name for name, parameter in net.named_parameters() if parameter in low)

    def groups(self, net: nn.Module) -> tuple[Mapping[nn.Module, list[nn.Parameter]], list[nn.Parameter]]:
        """(parameters that are gathered with each block, those that are gathered with the head)."""
        own, rest = split_by_block(net)
        if self.param_dtype != LOW:
            return own, rest
        named, casts = dict(net.named_parameters()), cast("Gathered", net).products()
        low = {named[name] for name in casts if named[name].dtype == torch.float32}
        kept = [parameter for parameters in own.values() for parameter in parameters if parameter not in low]
        return {block: [p for p in parameters if p in low] for block, parameters in own.items()}, rest + kept


class Sharded(Shared):
    """A network of which each process holds rows, and the first one a whole copy to look at, kept on the host."""

    def __init__(self, shell: Shell, device: torch.device, parallel: Parallel, settings: Fsdp) -> None:
        """Shard block by block, so that no more than one is ever whole on the device.

        Raises:
            WorkbenchError: a parameter has no axis to cut.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
        from torch.utils._pytree import SUPPORTED_NODES, register_dataclass

        for name, parameter in shell.net.named_parameters():
            if not parameter.ndim:
                raise WorkbenchError(f"train.parallel: {name} is a single number, which fsdp cannot cut; take ddp")
        if Loss not in SUPPORTED_NODES:  # FSDP looks for the tensors of an output to know when the backward begins
            register_dataclass(Loss)
        self.parallel, self.device, self.settings = parallel, device, settings
        self.replica = copy.deepcopy(shell).cpu() if parallel.lead else None
        mesh = init_device_mesh(device.type, (parallel.world,))
        groups, _ = settings.groups(shell.net)
        # The whole first, for what FSDP leaves to it: from the top it does not look into modules that are sharded.
        with_blocks = {parameter for parameters in groups.values() for parameter in parameters}
        fully_shard(shell, mesh=mesh, reshard_after_forward=False, ignored_params=with_blocks)
        low = settings.param_dtype == LOW
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if low else MixedPrecisionPolicy()
        policy = replace(policy, cast_forward_inputs=False)  # residual stream and σ stay in float32
        for block, parameters in groups.items():
            others = set(block.parameters()) - set(parameters)
            fully_shard(
                block, mesh=mesh, reshard_after_forward=settings.free, mp_policy=policy, ignored_params=others
            )
            for method in METHODS:
                register_fsdp_forward_method(block, method)
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


def _unfit(found: str) -> str:
    return f"{LOW} is for products in bf16, and {found}; set train.precision: bf16, or leave param_dtype float32"
