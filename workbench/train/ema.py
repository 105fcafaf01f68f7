"""An exponential moving average of the weights, kept and swapped in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from workbench.core.errors import WorkbenchError
from workbench.train.pieces import cut_like, local


class Ema:
    """The average θ̄ ← d θ̄ + (1 − d) θ with d = min(decay, (1 + n) / (10 + n)) at the n-th update, n ≥ 1.

    The warm-up of the decay is SEDD's (and TensorFlow's): early averages forget the initial weights. ``decay`` 0
    keeps no average, and ``swapped`` then changes nothing. Of parameters that are cut, the rows here are averaged.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        """Start from the present weights of ``net``'s trainable parameters."""
        self.decay = decay
        self.updates = 0
        named = [(name, p) for name, p in net.named_parameters() if p.requires_grad] if decay else []
        self.names = [name for name, _ in named]
        self._parameters = [p for _, p in named]
        self._live: list[Tensor] = [local(p) for p in self._parameters]
        self._shadow: list[Tensor] = [p.detach().clone() for p in self._live]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after an optimizer's step."""
        if not self._live:
            return
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self._shadow, self._live, 1 - decay)

    def tensors(self) -> dict[str, Tensor]:
        """The averages by parameter name (the very tensors, not copies), cut as the parameters are."""
        held = zip(self._parameters, self._shadow, strict=True)
        return dict(zip(self.names, (cut_like(p, shadow) for p, shadow in held), strict=True))

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        """Take averages from a checkpoint: the rows that are held here.

        Raises:
            WorkbenchError: the names are not those of this network's parameters.
        """
        if set(tensors) != set(self.names):
            raise WorkbenchError("the checkpoint's averaged weights are of another network; check the recipe")
        for name, shadow in zip(self.names, self._shadow, strict=True):
            shadow.copy_(tensors[name])
        self.updates = updates

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Put the averages in the network's place for a while; the weights come back whatever happens inside.

        In place, so that wrappers, compiled code and optimizers keep the tensors they hold.
        """
        if not self._live:
            yield
            return
        with torch.no_grad():
            kept = [p.detach().clone() for p in self._live]
        try:
            with torch.no_grad():
                torch._foreach_copy_(self._live, self._shadow)
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._live, kept)
