"""What state-space mixers share: a core that scans, and the mixer around it, one way or both.

A *core* is the part of a mixer that looks along the sequence: short convolutions and the scan of S *streams* side by
side, all of them read left to right; whoever runs a stream from right to left turns it before and after.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.base import BlockMixer, linear_flops
from workbench.core.errors import WorkbenchError
from workbench.kernels.conv import depthwise
from workbench.kernels.precision import full_precision


class Convolution(nn.Module):
    """A depthwise convolution with bias, then SiLU, on ``channels`` channels; causal or centred."""

    def __init__(self, channels: int, width: int, centred: bool = False) -> None:
        """``width``: positions that one output sees."""
        super().__init__()
        self.left = width // 2 if centred else width - 1
        # three axes, as nn.Conv1d has them: a kernel of taps is no matrix for an optimizer to turn
        self.weight = nn.Parameter(torch.empty(channels, 1, width).uniform_(-(width**-0.5), width**-0.5))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-(width**-0.5), width**-0.5))

    def forward(self, x_BLC: Tensor, before_BTC: Tensor | None = None) -> Tensor:
        """The same shape. ``before_BTC``: what stood before, in place of zeros."""
        return F.silu(depthwise(x_BLC, self.weight[:, 0], self.bias, self.left, before_BTC))

    @property
    def flops(self) -> int:
        """2 · taps."""
        return 2 * self.weight.numel()


@dataclass(frozen=True)
class Carried:
    """What later positions need of earlier ones: the convolution's last inputs, and the state (None: none yet).

    The last axis of the inputs and the second of the state hold one stream after the other.
    """

    before_BTC: Tensor
    state: Tensor | None

    def forward_only(self, streams: int) -> Carried:
        """Without what streams beside the first have seen: they come from the right, where nothing is known yet."""
        if streams == 1:
            return self
        state = None if self.state is None else _first_only(self.state, 1, streams)
        return Carried(_first_only(self.before_BTC, 2, streams), state)

    @staticmethod
    def of_blocks(each: Sequence[Carried]) -> Carried:
        """Caches before block 0, 1, … of B texts as one of B · K blocks, block b · K + k."""
        found = [one.state for one in each if one.state is not None]
        states = [torch.zeros_like(found[0]) if one.state is None else one.state for one in each] if found else []
        before = torch.stack([one.before_BTC for one in each], 1).flatten(0, 1)
        return Carried(before, torch.stack(states, 1).flatten(0, 1) if states else None)


def _first_only(z: Tensor, axis: int, streams: int) -> Tensor:
    own = z.shape[axis] // streams
    first = z.narrow(axis, 0, own)
    return torch.cat((first, *[torch.zeros_like(first)] * (streams - 1)), dim=axis)


class Core(nn.Module, ABC):
    """The convolutions and the scan of a state-space mixer.

    ``streams`` S; ``inner`` E, the width of a stream's output; ``inputs`` K, the channels that it is fed with. The
    first E of those are the signal (two directions may share it), the first ``convolved`` go through the convolution.
    """

    streams: int
    inner: int
    inputs: int
    convolved: int
    conv: Convolution | None
    A_log: nn.Parameter

    @abstractmethod
    def scan(self, u_BLSK: Tensor, pace_BLS1: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """(y_BLSE, the state after the last position, float32). ``pace``: a positive factor on the step Δ."""

    @abstractmethod
    def gate(self, y_BLSE: Tensor, z_BLSE: Tensor) -> Tensor:
        """What leaves the mixer of y, by the gate z (S may be 1 in both for merged streams)."""

    @abstractmethod
    def scan_flops(self, length: int) -> float:
        """FLOPs of the scan per token, all streams."""

    @property
    @abstractmethod
    def state_numel(self) -> int:
        """Numbers in the state of one sequence, all streams."""

    @abstractmethod
    def no_decay(self) -> set[str]:
        """Names of parameters that weight decay must leave alone: rates, steps, skips."""

    def convolve(self, u_BLSK: Tensor, before_BTC: Tensor | None = None) -> Tensor:
        """The leading channels convolved, the rest as it is; nothing to do without a convolution of one's own."""
        if self.conv is None:
            return u_BLSK
        head = self.conv(u_BLSK[..., : self.convolved].flatten(2), before_BTC).unflatten(-1, (self.streams, -1))
        return torch.cat((head, u_BLSK[..., self.convolved :]), dim=-1)

    def forward(self, u_BLSK: Tensor, pace_BLS1: Tensor | None = None) -> Tensor:
        """y_BLSE of streams from their first position on."""
        return self.run(u_BLSK, pace_BLS1, None)[0]

    def run(
        self, u_BLSK: Tensor, pace_BLS1: Tensor | None, cache: Carried | None
    ) -> tuple[Tensor, Carried | None]:
        """(y_BLSE of streams that go on from a cache, the longer cache where there was one)."""
        before, state = (None, None) if cache is None else (cache.before_BTC, cache.state)
        y_BLSE, state = self.scan(self.convolve(u_BLSK, before), pace_BLS1, state)
        if before is None:
            return y_BLSE, None
        fed_BLC = u_BLSK[..., : self.convolved].flatten(2).to(before.dtype)
        seen_BTC = torch.cat((before, fed_BLC), dim=1)
        return y_BLSE, Carried(seen_BTC[:, seen_BTC.shape[1] - before.shape[1] :], state)


class MakeCore(Protocol):
    """Makes the core of a mixer."""

    def __call__(self, streams: int, merged: bool = False) -> Core:
        """A core of these streams. ``merged``: their owner convolves before it, adds the diagonal and merges the
        streams before the gate, so that the core has no convolution and no skip, and one gate.
        """
        ...


class Way(nn.Module, ABC):
    """A recurrence with its projections, one way or both, that can go on from a cache of what lies to the left.

    Both ways, what one call gets is a block: the stream from the right begins at its end.
    """

    core: Core

    @abstractmethod
    def run(self, h_BLD: Tensor, pace_BL1: Tensor | None, cache: Carried | None) -> tuple[Tensor, Carried | None]:
        """(mixed h_BLD, the longer cache where there was one)."""

    def forward(self, h_BLD: Tensor, pace_BL1: Tensor | None = None) -> Tensor:
        """Mix along L."""
        return self.run(h_BLD, pace_BL1, None)[0]


class OneWay(Way):
    """project → one stream, left to right → gate → out."""

    def __init__(self, dim: int, make: MakeCore) -> None:
        """``make``: makes the core."""
        super().__init__()
        self.core = make(1)
        self.project = nn.Linear(dim, self.core.inner + self.core.inputs, bias=False)
        self.out = nn.Linear(self.core.inner, dim, bias=False)

    def run(self, h_BLD: Tensor, pace_BL1: Tensor | None, cache: Carried | None) -> tuple[Tensor, Carried | None]:
        """See the base."""
        core = self.core
        z_BLE, u_BLK = self.project(h_BLD).split((core.inner, core.inputs), dim=-1)
        pace = None if pace_BL1 is None else pace_BL1.unsqueeze(2)
        y_BLSE, cache = core.run(u_BLK.unsqueeze(2), pace, cache)
        return self.out(core.gate(y_BLSE, z_BLE.unsqueeze(2)).flatten(2)), cache


class Recurrent(BlockMixer):
    """Base of mixers that are a recurrence: their constructors make ``way``, the rest stands here."""

    paced = True
    widens = True
    way: nn.Module

    def forward(self, h_BLD: Tensor, cache: Any = None, pace: Tensor | None = None) -> Tensor:
        """Mix along L. ``pace`` [B, 1 or L, 1]: a positive factor on every step Δ."""
        if cache is None:
            mixed_BLD: Tensor = self.way(h_BLD, pace)
            return mixed_BLD
        return self._way().run(h_BLD, pace, cache)[0]

    def new_cache(self, batch: int) -> Carried:
        """Zeros.

        Raises:
            WorkbenchError: the two directions meet in a way that has no cache.
        """
        core = self._way().core
        reach = 0 if core.conv is None else core.conv.left
        dtype = core.A_log.dtype if core.conv is None else core.conv.weight.dtype
        return Carried(core.A_log.new_zeros(batch, reach, core.streams * core.convolved, dtype=dtype), None)

    def commit(self, h_BLD: Tensor, cache: Carried, pace: Tensor | None = None) -> tuple[Tensor, Carried]:
        """Mix as ``forward`` does, and keep the last inputs and the state."""
        mixed_BLD, longer = self._way().run(h_BLD, pace, cache)
        assert longer is not None
        return mixed_BLD, longer

    def beside(
        self, h_NSD: Tensor, clean_BTD: Tensor, pace: Tensor | None = None, clean_pace: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See the base: the clean text block after block, then all noised blocks at once from the states between.

        ``pace`` as in ``forward`` for both of them; that of the clean text is the same at every position.
        """
        cache, mixed = self.new_cache(len(clean_BTD)), []
        caches = [cache]
        size = h_NSD.shape[1]
        for start in range(0, clean_BTD.shape[1], size):
            mixed_BSD, cache = self.commit(clean_BTD[:, start : start + size], cache, clean_pace)
            mixed.append(mixed_BSD)
            caches.append(cache)
        clean_BTD = torch.cat(mixed, dim=1) if mixed else clean_BTD
        return self.forward(h_NSD, Carried.of_blocks(caches), pace), clean_BTD

    @classmethod
    def unfit_for_blocks(cls, settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Directions that do not let one of the two go on alone."""
        part: Any = settings["directions"].part
        if not part.goes_on:
            known: dict[str, Any] = dict(part.registered)
            fitting = [name for name, one in sorted(known.items()) if one.goes_on]
            yield "directions", f"{part.type_name!r} reads no blocks. What would fit: {', '.join(fitting)}"

    def flops_per_token(self, length: int) -> float:
        """2 for each weight of a linear map or a convolution, and what the scan takes."""
        maps = linear_flops(self)
        taps = sum(m.flops for m in self.modules() if isinstance(m, Convolution))
        return maps + taps + sum(m.scan_flops(length) for m in self.modules() if isinstance(m, Core))

    def state_bytes(self, length: int) -> int:
        """The state, at least in float32, and the convolution's last inputs, whatever the length."""
        cores = [m for m in self.modules() if isinstance(m, Core)]
        tails = sum(m.convolved * m.streams * m.conv.left * m.conv.weight.element_size() for m in cores if m.conv)
        return sum(max(4, core.A_log.element_size()) * core.state_numel for core in cores) + tails

    def coarse_products(self) -> set[str]:
        """The projections in and out; not what steps and rates of the scan are read off by, within the cores."""
        cores = tuple(f"{path}." for path, module in self.named_modules() if isinstance(module, Core))
        return {name for name in self.products() if not name.startswith(cores)}

    def no_decay(self) -> set[str]:
        """What the cores set apart."""
        return {f"{path}.{name}" for path, m in self.named_modules() if isinstance(m, Core) for name in m.no_decay()}

    def _way(self) -> Way:
        if not isinstance(self.way, Way):
            raise WorkbenchError(
                f"mixer {self.type_name!r} runs both ways and keeps no cache with these directions; set causal: true"
            )
        return self.way


def first_steps(count: int, low: float, high: float) -> Tensor:
    """Biases whose softplus is log-uniform in [low, high]: how Mamba begins its steps Δ."""
    step = torch.empty(count).uniform_(0, 1).mul_(torch.tensor(high / low).log()).exp_().mul_(low)
    return step + torch.log(-torch.expm1(-step))


def positive_step(raw: Tensor, bias: Tensor, pace: Tensor | None) -> Tensor:
    """softplus(raw + bias) · pace in the bias's type (float32), outside of autocast."""
    with full_precision(raw):
        step = F.softplus(raw.to(bias.dtype) + bias)
        return step if pace is None else step * pace.to(step.dtype)


def step_faults(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(setting, message) where the range of first steps is the wrong way round."""
    if settings["step_min"] > settings["step_max"]:
        yield "step_min", f"{settings['step_min']} is above step_max {settings['step_max']}"
