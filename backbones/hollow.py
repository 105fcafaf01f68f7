"""A hollow network: what it says of a position depends on all the others and not on the position itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from backbones.base import Backbone, Mixer, Sight, linear_flops
from backbones.conditioning import ADALN, Conditioning
from backbones.embedding import Tokens, zero_head
from backbones.hybrid import mixer_misfits
from backbones.stack import MLP, FinalNorm, LayerNorm, block, network_flops
from workbench.core.bounds import Count, NonNegative, Positive, Probability
from workbench.core.errors import Problem
from workbench.core.part import Maker

if TYPE_CHECKING:
    from workbench.core.spec import Node


@Backbone.register("hollow")
class Hollow(Backbone):
    """Two one-way streams kept apart through depth, each shifted by one, merged position by position before the head.

    So p(x_i | all but x_i) of every position takes one pass: what an informed corrector and pseudo-likelihood ask for
    (Zhao et al. 2024 with attention; here with any causal mixer). The price is that the two sides meet only once.

    Settings:
        mixer: the mixer of both streams; it runs one way.
        dim: width of each stream.
        depth: number of blocks of each stream.
        tied: whether both streams have the same blocks.
        merge_ratio: hidden width of the map that merges the streams, over dim.
        cond_dim: width of the vector that carries σ to the blocks.
        mlp_ratio: hidden width of an MLP after each mixer over dim; 0 for none.
        dropout: rate of dropout on what each branch adds.
        conditioning: how σ reaches the blocks: adaln (null is the same), added, step_size, time_free, none.
    """

    usual = {"mixer": {"type": "mamba2"}, "conditioning": {"type": "adaln"}}

    def __init__(
        self,
        states: int,
        outputs: int,
        length: int,
        mixer: Maker[Mixer],
        dim: Count = 768,
        depth: Count = 12,
        tied: bool = False,
        merge_ratio: Positive = 4.0,
        cond_dim: Count = 128,
        mlp_ratio: NonNegative = 0.0,
        dropout: Probability = 0.1,
        conditioning: Conditioning | None = None,
    ) -> None:
        """Supplied: ``states``, ``outputs``, ``length``."""
        super().__init__()
        conditioning = conditioning or ADALN
        self.depth, self.streams = depth, 1 if tied else 2
        self.embed = Tokens(states, dim)
        self.ends = nn.Parameter(torch.empty(2, dim).uniform_(-(dim**-0.5), dim**-0.5))
        self.conditioning = conditioning.embedding(dim, cond_dim)
        self.blocks = nn.ModuleList(
            block(
                mixer(dim=dim, length=length, causal=True),
                dim,
                MLP(dim, mlp_ratio) if mlp_ratio else None,
                conditioning,
                cond_dim,
                dropout,
            )
            for _ in range(self.streams * depth)
        )
        self.norm = LayerNorm(2 * dim)
        self.merge = MLP(2 * dim, merge_ratio / 2)
        self.narrow = nn.Linear(2 * dim, dim, bias=False)
        self.final = FinalNorm(LayerNorm(dim), conditioning.modulation(dim, cond_dim, 2))
        self.head = zero_head(dim, outputs)

    @classmethod
    def sight(cls, settings: Mapping[str, Any]) -> Sight:
        """All but itself."""
        return "others"

    def forward(self, x_BL: Tensor, sigma: Tensor | None = None, cache: Any = None) -> Tensor:
        """Features h_BLD; see ``Backbone.forward``."""
        c, h_BLD = self.conditioning(sigma, self.embed(x_BL))
        behind = self._stream(h_BLD, c, 0)
        ahead = self._stream(h_BLD.flip(1), _turned(c, h_BLD.shape[1]), 1).flip(1)
        both = torch.cat((behind, ahead), dim=-1)
        return self.final(self.narrow(both + self.merge(self.norm(both))), c)

    def _stream(self, h_BLD: Tensor, c: Any, side: int) -> Tensor:
        """One direction, left to right: position i is fed with the token before it, the first with an end."""
        end_B1D = self.ends[side].to(h_BLD.dtype).expand(h_BLD.shape[0], 1, -1)
        h_BLD = torch.cat((end_B1D, h_BLD[:, :-1]), dim=1)
        first = (side % self.streams) * self.depth
        for one in self.blocks[first : first + self.depth]:
            h_BLD = one(h_BLD, c)
        return h_BLD

    def no_decay(self) -> set[str]:
        """What the mixers set apart, and the ends, which stand for tokens."""
        return {"ends"} | super().no_decay()

    def flops_per_token(self, length: int) -> float:
        """Both streams and their merging; the rest as `network_flops` has it."""
        blocks: list[Any] = list(self.blocks) * (2 // self.streams)
        rest = network_flops(blocks, self.conditioning, self.final, self.head, length)
        return rest + linear_flops(self.merge, self.narrow)

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """A width that the mixer cannot have."""
        yield from super().misfits(node, root)
        yield from mixer_misfits(node, node.settings["mixer"])

    @classmethod
    def example(cls) -> dict[str, Any]:
        """Two small blocks a stream."""
        return {"dim": 16, "depth": 2, "cond_dim": 8, "mixer": {"state": 4, "head_dim": 8}}


def _turned(c: Any, length: int) -> Any:
    """What the blocks hear, from right to left where it differs by position."""
    if isinstance(c, tuple):
        return tuple(_turned(part, length) for part in c)
    return c.flip(1) if isinstance(c, Tensor) and c.shape[1] == length > 1 else c
