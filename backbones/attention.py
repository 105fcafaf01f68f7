"""Softmax self-attention as a mixer, with rotary positions and a cache of keys and values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from backbones.base import BlockMixer, Mixer
from backbones.rotary import Rotary
from workbench.core.bounds import Count, Natural, Probability
from workbench.core.errors import Problem, WorkbenchError
from workbench.kernels.attention import Kernel, attention
from workbench.kernels.block_attention import block_attention

if TYPE_CHECKING:
    from workbench.core.spec import Node


class Store:
    """Keys and values in buffers that grow by doubling, shared by the caches that descend from one another."""

    def __init__(self, k_BTHd: Tensor, v_BTHd: Tensor) -> None:
        """Begin with the given tensors, all of them filled."""
        self.k_BTHd, self.v_BTHd = k_BTHd, v_BTHd
        self.filled = k_BTHd.shape[1]

    def append(self, k_BLHd: Tensor, v_BLHd: Tensor) -> None:
        """Write after what is filled."""
        end = self.filled + k_BLHd.shape[1]
        if end > self.k_BTHd.shape[1]:
            self.k_BTHd, self.v_BTHd = self._grown(self.k_BTHd, end), self._grown(self.v_BTHd, end)
        self.k_BTHd[:, self.filled : end] = k_BLHd
        self.v_BTHd[:, self.filled : end] = v_BLHd
        self.filled = end

    def _grown(self, z_BTHd: Tensor, end: int) -> Tensor:
        batch, _, heads, width = z_BTHd.shape
        wide = z_BTHd.new_empty(batch, max(64, 2 * end), heads, width)
        wide[:, : self.filled] = z_BTHd[:, : self.filled]
        return wide


@dataclass(frozen=True)
class KeysValues:
    """The first ``length`` positions of a store: a value that later commits leave as it is."""

    store: Store
    length: int

    @property
    def k_BTHd(self) -> Tensor:
        """Keys, rotated."""
        return self.store.k_BTHd[:, : self.length]

    @property
    def v_BTHd(self) -> Tensor:
        """Values."""
        return self.store.v_BTHd[:, : self.length]

    def extended(self, k_BLHd: Tensor, v_BLHd: Tensor) -> KeysValues:
        """This cache and the positions after it. A second continuation of one cache gets a store of its own."""
        here = self
        if self.length != self.store.filled:
            here = replace(self, store=Store(self.k_BTHd.clone(), self.v_BTHd.clone()))
        here.store.append(k_BLHd, v_BLHd)
        return replace(here, length=here.store.filled)


@Mixer.register("attention")
class Attention(BlockMixer):
    """Multi-head softmax attention; queries, keys and values in one matrix, rows ordered (three, head, d).

    Settings:
        heads: number of heads; divides the width. null: as many as makes them about 64 wide.
        window: how many positions to either side (behind, when causal) a position sees; 0 for all of them.
        positions: "rotary" turns queries and keys by their position (Su et al. 2021); "none" leaves them.
        bias: whether the two linear maps have biases.
        dropout: rate at which attention weights are dropped in training.
        kernel: implementation: auto, sdpa (PyTorch's), matmul, flex (CUDA), xformers (CUDA, if installed) or reference.
    """

    def __init__(
        self,
        dim: int,
        length: int,
        causal: bool,
        heads: Count | None = None,
        window: Natural = 0,
        positions: Literal["rotary", "none"] = "rotary",
        bias: bool = False,
        dropout: Probability = 0.0,
        kernel: Kernel = "auto",
    ) -> None:
        """Supplied: ``dim``, ``length`` (how far rotary tables reach; longer input extends them), ``causal``."""
        super().__init__()
        heads = usual_heads(dim) if heads is None else heads
        for problem in head_problems(dim, heads, positions):
            raise WorkbenchError(problem)
        self.dim, self.heads, self.causal, self.window = dim, heads, causal, window
        self.dropout, self.kernel = dropout, kernel
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias)
        self.out = nn.Linear(dim, dim, bias=bias)
        self.rotary = Rotary(dim // heads, length) if positions == "rotary" else None

    def forward(self, h_BLD: Tensor, cache: KeysValues | None = None) -> Tensor:
        """Attend within ``h_BLD`` and, with a cache, to the positions before it."""
        q, k, v = self._project(h_BLD, 0 if cache is None else cache.length)
        if cache is not None and cache.length:
            k = torch.cat((cache.k_BTHd, k), dim=1)
            v = torch.cat((cache.v_BTHd, v), dim=1)
        return self._attend(q, k, v)

    def new_cache(self, batch: int) -> KeysValues:
        """An empty cache."""
        weight = self.qkv.weight
        empty = weight.new_empty(batch, 0, self.heads, self.dim // self.heads)
        return KeysValues(Store(empty, empty), 0)

    def commit(self, h_BLD: Tensor, cache: KeysValues) -> tuple[Tensor, KeysValues]:
        """Attend as ``forward`` does, and keep the keys and values of ``h_BLD``."""
        q, k, v = self._project(h_BLD, cache.length)
        cache = cache.extended(k, v)
        return self._attend(q, cache.k_BTHd.to(q.dtype), cache.v_BTHd.to(q.dtype)), cache

    def beside(self, h_NSD: Tensor, clean_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """See the base; not with a window.

        Raises:
            WorkbenchError: there is a window.
        """
        if self.window:
            raise WorkbenchError("attention within a window reads no blocks: leave window at 0")
        noised_BLD = h_NSD.reshape(len(clean_BTD), -1, h_NSD.shape[-1])
        noised, clean = self._project(noised_BLD, 0), self._project(clean_BTD, 0)
        rate = self.dropout if self.training else 0.0
        mixed_BLHd, mixed_BTHd = block_attention(noised, clean, h_NSD.shape[1], rate, self.kernel)
        return self.out(mixed_BLHd.flatten(2)).reshape(h_NSD.shape), self.out(mixed_BTHd.flatten(2))

    @classmethod
    def unfit(cls, settings: Mapping[str, Any], dim: int) -> Iterator[tuple[str, str]]:
        """Heads that do not share the width."""
        heads = settings["heads"] or usual_heads(dim)
        for message in head_problems(dim, heads, settings["positions"]):
            yield "heads", message

    @classmethod
    def unfit_for_blocks(cls, settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """A window."""
        if settings["window"]:
            yield "window", "attention within a window reads no blocks; leave it at 0"

    def flops_per_token(self, length: int) -> float:
        """8 D² for the linear maps, 4 K D for scores and sums over the K keys that a position sees on average."""
        return 8 * self.dim**2 + 4 * self._keys(length) * self.dim

    def state_bytes(self, length: int) -> int:
        """Keys and values of ``length`` positions."""
        return 2 * length * self.dim * self.qkv.weight.element_size()

    def _keys(self, length: int) -> float:
        if not self.window or self.window >= length:
            return length * (0.5 if self.causal else 1.0)
        side = self.window * (1 - (self.window + 1) / (2 * length))  # fewer at the ends
        return 1 + side * (1 if self.causal else 2)

    def _project(self, h_BLD: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        qkv_BL3Hd = self.qkv(h_BLD).unflatten(-1, (3, self.heads, -1))
        if self.rotary is None:
            q, k, v = qkv_BL3Hd.unbind(2)
            return q, k, v
        return self.rotary(qkv_BL3Hd, start)

    def _attend(self, q_BLHd: Tensor, k_BTHd: Tensor, v_BTHd: Tensor) -> Tensor:
        rate = self.dropout if self.training else 0.0
        mixed_BLHd = attention(q_BLHd, k_BTHd, v_BTHd, self.causal, rate, self.kernel, self.window)
        return self.out(mixed_BLHd.flatten(2))


def usual_heads(dim: int) -> int:
    """The number of heads of even width whose width comes nearest to 64; one where there is none."""
    fitting = [heads for heads in range(1, dim + 1) if dim % heads == 0 and dim // heads % 2 == 0]
    return min(fitting, key=lambda heads: abs(math.log(dim / heads / 64)), default=1)


def head_problems(dim: int, heads: int, positions: str = "rotary") -> Iterator[str]:
    """What keeps ``heads`` heads from sharing a width of ``dim``."""
    if dim % heads:
        step = 2 * heads if positions == "rotary" else heads
        above = dim + step - dim % step
        yield f"dim {dim} is not divisible by heads {heads}; the next width that fits is {above}"
    elif positions == "rotary" and (dim // heads) % 2:
        yield f"rotary positions need an even width per head; dim {dim} / heads {heads} = {dim // heads}"


def head_misfits(node: Node, positions: str = "rotary") -> Iterator[Problem]:
    """``head_problems`` of a resolved node with settings ``dim`` and ``heads``."""
    for message in head_problems(node.settings["dim"], node.settings["heads"], positions):
        yield Problem(f"{node.path}.heads" if node.path else "heads", message)
