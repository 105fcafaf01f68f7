"""Blocks that keep nothing of their forward pass but its inputs, and compute it again in the backward pass.

Chen et al. 2016 ("Training deep nets with sublinear memory cost"), by PyTorch's non-reentrant checkpoints.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from workbench.train.sharing import blocks_of


def recompute_blocks(net: nn.Module, every: int) -> int:
    """Have every ``every``-th block of ``net`` computed again (0: none), in place; how many they are.

    Values and gradients are the same to the digit, dropout included.
    """
    blocks = list(dict.fromkeys(blocks_of(net)))[::every] if every else []
    for block in blocks:
        block.__class__ = _again(type(block))  # no closure: copies of the network compute with their own weights
    return len(blocks)


@functools.cache
def _again(kind: type[nn.Module]) -> type[nn.Module]:
    """``kind`` with a forward pass that is computed again where a gradient is wanted."""

    def forward(self: nn.Module, *args: Any, **named: Any) -> Any:
        own = functools.partial(kind.forward, self)
        return checkpoint(own, *args, use_reentrant=False, **named) if torch.is_grad_enabled() else own(*args, **named)

    return type(kind.__name__, (kind,), {"forward": forward, "__doc__": kind.__doc__, "__module__": kind.__module__})
