"""How the two directions of a recurrence share weights and merge.

A recurrence sees what lies behind it. To see both sides a mixer runs two streams, the second from right to left; what
the two share, and how one output comes of them, is a part of its own. Weights and work beside one direction's:

    added            two projections in, two out           twice the weights
    gated            the same, mixed by a gate of the input   and a D × D gate
    tied             one projection in, one out            one direction's weights and little more
    quasiseparable   one projection, shifted scans and a diagonal: no position counted twice
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.recurrence import Carried, Convolution, MakeCore, Way
from workbench.core.bounds import Count
from workbench.core.errors import Problem
from workbench.core.part import Part

if TYPE_CHECKING:
    from workbench.core.spec import Node

STREAMS = 2


class Directions(Part, ABC, kind="directions"):
    """A way for a recurrence to look to both sides.

    ``goes_on``: its module is a `Way`, whose left-to-right stream can go on from a cache, block by block.
    """

    goes_on: ClassVar[bool] = True

    @abstractmethod
    def module(self, dim: int, make: MakeCore) -> nn.Module:
        """h_BLD → h_BLD, called as ``module(h_BLD, pace)``; ``make`` makes the core, ``dim`` is D."""


@Directions.register("added")
class Added(Directions):
    """Two independent directions, added (DiffuMamba; Vim's two branches with weights of their own)."""

    def module(self, dim: int, make: MakeCore) -> nn.Module:
        """The two in-projections are one matrix, and so are the two out-projections: their product is the sum."""
        return _Added(dim, make)


@Directions.register("gated")
class Gated(Directions):
    """Two independent directions, mixed channel by channel: g · forward + (1 − g) · backward with g = σ(W h + b).

    g begins at ½ everywhere.
    """

    def module(self, dim: int, make: MakeCore) -> nn.Module:
        """See the class."""
        return _Gated(dim, make)


@Directions.register("tied")
class Tied(Directions):
    """One projection in and one out for both directions (Caduceus; Schiff et al. 2024), each computed once.

    Convolution, scan and gate norm are each direction's own. The out-projection is linear, so it is applied to the
    sum, where Caduceus applies it twice.
    """

    def module(self, dim: int, make: MakeCore) -> nn.Module:
        """See the class."""
        return _Tied(dim, make)


@Directions.register("quasiseparable")
class QuasiSeparable(Directions):
    """A quasi-separable mixer (Hydra; Hwang et al. 2024): both scans shifted by one, and a diagonal of its own.

    The signal is shared, each direction has its own B, C and Δ; the convolution is centred and comes before both. The
    diagonal is a learned weight a channel, where Hydra also adds a map of the signal to it. The mixer's own ``conv``
    has no effect here.

    Settings:
        conv: odd number of positions that the centred convolution sees.
    """

    goes_on = False

    def __init__(self, conv: Count = 7) -> None:
        """Keep the width."""
        self.conv = conv

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """A convolution without a centre."""
        yield from super().misfits(node, root)
        width = node.settings["conv"]
        if width % 2 == 0:
            yield Problem(f"{node.path}.conv", f"{width} has no centre; take an odd width")

    def module(self, dim: int, make: MakeCore) -> nn.Module:
        """See the class."""
        return _QuasiSeparable(dim, make, self.conv)


def turned(z_BLSX: Tensor) -> Tensor:
    """The second stream from right to left; applied twice it is nothing."""
    first, second = z_BLSX.unbind(2)
    return torch.stack((first, second.flip(1)), 2)


def _paces(pace_BL1: Tensor | None) -> Tensor | None:
    """The factor on steps for both streams, the second's turned where it differs by position."""
    if pace_BL1 is None:
        return None
    both = pace_BL1.unsqueeze(2).expand(-1, -1, STREAMS, -1)
    return turned(both) if both.shape[1] > 1 else both


def _goes_on(cache: Carried | None) -> Carried | None:
    """What the next block knows of this one: nothing of the stream that comes from the right."""
    return None if cache is None else cache.forward_only(STREAMS)


class _Independent(Way):
    """Two directions up to their gates, by one fused projection."""

    def __init__(self, dim: int, make: MakeCore) -> None:
        super().__init__()
        self.core = make(STREAMS)
        self.project = nn.Linear(dim, STREAMS * (self.core.inner + self.core.inputs), bias=False)

    def both(
        self, h_BLD: Tensor, pace: Tensor | None, cache: Carried | None
    ) -> tuple[Tensor, Carried | None]:
        """(what both directions give, gated, [B, L, S, E]; the longer cache)."""
        core, fed = self.core, self.project(h_BLD).unflatten(-1, (STREAMS, -1))
        z_BLSE, u_BLSK = fed.split((core.inner, core.inputs), dim=-1)
        y_BLSE, cache = core.run(turned(u_BLSK), _paces(pace), cache)
        return core.gate(turned(y_BLSE), z_BLSE), _goes_on(cache)


class _Added(_Independent):
    def __init__(self, dim: int, make: MakeCore) -> None:
        super().__init__(dim, make)
        self.out = nn.Linear(STREAMS * self.core.inner, dim, bias=False)

    def run(self, h_BLD: Tensor, pace_BL1: Tensor | None, cache: Carried | None) -> tuple[Tensor, Carried | None]:
        y_BLSE, cache = self.both(h_BLD, pace_BL1, cache)
        return self.out(y_BLSE.flatten(2)), cache


class _Gated(_Independent):
    def __init__(self, dim: int, make: MakeCore) -> None:
        super().__init__(dim, make)
        self.out = nn.ModuleList(nn.Linear(self.core.inner, dim, bias=False) for _ in range(STREAMS))
        self.share = nn.Linear(dim, dim)
        nn.init.zeros_(self.share.weight)
        nn.init.zeros_(self.share.bias)

    def run(self, h_BLD: Tensor, pace_BL1: Tensor | None, cache: Carried | None) -> tuple[Tensor, Carried | None]:
        y_BLSE, cache = self.both(h_BLD, pace_BL1, cache)
        forward, backward = (out(y) for out, y in zip(self.out, y_BLSE.unbind(2), strict=True))
        return torch.lerp(backward, forward, self.share(h_BLD).sigmoid().to(forward.dtype)), cache


class _Tied(Way):
    def __init__(self, dim: int, make: MakeCore) -> None:
        super().__init__()
        self.core = make(STREAMS)
        self.project = nn.Linear(dim, self.core.inner + self.core.inputs, bias=False)
        self.out = nn.Linear(self.core.inner, dim, bias=False)

    def run(self, h_BLD: Tensor, pace_BL1: Tensor | None, cache: Carried | None) -> tuple[Tensor, Carried | None]:
        core, fed = self.core, self.project(h_BLD)
        z_BL1E, u_BL1K = (z.unsqueeze(2) for z in fed.split((core.inner, core.inputs), dim=-1))
        y_BLSE, cache = core.run(turned(u_BL1K.expand(-1, -1, STREAMS, -1)), _paces(pace_BL1), cache)
        return self.out(core.gate(turned(y_BLSE), z_BL1E).sum(2)), _goes_on(cache)


class _QuasiSeparable(nn.Module):
    def __init__(self, dim: int, make: MakeCore, conv: int) -> None:
        super().__init__()
        self.core = make(STREAMS, merged=True)
        core, own = self.core, self.core.inputs - self.core.inner
        self.widths = (core.inner, core.inner, STREAMS * own)
        self.project = nn.Linear(dim, sum(self.widths), bias=False)
        self.conv = Convolution(core.inner + STREAMS * (core.convolved - core.inner), conv, centred=True)
        self.diagonal = nn.Parameter(torch.ones(core.inner))
        self.out = nn.Linear(core.inner, dim, bias=False)

    def forward(self, h_BLD: Tensor, pace: Tensor | None = None) -> Tensor:
        core = self.core
        z_BLE, x_BLE, own = self.project(h_BLD).split(self.widths, dim=-1)
        own_BLSK = own.unflatten(-1, (STREAMS, -1))
        extra = core.convolved - core.inner
        convolved = self.conv(torch.cat((x_BLE, own_BLSK[..., :extra].flatten(2)), dim=-1))
        x_BLE = convolved[..., : core.inner]
        own_BLSK = torch.cat((convolved[..., core.inner :].unflatten(-1, (STREAMS, extra)), own_BLSK[..., extra:]), -1)
        u_BLSK = torch.cat((x_BLE.unsqueeze(2).expand(-1, -1, STREAMS, -1), own_BLSK), dim=-1)
        y_BLSE = core(turned(u_BLSK), _paces(pace))
        # each stream says what lies strictly behind; the position itself is the diagonal's
        behind_BLSE = turned(F.pad(y_BLSE, (0, 0, 0, 0, 1, 0))[:, :-1])
        merged_BLE = torch.addcmul(behind_BLSE.sum(2), x_BLE, self.diagonal.to(x_BLE.dtype))
        return self.out(core.gate(merged_BLE.unsqueeze(2), z_BLE.unsqueeze(2)).squeeze(2))
