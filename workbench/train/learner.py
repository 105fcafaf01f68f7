"""The weights and what moves them: optimizers, their rates, the average; and the state of it all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from workbench.processes.base import named_weights
from workbench.train.checkpoint import Checkpoint
from workbench.train.ema import Ema
from workbench.train.optim import Trainable, load_state, set_factor, state_tensors
from workbench.train.pieces import whole
from workbench.train.section import Train
from workbench.train.sharing import blocks_of
from workbench.train.weights import all_finite, copy_into

GRAPHS_OF_A_BLOCK = 64
"""Graphs that the code of a block may have before further ones run as they are: kinds of blocks in a hybrid, with a
gradient and without, alone and beside a cache, for each shape of a batch. PyTorch's 8 are soon used up."""


class Learner:
    """A network with its optimizers and its averaged weights."""

    def __init__(self, net: nn.Module, settings: Train) -> None:
        """``net``: a backbone, already on its device."""
        self.net = net
        self._trainable = cast("Trainable", net)
        self.settings = settings
        self.parameters = [p for p in net.parameters() if p.requires_grad]
        self.optimizers = settings.optimizer.build(self._trainable)
        self.ema = Ema(net, settings.ema)

    def rates(self, step: int) -> list[float]:
        """The learning rate of every group at update number ``step``, the first optimizer's first."""
        factor = self.settings.schedule.factor(step, self.settings.steps)
        return [float(group["rate"]) * factor for o in self.optimizers for group in o.param_groups]

    def clip(self) -> Tensor:
        """The norm of the whole gradient, over all processes' rows, which is clipped where the recipe says so."""
        if self.settings.clip:
            return whole(torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip, foreach=True))
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        return whole(torch.nn.utils.get_total_norm(gradients, foreach=True))

    def update(self, step: int) -> None:
        """Move the weights along their gradients as update number ``step``, and the average after them."""
        set_factor(self.optimizers, self.settings.schedule.factor(step, self.settings.steps))
        for optimizer in self.optimizers:
            optimizer.step()
        self.ema.update()

    def weights(self, averaged: bool) -> dict[str, Tensor]:
        """The weights by name, or the averages where there are any (the very tensors, not copies).

        Whole ones: where they are cut every process calls it, and gets copies.
        """
        held = named_weights(self.net) | (self.ema.tensors() if averaged else {})
        return {name: whole(tensor) for name, tensor in held.items()}

    def forget_gradients(self) -> None:
        """Ready for the next update."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    @property
    def finite(self) -> bool:
        """Whether all weights held here are numbers: else a checkpoint must not be written."""
        return all_finite(self.parameters)

    def capture(self) -> tuple[dict[str, Mapping[str, Tensor]], dict[str, Any]]:
        """(tensors by role and name, numbers) for a checkpoint."""
        optimizer, numbers = state_tensors(self.optimizers, self._trainable)
        roles: dict[str, Mapping[str, Tensor]] = {"model": named_weights(self.net), "optimizer": optimizer}
        if self.settings.ema:
            roles["ema"] = self.ema.tensors()
        return roles, {"optimizer": numbers, "ema_updates": self.ema.updates}

    def restore(self, found: Checkpoint) -> None:
        """Take up what ``capture`` gave; of tensors that are cut, the rows held here.

        Raises:
            WorkbenchError: it is of another network.
        """
        copy_into(self.net, found.tensors["model"])
        load_state(self.optimizers, self._trainable, found.tensors["optimizer"], found.state["optimizer"])
        self.ema.load(found.tensors.get("ema", {}), found.state["ema_updates"])


def compiled_graphs() -> int:
    """How many graphs torch.compile has made in this process: where it still grows after the first updates, something
    is compiled again and again (a shape that varies), which takes seconds each time."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def compile_blocks(net: nn.Module, **how: Any) -> None:
    """Compile each block of a backbone that has ``blocks``, in place: one graph serves all that are alike.

    ``how``: as `torch.compile` takes it.
    """
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, GRAPHS_OF_A_BLOCK)
    for block in blocks_of(net):
        block.compile(**how)
