"""Weights put into a network in place, whole or the rows that this process holds; and whether they are numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from workbench.core.errors import WorkbenchError
from workbench.processes.base import named_weights
from workbench.train.pieces import local


class CheckpointError(WorkbenchError):
    """A checkpoint that is missing, damaged, or of another recipe or network."""


@torch.no_grad()
def copy_into(net: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy weights into a network in place.

    Raises:
        CheckpointError: names or shapes are not this network's.
    """
    own = {name: local(tensor) for name, tensor in named_weights(net).items()}
    for name in sorted(own.keys() ^ tensors.keys()):
        where = "the checkpoint" if name in own else "the network"
        raise CheckpointError(f"{name} is not in {where}: the checkpoint is of another network")
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            raise CheckpointError(
                f"{name} has shape {tuple(tensors[name].shape)} in the checkpoint, {tuple(tensor.shape)} in the network"
            )
        tensor.copy_(tensors[name])


@torch.no_grad()
def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all floating-point tensors are finite, as far as this process holds them."""
    held = [local(t.detach()) for t in tensors if t.is_floating_point()]
    floating = [t for t in held if t.numel()]
    if not floating:
        return True
    # The largest magnitude carries NaN and infinity along, and cannot overflow as a sum of squares can.
    return bool(torch.stack([n.float() for n in torch._foreach_norm(floating, float("inf"))]).isfinite().all())
