"""GPT-2 as published (Radford et al. 2019): learned positions, pre-norm with biases, tied head, dropout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from backbones.attention import Attention, head_misfits
from backbones.base import Backbone, Sight
from backbones.conditioning import Embedding, Modulation
from backbones.embedding import TiedHead, TokensAndPositions, normal_, scale_
from backbones.stack import MLP, Block, FinalNorm, LayerNorm, Stack
from workbench.core.bounds import Count, Probability
from workbench.core.errors import Problem
from workbench.kernels.attention import Kernel

if TYPE_CHECKING:
    from workbench.core.spec import Node


@Backbone.register("gpt2")
class GPT2(Stack):
    """GPT-2: left-sighted, with a cache of keys and values. It does not hear σ.

    The head is tied to the token table. With more states than outputs (an id that is read, never predicted) it is
    the table's first ``outputs`` rows.

    Settings:
        dim: width; divisible by heads.
        depth: number of blocks.
        heads: attention heads.
        dropout: rate of dropout on embeddings, attention weights and branches; 0.1 as published.
        kernel: implementation of attention (auto, sdpa, matmul, xformers, reference).
    """

    head_bias = False

    def __init__(
        self,
        states: int,
        outputs: int,
        length: int,
        dim: Count = 768,
        depth: Count = 12,
        heads: Count = 12,
        dropout: Probability = 0.1,
        kernel: Kernel = "auto",
    ) -> None:
        """Supplied: ``states``, ``outputs`` (≤ states), ``length`` (the number of learned positions)."""
        super().__init__()
        self.causal = True
        self.embed = TokensAndPositions(states, length, dim, dropout)
        self.conditioning = Embedding()
        mixers = [
            Attention(dim, length, True, heads, positions="none", bias=True, dropout=dropout, kernel=kernel)
            for _ in range(depth)
        ]
        mlps = [MLP(dim) for _ in range(depth)]
        self.blocks = nn.ModuleList(
            Block(mixer, mlp, (LayerNorm(dim, bias=True), LayerNorm(dim, bias=True)), Modulation(6), dropout)
            for mixer, mlp in zip(mixers, mlps, strict=True)
        )
        self.final = FinalNorm(LayerNorm(dim, bias=True), Modulation(2))
        normal_(self, 0.02)
        # each block adds two branches: keep the residual stream's variance at any depth
        outward = [mixer.out.weight for mixer in mixers] + [mlp.outer.weight for mlp in mlps]
        scale_(outward, (2 * depth) ** -0.5)
        self.head = TiedHead(self.embed.tokens, outputs)

    @classmethod
    def sight(cls, settings: Mapping[str, Any]) -> Sight:
        """Left."""
        return "left"

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """Heads that do not share the width."""
        yield from super().misfits(node, root)
        yield from head_misfits(node, "none")

    @classmethod
    def example(cls) -> dict[str, Any]:
        """Two small blocks."""
        return {"dim": 16, "depth": 2, "heads": 2}
