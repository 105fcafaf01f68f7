"""A network read otherwise than by a plain call: what a process hands to the process within."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from backbones.base import Backbone

Read = Callable[["Backbone", Tensor, "Tensor | None"], Tensor]
"""(network, ids x_NL, σ) → features h_NLD: how a network reads what the process within hands it."""


class Through(nn.Module):
    """A shell whose network is read in another way. Every use of it still goes through the shell's own forward."""

    def __init__(self, shell: nn.Module, read: Read, together: bool = False) -> None:
        """``read``: how the network reads; ``together``: a whole batch in its order, never some of its texts."""
        super().__init__()
        self.shell, self.read, self.together = shell, read, together

    def forward(self, f: Callable[..., Any], *args: Any) -> Any:
        """Apply ``f`` to the network as it is read here."""
        return self.shell(_through, f, self.read, *args)


def _through(net: Backbone, f: Callable[..., Any], read: Read, *args: Any) -> Any:
    return f(_Reader(net, read), *args)


class _Reader:
    """A network to the process within: features as they are read, and the head."""

    def __init__(self, net: Backbone, read: Read) -> None:
        self.net, self.read, self.head = net, read, net.head

    def __call__(self, x_NS: Tensor, sigma_N: Tensor | None) -> Tensor:
        return self.read(self.net, x_NS, sigma_N)
