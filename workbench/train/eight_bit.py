"""AdamW whose moments take one byte a number, in blocks with a scale each (Dettmers et al. 2022).

torchao has such an optimizer too. It is compiled for every shape of a weight, which takes longer than a short run, is
slower on a CPU than this one (docs/eight-bits.md has figures), leaves moments in float32 where a weight's size is no
multiple of 256, and lets blocks run across rows, so that rows on several processes cannot be cut anew. Here a block
lies within a row, and tokens of a table do not share a scale.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from workbench.train.optim import AdamW, Kept, Optimizer, Trainable, decaying, split
from workbench.train.pieces import cut_like, local

BLOCK, LEAST = 256, 8
"""The most and the fewest numbers of a block. Weights whose rows cannot be cut so keep their moments in float32."""
AT_ONCE, ON_A_GPU = 1 << 18, 1 << 25
"""Numbers that a step works on at once: what is in float32 meanwhile stays this small, near a processor's cores; on a
GPU, where each operation is a launch, 128 MB of each."""
DROPPED = 14
"""Bits of a float32 that its code does not depend on: of the mantissa's 23 bits 9 stay."""
MEAN, SQUARE, SCALE, STEP = "exp_avg", "exp_avg_sq", "_scale", "step"
"""Names of the state's pieces, torch's where there are such."""


@Optimizer.register("adamw8bit")
class AdamW8bit(AdamW):
    """AdamW with both moments of matrices in one byte a number: a quarter of the memory, slower steps."""

    def build(self, net: Trainable) -> list[torch.optim.Optimizer]:
        """One optimizer with a group that decays and one that does not."""
        _, decayed, rest = split(net)
        groups = decaying(decayed, rest, self.lr, self.weight_decay)
        return [_Blockwise(groups, {"lr": self.lr, "betas": self.betas, "eps": self.eps})] if groups else []

    def state(self, net: Trainable) -> dict[str, Kept]:
        """Two codes for each number and a scale for each of their blocks, or two moments; and a count."""
        trained = {name: block_of(p) for name, p in net.named_parameters() if p.requires_grad}
        return {name: Kept(0, 1, 2, block) if block else Kept(2, 1) for name, block in trained.items()}


def block_of(parameter: Tensor) -> int:
    """Numbers of a block: the largest part, at most ``BLOCK``, that a row is made of; 0 where moments stay float32."""
    row = math.prod(parameter.shape[1:]) if parameter.ndim > 1 else 0
    block = next((size for size in range(min(BLOCK, row), LEAST - 1, -1) if row % size == 0), 0)
    return block if parameter.dtype == torch.float32 else 0


class _Blockwise(torch.optim.Optimizer):
    """The steps. Of weights that are cut over processes, the rows here are stepped."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move all weights along their gradients; a closure is not called."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state[p] or self._begin(p)
                    state[STEP] += 1
                    self._move(p, {name: local(value) for name, value in state.items()}, group)

    def _begin(self, p: nn.Parameter) -> dict[str, Tensor]:
        """Moments of 0."""
        here, block = local(p), block_of(p)
        state = {STEP: torch.tensor(0.0)}
        for name in (MEAN, SQUARE):
            state[name] = cut_like(p, here.new_zeros(here.shape, dtype=torch.uint8 if block else None))
            if block:
                state[name + SCALE] = cut_like(p, here.new_zeros(len(here), math.prod(here.shape[1:]) // block))
        self.state[p] = state
        return state

    def _move(self, p: nn.Parameter, state: Mapping[str, Tensor], group: Mapping[str, Any]) -> None:
        """A step of one weight, some rows at a time."""
        (beta1, beta2), count = group["betas"], float(state[STEP])
        rate, root = group["lr"] / (1 - beta1**count), (1 - beta2**count) ** 0.5
        (weight, gradient), block = (torch.atleast_1d(local(t)) for t in (p, p.grad)), block_of(p)
        for rows in _portions(weight):
            mean, square = (_Moment(state, name, rows, block) for name in (MEAN, SQUARE))
            grad = gradient[rows]
            m = mean.read().lerp_(grad, 1 - beta1)
            v = square.read().mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
            weight[rows].mul_(1 - group["lr"] * group["weight_decay"])
            weight[rows].addcdiv_(m, v.sqrt().div_(root).add_(group["eps"]), value=-rate)
            mean.write(m)
            square.write(v)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, which would make floats of the codes."""
        super().load_state_dict({**state_dict, "state": {}})
        parameters = [p for group in self.param_groups for p in group["params"]]
        indices = [index for group in state_dict["param_groups"] for index in group["params"]]
        for index, p in zip(indices, parameters, strict=True):
            if index in state_dict["state"]:
                found = state_dict["state"][index]
                self.state[p] = {name: t.clone() if name == STEP else t.to(p.device) for name, t in found.items()}


def _portions(weight: Tensor) -> Iterator[slice]:
    """Rows of about ``AT_ONCE`` numbers, or ``ON_A_GPU``."""
    rows, numbers = len(weight), AT_ONCE if weight.device.type == "cpu" else ON_A_GPU
    size = max(1, numbers * rows // max(1, weight.numel()))
    yield from (slice(start, start + size) for start in range(0, rows, size))


class _Moment:
    """Some rows of a moment, codes and scales or float32 itself."""

    def __init__(self, state: Mapping[str, Tensor], name: str, rows: slice, block: int) -> None:
        """``block``: 0 for float32."""
        self.held, self.block, self.signed = torch.atleast_1d(state[name])[rows], block, name == MEAN
        self.scale = state[name + SCALE][rows] if block else None

    def read(self) -> Tensor:
        """The numbers: those of the state themselves where it is float32."""
        if self.scale is None:
            return self.held
        values = torch.index_select(values_of(self.signed, self.held.device), 0, self.held.flatten().int())
        return values.view(*self.scale.shape, self.block).mul_(self.scale[..., None]).view(self.held.shape)

    def write(self, numbers: Tensor) -> None:
        """Keep ``numbers``, which are overwritten."""
        if self.scale is None:
            return
        blocks = numbers.view(*self.scale.shape, self.block)
        torch.amax(blocks.abs(), -1, out=self.scale)
        blocks.div_(self.scale.clamp(min=torch.finfo(torch.float32).tiny)[..., None])
        self.held.copy_(encode(numbers, self.signed))


def encode(numbers: Tensor, signed: bool) -> Tensor:
    """The codes (uint8) of numbers in [−1, 1], or [0, 1]: the nearest of the map's, by a table over leading bits."""
    places = (numbers.view(torch.int32).flatten() >> DROPPED) + (1 << 31 - DROPPED) * signed
    return torch.index_select(_codes(signed, numbers.device), 0, places).view(numbers.shape)


@functools.cache
def values_of(signed: bool, device: torch.device = torch.device("cpu")) -> Tensor:  # noqa: B008 (never changed)
    """The 256 numbers that codes stand for, ascending: the dynamic map.

    From 10⁻⁷ to 1 every decade has twice as many as the one before: means of equal parts of [0.1, 1] of it, and the
    1 itself. A mean of gradients has both signs and 0. A mean of squares has no 0, which would be a step without
    bound once the gradient is smaller than before; in its place stands 10⁻⁷.
    """
    found = [1.0, 0.0 if signed else 1e-7]
    for decade in range(7):
        parts = 2 ** (decade if signed else decade + 1)
        means = [10.0 ** (decade - 6) * (0.1 + 0.9 * (part + 0.5) / parts) for part in range(parts)]
        found += [*means, *((-mean for mean in means) if signed else ())]
    return torch.tensor(sorted(found), dtype=torch.float32, device=device)


@functools.cache
def _codes(signed: bool, device: torch.device) -> Tensor:
    """The code of every float32 by its leading bits, read as a signed number and counted from the least."""
    first = -(1 << 31 - DROPPED) if signed else 0
    places = torch.arange(first, 1 << 31 - DROPPED, dtype=torch.int32)
    numbers = ((places << DROPPED) + (1 << DROPPED - 1)).view(torch.float32).nan_to_num(1.0)
    values = values_of(signed)
    return torch.bucketize(numbers, (values[1:] + values[:-1]) / 2).to(device, torch.uint8)
